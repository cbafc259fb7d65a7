"""The data of a run as arrays: MovieLens-100K, or anyone's tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.demo.data import DemoData
from explorank.errors import DataError
from explorank.retrieval import Encoder
from explorank.retrieval.collaborative import Interactions, SideInformation

_AGES: Final = 8
"""A user's number is also a group: one of so many equally large ranges."""


@dataclass(frozen=True, slots=True)
class World:
    """All interactions, and what else is known."""

    name: str
    interactions: Interactions
    """With times; all items of the table of items are columns."""
    side: SideInformation


def world(data: DemoData, cache: Path, *, model: str = "packaged") -> World:
    """Return the arrays of `data`, with the items' texts encoded by `model`; `cache` keeps the vectors.

    Numeric columns of items and users become numbers, columns of lists become tags, columns of text or numbers of
    users become groups. Raises `DataError` for items without a text or id column.
    """
    if "item_id" not in data.items or not {"text", "title"} & set(data.items):
        missing = "item_id" if "item_id" not in data.items else "text"
        raise DataError(
            f"The table of items has no column {missing!r}; items are found by their ids and told by their texts. Add "
            "it; a column `title` will do for `text`."
        )
    events = data.interactions.drop_duplicates(["user_id", "item_id"])  # in order of time: the first stays
    items = (
        data.items.assign(item_id=data.items["item_id"].astype(str))
        .drop_duplicates("item_id")
        .set_index("item_id")
    )
    people = None if data.users is None else data.users.assign(user_id=data.users["user_id"].astype(str))
    interactions = Interactions.of(
        events["user_id"].astype(str).tolist(),
        events["item_id"].astype(str).tolist(),
        values=events["value"].to_numpy(),
        times=events["timestamp"].astype("int64").to_numpy() / 1e6,
        all_items=items.index.tolist(),
    )
    items = items.reindex(interactions.item_ids)
    texts = items["text" if "text" in items else "title"].fillna("").astype(str).tolist()
    users = None
    if people is not None:
        users = people.drop_duplicates("user_id").set_index("user_id").reindex(interactions.user_ids)
    return World(data.name, interactions, _side(items, users, Encoder(model, cache=cache).encode(texts)))


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


def _side(items: pd.DataFrame, users: pd.DataFrame | None, content: NDArray[np.float32]) -> SideInformation:
    numbers = {str(name): column.to_numpy(np.float64) for name, column in _numeric(items).items()}
    groups: dict[str, NDArray[np.int64]] = {}
    user_numbers: dict[str, NDArray[np.float64]] = {}
    if users is not None:
        for name, column in users.items():
            if pd.api.types.is_numeric_dtype(column):
                user_numbers[f"user_{name}"] = column.to_numpy(np.float64)
                column = pd.qcut(column, _AGES, labels=False, duplicates="drop")  # noqa: PLW2901 - as a group too
            groups[str(name)] = pd.factorize(column)[0].astype(np.int64) + 1  # 0: not known
    return SideInformation(
        content=content,
        tags=_tags(items),
        item_numbers=numbers,
        user_groups=groups,
        user_numbers=user_numbers,
    )


def _numeric(table: pd.DataFrame) -> pd.DataFrame:
    return table.select_dtypes("number")


def _tags(items: pd.DataFrame) -> NDArray[np.float32] | None:
    """Return (n, t) of the values in columns of lists, or None where there are no such columns."""
    found: list[NDArray[np.float32]] = []
    for name in items.columns:
        lists: list[Any] = [
            list(value) if isinstance(value, list | tuple | np.ndarray) else None for value in items[name]
        ]
        if any(value is not None for value in lists):
            known = sorted({str(tag) for tags in lists for tag in tags or ()})
            found.append(
                np.array([[tag in set(map(str, tags or ())) for tag in known] for tags in lists], np.float32)
            )
    return np.concatenate(found, axis=1) if found else None
