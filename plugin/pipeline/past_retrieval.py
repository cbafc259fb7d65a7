"""What the configured retrievers would have found at past requests: the items that a ranker will have to tell apart."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.builtin.retrieval import united
from explorank.fallbacks import collecting_fallbacks
from explorank.hooks.types import Fallback
from explorank.pipeline.past_use import PastUse
from explorank.retrieval import (
    Catalogue,
    LearnedEmbeddings,
    RetrievalQuery,
    Retriever,
    SimilarByUse,
    Trending,
)
from explorank.retrieval.collaborative import EmbeddingSpace

_log: Final = logging.getLogger(__name__)


def past_candidates(
    retrievers: Sequence[tuple[Retriever, int]],
    interactions: pd.DataFrame,
    catalogue: Catalogue,
    queries: pd.DataFrame,
    vectors: NDArray[np.float32],
    use: PastUse,
    *,
    limit: int,
    recent_days: int | None = None,
) -> list[NDArray[np.int64]]:
    """Return the catalogue's rows (m,) that each of `queries` would have been answered, at most `limit`, best first.

    A query knows its history and interest of `vectors` (q, d). Popularity is how many of `interactions` came before
    the query's block, recent popularity how many in the last `recent_days` before it (None: that is not known); what
    has the same users and where items lie is what `use` knew at that block. What the user had met, and what appeared
    after the query, is not among the rows; texts are those of today.
    """
    events = catalogue.rows(interactions["item_id"].tolist())
    happened = interactions["timestamp"]
    found: list[NDArray[np.int64]] = []
    fallbacks: list[Fallback] = []
    with collecting_fallbacks(fallbacks):
        blocks = pairwise([*use.starts.tolist(), len(queries)])
        for table, model, (start, end) in zip(use.tables, use.models, blocks, strict=True):
            if start == end:
                continue
            begins = queries["event_timestamp"].iloc[start]
            before = (happened < begins).to_numpy() & (events >= 0)
            popularity = np.bincount(events[before], minlength=len(catalogue))
            recent = None
            if recent_days is not None:
                lately = before & (happened >= begins - pd.Timedelta(days=recent_days)).to_numpy()
                recent = np.bincount(events[lately], minlength=len(catalogue))
            space = None if model is None else EmbeddingSpace.exact(model)
            known = catalogue.with_facts(
                popularity=popularity, by_use=table, embeddings=space, recent_popularity=recent
            )
            # Without a past there is no table and no space, which is no failure.
            told = ((SimilarByUse, table), (LearnedEmbeddings, space), (Trending, recent))
            unable: tuple[type[Retriever], ...] = tuple(kind for kind, known_of in told if known_of is None)
            able = [each for each in retrievers if not isinstance(each[0], unable)]
            for query in range(start, end):
                asked = RetrievalQuery(
                    time=queries["event_timestamp"].iloc[query].timestamp(),
                    user_vector=vectors[query] if vectors[query].any() else None,
                    history=queries["liked"].iloc[query],
                    user_features=use.user(query),
                    exclude=frozenset(queries["seen"].iloc[query]),
                )
                rows = catalogue.rows(united(able, known, asked, limit).head(limit).item_ids.tolist())
                rows = rows[rows >= 0]
                found.append(rows[~(catalogue.first_seen[rows] > asked.time)])
    for fallback in fallbacks:
        _log.warning(
            "The retriever %r failed at past requests, so no negatives are drawn from what it finds: %s",
            fallback.plugin,
            fallback.reason,
        )
    return found
