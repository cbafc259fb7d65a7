"""How well each part of the path foresees what users liked later.

Protocol: one global split in time; 80 % of the interactions lie before it. Everything is built and trained on
the past alone. Each user with a liked interaction in the future is asked about once: at the split, or for
somebody with fewer than ten earlier events, right after their tenth. Features are as of that moment. The
whole catalogue but for what the user already met is ranked, and what they liked from then on is relevant.
Retrieval alone orders by similarity to what the user liked. Intervals are percentile bootstraps over users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.demo.data import DemoData
from explorank.errors import DataError
from explorank.hooks.types import Candidates
from explorank.pipeline.metrics import Interval, bootstrap, ndcg_at, recall_at
from explorank.pipeline.queries import interest_vectors
from explorank.pipeline.train import feature_matrix
from explorank.rankers import Ranker
from explorank.retrieval import Catalogue, NewItems, Popular, RetrievalQuery, SimilarToHistory
from explorank.retrieval.features import FeatureAccess

_WARMUP = 10
_CUTOFF = 10
_RETRIEVERS = ((SimilarToHistory(), 150), (Popular(), 100), (NewItems(), 50))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One part's figures."""

    name: str
    ndcg: Interval
    recall: Interval
    ndcg_gain: Interval
    """Of the difference to popularity for the same users, which is surer than the two intervals apart."""


def held_out_queries(data: DemoData) -> pd.DataFrame:
    """Return one query per user: `user_id`, `event_timestamp`, `liked` and `seen` before, `positives` after."""
    rows = []
    split = pd.Timestamp(data.split)
    for user_id, events in data.interactions.groupby("user_id", sort=True):
        if len(events) <= _WARMUP:
            continue
        asked = max(split, events["timestamp"].iloc[_WARMUP])
        before, after = events[events["timestamp"] < asked], events[events["timestamp"] >= asked]
        positives = tuple(after["item_id"][after["value"] >= data.positive_from])
        if len(before) and positives:
            liked = tuple(before["item_id"][before["value"] >= data.positive_from])
            rows.append((str(user_id), asked, liked, tuple(before["item_id"]), positives))
    if not rows:
        raise DataError(
            f"No user of {data.name} has {_WARMUP} interactions and, after them and after {split:%Y-%m-%d %H:%M} (80 % "
            f"of the interactions lie before), one of at least {data.positive_from:g}, so there is nobody to "
            "measure on. Bring longer histories, or lower --positive-from."
        )
    return pd.DataFrame(rows, columns=["user_id", "event_timestamp", "liked", "seen", "positives"])


def measure_accuracy(
    queries: pd.DataFrame,
    access: FeatureAccess,
    catalogue: Catalogue,
    ranker: Ranker,
    *,
    decay: float,
    seed: int,
) -> list[Accuracy]:
    """Return the accuracy of popularity, of retrieval alone and of retrieval with the ranker."""
    vectors = interest_vectors(queries, catalogue, decay)
    popular = catalogue.item_ids[catalogue.by_popularity]
    similar = [
        catalogue.item_ids[np.argsort(-(catalogue.vectors @ vector), kind="stable")] for vector in vectors
    ]
    candidates = [
        _candidates(seen, asked, vector, catalogue)
        for seen, asked, vector in zip(queries["seen"], queries["event_timestamp"], vectors, strict=True)
    ]
    scored = _scored(queries, candidates, access, catalogue, ranker, vectors)
    orders = {
        "popular": [popular] * len(queries),
        "retrieval alone": similar,
        "retrieval + LightGBM": [
            np.concatenate([ids[np.argsort(-scores, kind="stable")], popular])
            for ids, scores in zip(candidates, scored, strict=True)
        ],
    }
    measured = {name: _per_user(order, queries) for name, order in orders.items()}
    base, _ = measured["popular"]
    return [
        Accuracy(
            name, bootstrap(ndcg, seed=seed), bootstrap(recall, seed=seed), bootstrap(ndcg - base, seed=seed)
        )
        for name, (ndcg, recall) in measured.items()
    ]


def _candidates(
    seen: tuple[str, ...], asked: pd.Timestamp, vector: NDArray[np.float32], catalogue: Catalogue
) -> NDArray[np.str_]:
    query = RetrievalQuery(
        user_vector=vector if vector.any() else None, exclude=frozenset(seen), time=asked.timestamp()
    )
    found = (
        Candidates.of(retriever.retrieve(catalogue, query, k)[0], retriever.name)
        for retriever, k in _RETRIEVERS
    )
    return Candidates.union(found).item_ids


def _scored(
    queries: pd.DataFrame,
    candidates: list[NDArray[np.str_]],
    access: FeatureAccess,
    catalogue: Catalogue,
    ranker: Ranker,
    vectors: NDArray[np.float32],
) -> list[NDArray[np.float64]]:
    sizes = [len(ids) for ids in candidates]
    query = np.repeat(np.arange(len(queries)), sizes)
    rows = pd.DataFrame(
        {
            "query": query,
            "user_id": queries["user_id"].to_numpy()[query],
            "item_id": np.concatenate(candidates).astype(object),
            "event_timestamp": queries["event_timestamp"].array[query],
        }
    )
    _, matrix = feature_matrix(access, catalogue, rows, vectors)
    return np.split(ranker.score(matrix), np.cumsum(sizes)[:-1])


def _per_user(
    orders: list[NDArray[np.str_]], queries: pd.DataFrame
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each user's NDCG and recall, (q,) each."""
    ndcg, recall = [], []
    for order, seen, positives in zip(orders, queries["seen"], queries["positives"], strict=True):
        met = set(seen)
        relevant = set(positives) - met
        # Popular items fill up what retrieval did not find, so an item may stand twice: the first counts.
        top = list(dict.fromkeys(item for item in order.tolist() if item not in met))[:_CUTOFF]
        ndcg.append(ndcg_at(top, relevant, _CUTOFF))
        recall.append(recall_at(top, relevant, _CUTOFF))
    return np.array(ndcg), np.array(recall)
