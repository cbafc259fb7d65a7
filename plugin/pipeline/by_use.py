"""Which items have the same users: the interactions that tell it, the table that serves, and its past for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.hooks.feedback import read_log
from explorank.liking import Liking
from explorank.pipeline.quarantine import UsableTables, usable_tables
from explorank.pipeline.tables import past_interactions, read_table
from explorank.retrieval import Catalogue
from explorank.retrieval.collaborative import EASE, Interactions, ItemKNN, NeighbourTable
from explorank.settings import ByUseSettings, Settings

_EASE_UP_TO: Final = 5_000
"""Items for which EASE takes some ten seconds and 400 MB; both grow fast."""


def tables_by_use(settings: Settings, given: Path | None = None) -> UsableTables | None:
    """Return the checked table of interactions at `given`, or else at `retrieval.by_use.interactions`.

    None where neither names one. Raises `DataError` for a table that cannot be read.
    """
    by_use = settings.retrieval.by_use
    path = given
    if path is None and by_use is not None and by_use.interactions is not None:
        path = settings.path(by_use.interactions)
    return None if path is None else usable_tables(settings, interactions=read_table(path))


def table_by_use(
    settings: Settings,
    interactions: pd.DataFrame | None,
    item_ids: NDArray[np.str_],
    *,
    until: datetime | None = None,
) -> NeighbourTable | None:
    """Return the table of what has the same users among `item_ids` (n,), or None where settings want none.

    `interactions` is what `past_interactions` returns, by default of the table that the settings name; `until` leaves
    out what came later. Raises `DataError` where there are no interactions, or too few to tell anything.
    """
    by_use = settings.retrieval.by_use
    if by_use is None:
        if interactions is None:
            return None
        raise DataError(
            "Interactions tell which items have the same users, and `retrieval.by_use` does not ask for that, so they "
            "would be read for nothing. Set `retrieval: {by_use: {}}`, or build without them."
        )
    events = known_events(settings) if interactions is None else liked_events(settings, interactions)
    if until is not None:
        events = events[events["timestamp"] <= until]
    table = fit_table(by_use, events, item_ids)
    if table is None:
        raise DataError(
            f"No user liked two items of the catalogue ({len(events):,} liked interactions), so nothing tells what has "
            "the same users. Bring more interactions, lower `features.positive_from`, or remove `retrieval.by_use`."
        )
    return table


def known_events(settings: Settings) -> pd.DataFrame:
    """Return what `liked_events` does, by the sources that settings name; raise `DataError` where they name none."""
    by_use, tables = settings.retrieval.by_use, tables_by_use(settings)
    if tables is not None and tables.interactions is not None:
        return liked_events(settings, past_interactions(tables.interactions))
    if by_use is None or not by_use.log:
        raise DataError(
            "`retrieval.by_use` asks for interactions, which tell what has the same users, and nothing names any. Pass "
            "`--interactions FILE`, or set `retrieval.by_use.interactions: FILE` or `retrieval.by_use.log: true`."
        )
    return liked_events(settings, None)


def liked_events(settings: Settings, interactions: pd.DataFrame | None) -> pd.DataFrame:
    """Return `user_id`, `item_id` and UTC `timestamp` of what users liked, by interactions and by the decision log.

    The log counts where `retrieval.by_use.log` is set: each item that the rewards of a decision add up to liking.
    """
    by_use, features = settings.retrieval.by_use, settings.features
    columns = ["user_id", "item_id", "timestamp"]
    parts = []
    if interactions is not None:
        positive_from = 1.0 if features is None else features.positive_from
        parts.append(interactions.loc[interactions["value"] >= positive_from, columns])
    if by_use is not None and by_use.log:
        rows = list(_liked_in_log(settings))
        logged = pd.DataFrame(rows, columns=columns)
        logged["timestamp"] = pd.to_datetime(logged["timestamp"], unit="s", utc=True)
        parts.append(logged.astype({"timestamp": "datetime64[us, UTC]"}))
    return pd.concat(parts, ignore_index=True)


def _liked_in_log(settings: Settings) -> Iterator[tuple[str, str, float]]:
    liking = Liking.of(settings)
    for entry in read_log(settings.folder_path / "log"):
        user = entry.record.request.user_id
        if user is not None:
            for item, time in liking.liked(entry.rewards).items():
                yield user, item, time


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
