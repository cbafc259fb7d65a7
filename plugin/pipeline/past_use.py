"""What was known of use at past requests: fits of what happened before, and the columns that rankers learn from.

Whoever is told by a fit that has seen the answer repeats it. So requests are cut into blocks by time, and each block is
told by a fit to what happened before its first request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.builtin.retrieval import SIMILARITY_BY_USE, SIMILARITY_LEARNED
from explorank.errors import DataError
from explorank.pipeline.by_use import fit_table
from explorank.pipeline.embeddings import fit_embeddings
from explorank.pipeline.liked_events import Learner
from explorank.pipeline.user_features import PastUserFeatures
from explorank.retrieval import Catalogue, InvalidTable, UserFeatures
from explorank.retrieval.collaborative import EmbeddingModel, NeighbourTable, products_with_user
from explorank.retrieval.features import FeatureAccess
from explorank.settings import RetrievalSettings

Fit = TypeVar("Fit")
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PastUse:
    """What each configured learner knew when each block of requests began; None where there was nothing to learn."""

    settings: RetrievalSettings
    starts: Rows
    """(b,) the first request of each block."""
    tables: tuple[NeighbourTable | None, ...]
    """(b,) what had the same users."""
    models: tuple[EmbeddingModel | None, ...]
    """(b,) where items and users lay."""
    people: UserFeatures | None = None
    """(q, g) what was known of the user of each request, where models read it."""

    @classmethod
    def of(
        cls,
        settings: RetrievalSettings,
        liked: Callable[[Learner], pd.DataFrame],
        catalogue: Catalogue,
        queries: pd.DataFrame,
        starts: Rows,
        *,
        access: FeatureAccess | None = None,
        with_models: bool = False,
    ) -> PastUse:
        """Fit what rankers are told of `queries`, in order of time, in blocks that begin at `starts` (b,), the first 0.

        `liked` returns the liked events that a learner learns from. No label of a block, nor anything later, is in what
        it is told; a serving fit is as old when it is asked. Where no column asks for models, which are dear, they are
        fitted `with_models` alone. What models read of users comes from `access`, as of each event, and as of each
        request by its `user_id`, unless it has `about_user` as False: it asked for items like another.
        """
        by_use, learned = settings.by_use, settings.learned_embeddings
        nothing = (None,) * len(starts)
        tables: tuple[NeighbourTable | None, ...] = nothing
        models: tuple[EmbeddingModel | None, ...] = nothing
        ids = catalogue.item_ids
        if by_use is not None:
            tables = _fits(lambda known: fit_table(by_use, known, ids), liked("by_use"), queries, starts)
        told: UserFeatures | None = None
        if learned is not None and (learned.column or with_models):
            events, people = liked("learned_embeddings"), PastUserFeatures.of(learned, access)
            if people is not None and len(events):
                events = people.beside(events)
                told = people.known_at(queries["user_id"], queries["event_timestamp"])
                if "about_user" in queries:
                    told.values[~queries["about_user"].to_numpy()] = np.nan

            def fit(known: pd.DataFrame) -> EmbeddingModel | None:
                try:
                    return fit_embeddings(learned, known, ids, catalogue.vectors, people=people)
                except (DataError, InvalidTable):
                    return None

            models = _fits(fit, events, queries, starts)
        return cls(settings, starts, tables, models, told)

    def user(self, query: int) -> UserFeatures | None:
        """Return what was known of the user of that request, (g,), where models read it."""
        return None if self.people is None else self.people.take(np.array(query))

    def columns(
        self, catalogue: Catalogue, queries: pd.DataFrame, rows: pd.DataFrame
    ) -> dict[str, NDArray[np.float32]]:
        """Return what serving would have told of each of `rows` (r,), by column.

        The latest items that were liked count. NaN where a block has no fit, or nothing of the request's history is
        known, nor of its user.
        """
        by_use, learned = self.settings.by_use, self.settings.learned_embeddings
        columns = {}
        if by_use is not None:

            def means(table: NeighbourTable, _: int, liked: Rows, items: Rows) -> NDArray[np.float32]:
                return table.means(liked, items)

            columns[SIMILARITY_BY_USE] = self._told(
                self.tables, means, by_use.history, catalogue, queries, rows
            )
        if learned is not None and learned.column:

            def products(model: EmbeddingModel, query: int, liked: Rows, items: Rows) -> NDArray[np.float32]:
                return products_with_user(model, liked, items, self.user(query))

            columns[SIMILARITY_LEARNED] = self._told(
                self.models, products, learned.history, catalogue, queries, rows
            )
        return columns

    def _told(
        self,
        fits: Sequence[Fit | None],
        tell: Callable[[Fit, int, Rows, Rows], NDArray[np.float32]],
        history: int,
        catalogue: Catalogue,
        queries: pd.DataFrame,
        rows: pd.DataFrame,
    ) -> NDArray[np.float32]:
        told = np.full(len(rows), np.nan, np.float32)
        items = catalogue.rows(rows["item_id"].tolist())
        first_rows = np.searchsorted(rows["query"].to_numpy(), np.arange(len(queries) + 1))
        for fit, (start, end) in zip(fits, pairwise([*self.starts.tolist(), len(queries)]), strict=True):
            if fit is None:
                continue
            for query in range(start, end):
                those = slice(first_rows[query], first_rows[query + 1])
                liked = catalogue.rows(queries["liked"].iloc[query][-history:])
                told[those] = tell(fit, query, liked, items[those])
        return told


def block_starts(split: int, blocks: int) -> Rows:
    """Return where blocks of queries begin, (blocks + 1,), of which the first `split` are for training.

    The later slice begins a block: it is judged on as what serves is asked, by what was known before.
    """
    return np.append(np.arange(blocks) * split // blocks, split)


def _fits(
    fit: Callable[[pd.DataFrame], Fit | None], events: pd.DataFrame, queries: pd.DataFrame, starts: Rows
) -> tuple[Fit | None, ...]:
    """Return a fit for each of `starts` (b,) to the `events` before; None for a block without queries, too."""
    times = queries["event_timestamp"]
    return tuple(
        None if start == end else fit(events[events["timestamp"] < times.iloc[start]])
        for start, end in pairwise([*starts.tolist(), len(queries)])
    )
