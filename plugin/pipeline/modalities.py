"""What the items' vectors are made of beside their texts: arrays that somebody computed, of images or sound say."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
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
from explorank.retrieval import Catalogue, Encoder
from explorank.retrieval.encoding import concatenate
from explorank.settings import ModalitySettings, Settings

_ROWS_AT_ONCE: Final = 16_384
_COMPARED: Final = 1_000
"""Items whose vectors are compared with the former ones; the median over them is sure."""
_SAME: Final = 0.99
"""The cosine of two vectors of one model for one thing: what computes it may differ, and round."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Modality:
    """One kind of vector beside the texts', in the rows of a catalogue."""

    feature: str
    weight: float
    vectors: NDArray[np.float32]
    """(m, d) of the items that have one, as they were brought."""
    places: NDArray[np.int64]
    """(n,) each item's row of `vectors`; -1 where nothing is known."""

    def rows(self, these: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of some items, zeros where nothing is known."""
        places = self.places[these]
        found = self.vectors[places]
        found[places < 0] = 0.0
        return found


class JoinedEncoder:
    """Encodes the texts of a catalogue's items and joins them with what else is known of these items."""

    def __init__(self, encoder: Encoder, modalities: Sequence[Modality]) -> None:
        self._encoder = encoder
        # Their order moves dimensions about and changes no cosine.
        self._modalities = sorted(modalities, key=lambda modality: modality.feature)

    @property
    def name(self) -> str:
        """The encoder's, and each modality with its weight."""
        return self._encoder.name + "".join(
            f" + {modality.feature} ({modality.weight:g})" for modality in self._modalities
        )

    def fingerprint(self, item_ids: NDArray[np.str_], former: Catalogue | None = None) -> str:
        """Return what identifies the space of a catalogue of `item_ids` (n,), whose rows the modalities are in.

        It is made of the encoder's fingerprint and each modality's name, weight, width and values: a model of images
        that took another's place under the same name makes another space. New items bring new values and do not, so
        where most items that `former` has too have the vectors that they have there, its fingerprint holds.
        """
        if not self._modalities:
            return self._encoder.fingerprint
        joined = [
            (modality.feature, modality.weight, modality.vectors.shape[1]) for modality in self._modalities
        ]
        facts = hashlib.sha256(json.dumps([self._encoder.fingerprint, joined]).encode()).hexdigest()
        if former is not None and former.encoder_fingerprint.startswith(f"{facts}-"):
            rows = former.rows(item_ids)
            if self._are_as_in(former, rows):
                return former.encoder_fingerprint
        values = hashlib.sha256()
        for modality in self._modalities:
            values.update(modality.places.tobytes())
            if modality.vectors.size:  # an empty array has no buffer to read
                values.update(np.ascontiguousarray(modality.vectors).data)
        return f"{facts}-{values.hexdigest()[:16]}"

    def _are_as_in(self, former: Catalogue, rows: NDArray[np.int64]) -> bool:
        """Return whether most items have the vectors that they have in `former`, in `rows` (n,) of it; -1 is absent."""
        shared = np.flatnonzero(rows >= 0)
        shared = shared[:: max(1, len(shared) // _COMPARED)]
        start = former.vectors.shape[1] - sum(modality.vectors.shape[1] for modality in self._modalities)
        for modality in self._modalities:
            end = start + modality.vectors.shape[1]
            there, here = former.vectors[rows[shared], start:end], modality.rows(shared)
            lengths = np.linalg.norm(there, axis=1) * np.linalg.norm(here, axis=1)
            known = lengths > 0
            cosines = np.einsum("ij,ij->i", there, here)[known] / lengths[known]
            if not known.any() or np.median(cosines) < _SAME:
                return False
            start = end
        return True

    def encode(
        self,
        texts: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
        *,
        allocate: Callable[[tuple[int, int]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Return unit rows (n, d) of the items' `texts`, joined as `concatenate` does it; see `Encoder.encode`.

        They are joined in parts, in the array that `allocate` returned: memory holds the modalities' own vectors, and
        no second copy of the joined ones.
        """
        if not self._modalities:
            return self._encoder.encode(texts, progress, allocate=allocate)
        more = sum(modality.vectors.shape[1] for modality in self._modalities)
        whole: list[NDArray[np.float32]] = []

        def allocate_text(shape: tuple[int, int]) -> NDArray[np.float32]:
            whole.append(allocate((shape[0], shape[1] + more)))
            return whole[0][:, : shape[1]]

        text = self._encoder.encode(texts, progress, allocate=allocate_text)
        if not whole:
            return np.zeros((0, text.shape[1] + more), np.float32)
        weights = {modality.feature: modality.weight for modality in self._modalities}
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            these = slice(start, start + _ROWS_AT_ONCE)
            others = {modality.feature: modality.rows(these) for modality in self._modalities}
            whole[0][these] = concatenate(text[these], others, weights)
        return whole[0]


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
