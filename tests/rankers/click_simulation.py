"""Clicks that a position-based model makes of known relevance: what corrections for the slot are judged by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explorank.rankers import RankingData

NAMES = ("quality", "freshness", "popularity")
SLOTS = 10
EXAMINATION = tuple(float(1.0 / (slot + 1.0)) for slot in range(SLOTS))
"""How likely each slot is looked at: 1, 1/2, … 1/10."""


class World(NamedTuple):
    """A log whose slots follow a former ranker, and the truth about fresh requests."""

    log: RankingData
    fresh: np.ndarray
    """(requests, slots, features)"""
    relevance: np.ndarray
    """(requests, slots) how likely each item is taken up once it is looked at."""


def relevance_of(features: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-(1.5 * features[..., 0] + 1.0 * features[..., 1] - 1.5)))


def world(seed: int, requests: int = 3_000, *, randomised: bool = False, sorted_by: int = 2) -> World:
    """The former ranker sorts by one feature: by `popularity`, which has nothing to do with relevance, where 2."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((requests, SLOTS, len(NAMES))).astype(np.float32)
    wished = 3.0 * features[..., sorted_by] + 0.5 * rng.standard_normal((requests, SLOTS))
    if randomised:
        wished = rng.random((requests, SLOTS))
    positions = (-wished).argsort(axis=1).argsort(axis=1)
    looked_at = rng.random((requests, SLOTS)) < np.array(EXAMINATION)[positions]
    clicks = looked_at & (rng.random((requests, SLOTS)) < relevance_of(features))
    fresh = rng.standard_normal((300, SLOTS, len(NAMES))).astype(np.float32)
    log = RankingData(
        features=features.reshape(-1, len(NAMES)),
        feature_names=NAMES,
        labels=clicks.ravel(),
        groups=np.full(requests, SLOTS),
        positions=positions.ravel(),
    )
    return World(log, fresh, relevance_of(fresh))


def ndcg(scores: np.ndarray, relevance: np.ndarray, k: int = 5) -> float:
    """Return the mean NDCG@k of scores (requests, slots), with the relevance as gain."""
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    order = (-scores).argsort(axis=1)[:, :k]
    gained = np.take_along_axis(relevance, order, 1) @ discount
    best = -np.sort(-relevance, axis=1)[:, :k] @ discount
    return float((gained / best).mean())
