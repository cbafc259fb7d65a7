"""Which items have the same users: the table that serves, and its past for training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.retrieval import Catalogue
from explorank.retrieval.collaborative import EASE, Interactions, ItemKNN, NeighbourTable
from explorank.settings import ByUseSettings

_EASE_UP_TO: Final = 5_000
"""Items for which EASE takes some ten seconds and 400 MB; both grow fast."""


def table_by_use(by_use: ByUseSettings, events: pd.DataFrame, item_ids: NDArray[np.str_]) -> NeighbourTable:
    """Return the table of what has the same users among `item_ids` (n,), by liked `events`.

    Raises `DataError` where there are too few to tell anything.
    """
    table = fit_table(by_use, events, item_ids)
    if table is None:
        raise DataError(
            f"No user liked two items of the catalogue ({len(events):,} liked interactions), so nothing tells what has "
            "the same users. Bring more interactions, lower `features.positive_from`, or remove `retrieval.by_use`."
        )
    return table


def fit_table(
    by_use: ByUseSettings, events: pd.DataFrame, item_ids: NDArray[np.str_]
) -> NeighbourTable | None:
    """Return the table for `item_ids` (n,) by liked `events`, or None where they tell of no two items."""
    known = events[events["item_id"].isin(item_ids)]
    if known.empty:
        return None
    interactions = Interactions.of(known["user_id"], known["item_id"])
    model: Any = {"ease": EASE, "item_knn": ItemKNN}.get(by_use.model)
    if model is None:
        model = EASE if len(interactions.item_ids) <= _EASE_UP_TO else ItemKNN
    table: NeighbourTable = model.fit(interactions).neighbours(by_use.neighbours).in_rows_of(item_ids)
    return table if len(table.neighbours) else None


def block_starts(split: int, blocks: int) -> NDArray[np.int64]:
    """Return where blocks of queries begin, (blocks + 1,), of which the first `split` are for training.

    The later slice begins a block: it is judged on as what serves is asked, by what was known before.
    """
    return np.append(np.arange(blocks) * split // blocks, split)


def past_tables(
    by_use: ByUseSettings,
    events: pd.DataFrame,
    catalogue: Catalogue,
    queries: pd.DataFrame,
    starts: NDArray[np.int64],
) -> tuple[NeighbourTable | None, ...]:
    """Return what was known of use when each block of `queries` began, a table for each of `starts` (b,).

    Queries are in order of time, and the first block begins at 0. A table is fitted to the liked `events` before its
    block's first query alone, so that no label of the block, nor anything later, is in what it tells; a serving table
    is as old when it is asked. None where there was nothing to fit to, and for a block without queries.
    """
    times = queries["event_timestamp"]
    return tuple(
        None
        if start == end
        else fit_table(by_use, events[events["timestamp"] < times.iloc[start]], catalogue.item_ids)
        for start, end in pairwise([*starts.tolist(), len(queries)])
    )


def past_means(
    tables: Sequence[NeighbourTable | None],
    history: int,
    catalogue: Catalogue,
    queries: pd.DataFrame,
    rows: pd.DataFrame,
    starts: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the mean weight by use of each of `rows` (r,), as somebody knew it who had to ask before.

    Each block of `queries` is told by its own of `tables` (b,); the latest `history` items that were liked count. NaN
    where a block has no table, or nothing of the query's history is known.
    """
    means = np.full(len(rows), np.nan, np.float32)
    items = catalogue.rows(rows["item_id"].tolist())
    first_rows = np.searchsorted(rows["query"].to_numpy(), np.arange(len(queries) + 1))
    for table, (start, end) in zip(tables, pairwise([*starts.tolist(), len(queries)]), strict=True):
        if table is None:
            continue
        for query in range(start, end):
            those = slice(first_rows[query], first_rows[query + 1])
            liked = catalogue.rows(queries["liked"].iloc[query][-history:])
            means[those] = table.means(liked, items[those])
    return means
