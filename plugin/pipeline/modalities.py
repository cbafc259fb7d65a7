"""What the items' vectors are made of beside their texts: arrays that somebody computed, of images or sound say."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.pipeline.features import feature_access
from explorank.settings import ModalitySettings, Settings

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Modality:
    """One kind of vector beside the texts', in the rows of a catalogue."""

    feature: str
    weight: float | None
    """Its share in the likeness of items; None where a gate is to learn it."""
    vectors: NDArray[np.float32]
    """(m, d) of the items that have one, as they were brought."""
    places: NDArray[np.int64]
    """(n,) each item's row of `vectors`; -1 where nothing is known."""

    @property
    def length(self) -> int:
        """How many values a vector has."""
        return int(self.vectors.shape[1])

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of some items, zeros where nothing is known."""
        places = self.places[rows]
        found = self.vectors[places]
        found[places < 0] = 0.0
        return found

    def digest(self) -> str:
        """Return a hash of which item has which vector."""
        digest = hashlib.sha256(self.places.tobytes())
        if self.vectors.size:  # an empty array has no buffer to read
            digest.update(np.ascontiguousarray(self.vectors).data)
        return digest.hexdigest()


def how_joined(feature: str, weight: float | None) -> str:
    """Return in words what is joined with the texts, and by which weight; None is by a gate."""
    return f"{feature} ({'gated' if weight is None else format(weight, 'g')})"


def modalities_of(
    settings: Settings,
    item_ids: NDArray[np.str_],
    items: Path | None = None,
    *,
    until: datetime | None = None,
) -> tuple[Modality, ...]:
    """Return what the settings ask for beside the texts of `item_ids` (n,).

    A column of the table at `items`, whose n rows they are, is read where it has the feature's name, or the part of
    that after the colon; else the feature repository, as it was at `until`.

    Raises `DataError` where neither has it, where no item has a vector, and, naming an item, where two differ in
    length; `FeatureRepositoryError`, naming the arrays there are, where the repository has no such one.
    """
    return tuple(
        _modality(wanted, item_ids, *_lists(settings, wanted.feature, item_ids, items, until))
        for wanted in settings.retrieval.modalities
    )


def _lists(
    settings: Settings,
    feature: str,
    item_ids: NDArray[np.str_],
    items: Path | None,
    until: datetime | None,
) -> tuple[NDArray[np.str_], pa.ChunkedArray]:
    """Return whose the lists are, (m,) ids, and the lists (m,)."""
    _, colon, within_view = feature.partition(":")
    if items is not None:
        columns = _columns_with_lists(items)
        column = next((name for name in (feature, within_view) if name in columns), None)
        if column is not None:
            return item_ids, pq.read_table(items, columns=[column])[column]
        if not colon or settings.features is None:
            raise DataError(
                f"`{feature}` in `retrieval.modalities` is no column of lists in {items}, which has "
                f"{', '.join(columns) or 'none; only parquet can hold them'}. Name a column of it, or VIEW:FEATURE of "
                "the repository that `features` names."
            )
    ids, lists = feature_access(settings).item_arrays(feature, until)
    return ids.astype(np.str_), lists


def _columns_with_lists(items: Path) -> list[str]:
    if items.suffix not in {".parquet", ".pq"}:
        return []
    return [field.name for field in pq.read_schema(items) if _is_list(field.type)]


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _modality(
    wanted: ModalitySettings,
    item_ids: NDArray[np.str_],
    ids: NDArray[np.str_],
    lists: pa.ChunkedArray,
) -> Modality:
    vectors, rows = _matrix(wanted.feature, ids, lists)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is as little a vector as NaN
        squares = np.einsum("ij,ij->i", vectors, vectors)
    told = np.isfinite(squares) & (squares > 0)
    known = pd.Series(np.flatnonzero(told), ids[rows[told]])
    places = known[~known.index.duplicated()].reindex(item_ids).fillna(-1).to_numpy(np.int64)
    missing = int((places < 0).sum())
    if missing == len(item_ids) and missing:
        raise DataError(
            f"None of the {len(item_ids):,} items has a vector in `{wanted.feature}`, so it would say nothing. Check "
            "that its ids are those of the items, or remove it from `retrieval.modalities`."
        )
    if missing:
        _log.warning(
            "%d of %d items have no vector in %r: their texts and what else is known speak for them.",
            missing,
            len(item_ids),
            wanted.feature,
        )
    return Modality(wanted.feature, wanted.weight, vectors, places)


def _matrix(
    feature: str, ids: NDArray[np.str_], lists: pa.ChunkedArray
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the lists that are not empty as (m, d), and where they stand, (m,)."""
    numbers = lists.type.value_type
    if not (pa.types.is_floating(numbers) or pa.types.is_integer(numbers)):
        raise DataError(
            f"`{feature}` holds lists of {numbers}, which are no vectors. A modality needs a list of numbers for each "
            "item, all of one length: name another column or feature in `retrieval.modalities`."
        )
    widths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    rows = np.flatnonzero(widths)
    width = int(widths[rows[0]]) if len(rows) else 0
    others = rows[widths[rows] != width]
    if len(others):
        raise DataError(
            f"In `{feature}` the vector of item {str(ids[others[0]])!r} has {widths[others[0]]} numbers and that of "
            f"{str(ids[rows[0]])!r} has {width}, so they come from different models and cannot be compared. Compute "
            "all with one, and leave out those of items it does not know."
        )
    flat = pc.cast(pc.list_flatten(lists), pa.float32(), safe=False)
    return flat.to_numpy().reshape(len(rows), width), rows
