"""The data of a run as arrays: MovieLens-100K, or anyone's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.demo.data import DemoData
from explorank.errors import DataError
from explorank.retrieval import Encoder
from explorank.retrieval.collaborative import Interactions, SideInformation
from explorank.retrieval.features.columns import feature_columns
from explorank.retrieval.features.tables import require_columns, text_ids

_AGES: Final = 8
"""A user's number is also a group: one of so many equally large ranges."""
_NO_FEATURE: Final = ("item_id", "user_id", "text", "title", "available_from")
"""Columns that say who a row is of, what its text is, and from when it was known."""


@dataclass(frozen=True, slots=True)
class World:
    """All interactions, and what else is known."""

    name: str
    interactions: Interactions
    """With times; all items of the table of items are columns."""
    side: SideInformation


def world(data: DemoData, cache: Path, *, model: str = "packaged") -> World:
    """Return the arrays of `data`, with the items' texts encoded by `model`; `cache` keeps the vectors.

    Raises `DataError` or `InvalidTable` for tables without a column of ids or texts, and for ids that cannot be read.
    """
    told = without_texts(data)
    items = _by_id(data.items, "items", "item_id")
    texts = items["text" if "text" in items else "title"].reindex(told.interactions.item_ids)
    content = Encoder(model, cache=cache).encode(texts.fillna("").astype(str).tolist())
    return replace(told, side=replace(told.side, content=content))


def without_texts(data: DemoData) -> World:
    """Return the arrays of `data` but for the texts'; raises as `world` does.

    Columns are read as `explorank features` reads them, and what is no feature there is left out. Numbers and times are
    numbers; of items, each flag and each value of a list or a category is a tag; of users, flags, categories and ranges
    of numbers are groups.
    """
    if "item_id" not in data.items or not {"text", "title"} & set(data.items):
        missing = "item_id" if "item_id" not in data.items else "text"
        raise DataError(
            f"The table of items has no column {missing!r}; items are found by their ids and told by their texts. Add "
            "it; a column `title` will do for `text`."
        )
    events = data.interactions.drop_duplicates(["user_id", "item_id"])  # in order of time: the first stays
    items = _by_id(data.items, "items", "item_id")
    interactions = Interactions.of(
        events["user_id"].astype(str).tolist(),
        events["item_id"].astype(str).tolist(),
        values=events["value"].to_numpy(),
        times=events["timestamp"].astype("int64").to_numpy() / 1e6,
        all_items=items.index.tolist(),
    )
    known = _columns(items, "item", interactions.item_ids)
    numbers = {name: _numbers(column) for name, column in known.items() if _is_amount(column)}
    side = SideInformation(tags=_tags(known), item_numbers=numbers)
    if data.users is not None:
        require_columns(data.users, "users", ("user_id",))
        people = _columns(_by_id(data.users, "users", "user_id"), "user", interactions.user_ids)
        side = replace(
            side,
            user_numbers={name: _numbers(column) for name, column in people.items() if _is_amount(column)},
            user_groups={name.removeprefix("user_"): _groups(column) for name, column in people.items()},
        )
    return World(data.name, interactions, side)


def known_of_items(side: SideInformation) -> NDArray[np.float32] | None:
    """Return (n, c) all that is known of the items but for who took them up, scaled; None where that is nothing."""
    columns: list[NDArray[Any]] = [side.content] if side.content is not None else []
    columns += [side.tags] if side.tags is not None else []
    columns += [_scaled(numbers) for numbers in side.item_numbers.values()]
    return np.concatenate(columns, axis=1).astype(np.float32) if columns else None


def known_of_users(side: SideInformation) -> NDArray[np.float32] | None:
    """Return (u, g) all that is known of the users but for what they took up, scaled; None where that is nothing."""
    columns = [_scaled(numbers) for numbers in side.user_numbers.values()]
    columns += [np.eye(int(codes.max()) + 1)[codes] for codes in side.user_groups.values()]
    return np.concatenate(columns, axis=1).astype(np.float32) if columns else None


def _scaled(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (rows, 1) with mean 0 and deviation 1, missing ones at the mean."""
    known = np.isfinite(numbers)
    if not known.any():
        return np.zeros((len(numbers), 1))
    mean, deviation = numbers[known].mean(), numbers[known].std()
    return np.where(known, (numbers - mean) / (deviation or 1.0), 0.0)[:, None]


def _by_id(table: pd.DataFrame, name: str, id_column: str) -> pd.DataFrame:
    """Return the table by its ids as text; of a repeated id the first row."""
    by_id = table.set_axis(text_ids(table[id_column], name, id_column))
    return by_id[~by_id.index.duplicated()]


def _columns(
    table: pd.DataFrame, prefix: str, ids: Sequence[str] | NDArray[np.str_]
) -> dict[str, pd.Series[Any]]:
    """Return the columns that can be a feature, by name, for `ids` in their order; missing where one is unknown."""
    extra = table.drop(columns=[name for name in _NO_FEATURE if name in table])
    found = feature_columns(extra, prefix)
    # By what they say: how frequent a value of a list is decides of nothing here.
    return {
        name: found.arrays[name].to_pandas().set_axis(table.index).reindex(ids)
        for name in sorted(found.arrays, key=found.descriptions.__getitem__)
    }


def _is_amount(column: pd.Series[Any]) -> bool:
    """Say whether it holds numbers or times, which can be more or less; flags are float32."""
    return column.dtype == np.float64 or pd.api.types.is_datetime64_any_dtype(column)


def _numbers(column: pd.Series[Any]) -> NDArray[np.float64]:
    """Return numbers as they are, and times in days."""
    if not pd.api.types.is_datetime64_any_dtype(column):
        return column.to_numpy(np.float64)
    return np.asarray((column - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1), np.float64)


def _groups(column: pd.Series[Any]) -> NDArray[np.int64]:
    """Return the code of each value, or of the range it lies in where there are amounts, from 1; 0 is not known."""
    if _is_amount(column):
        numbers = pd.Series(_numbers(column))
        column = (
            pd.qcut(numbers, _AGES, labels=False, duplicates="drop") if numbers.nunique() > 1 else numbers
        )
    return pd.factorize(column)[0].astype(np.int64) + 1


def _tags(known: Mapping[str, pd.Series[Any]]) -> NDArray[np.float32] | None:
    """Return (n, t) 1 where an item has a flag or is of a category, or None where there are no such columns."""
    tags: list[NDArray[np.float32]] = []
    for column in known.values():
        if column.dtype == np.float32:
            tags.append(column.fillna(0.0).to_numpy(np.float32))
        elif not _is_amount(column):
            tags += [(column == value).to_numpy(np.float32) for value in sorted(column.dropna().unique())]
    return np.column_stack(tags) if tags else None
