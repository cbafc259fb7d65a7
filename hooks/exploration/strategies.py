"""Strategies: ways to value a candidate, one of which a slot follows.

A strategy gives each candidate a value, and chooses the highest of what is left; those that tie share the
choice evenly. What it values by may depend on the slate above the slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.types import FeatureArray, FloatArray, IndexArray, RankingBatch

SCORE: Final = "score"
RANDOM: Final = "random"
DIVERSE: Final = "diverse"
NAMED: Final[Mapping[str, str]] = MappingProxyType(
    {"newest": "first_seen", "popular": "popularity", "uncertain": "uncertainty"}
)
"""Strategies that are the highest value of a column, by the column's name."""
_LOWEST: Final = "-"


def column_of(strategy: str) -> str | None:
    """Return the column that a strategy reads, `features` for a matrix; `None` where scores are enough."""
    if strategy in {SCORE, RANDOM}:
        return None
    if strategy == DIVERSE:
        return "features"
    return NAMED.get(strategy, strategy.removeprefix(_LOWEST))


class StrategyValues:
    """What each strategy (N of them) thinks of each candidate of one request."""

    def __init__(self, strategies: tuple[str, ...], batch: RankingBatch) -> None:
        """Read the batch; raise `InvalidBatch` where it lacks what a strategy reads."""
        self._scores: Final = batch.score_values
        self._features: Final = batch.features
        self._diverse: Final = strategies.index(DIVERSE) if DIVERSE in strategies else None
        if self._diverse is not None and batch.features is None:
            raise InvalidBatch(
                f"Strategy {DIVERSE!r} compares features, and these candidates have none. Supply them, or "
                "set the policy up without it."
            )
        self._values: Final = np.array([_values(strategy, batch) for strategy in strategies])
        self._nearest: Final[dict[tuple[int, ...], FloatArray]] = {}

    def above(self, placed: IndexArray) -> FloatArray:
        """Return the values below the slate `placed`, (N, n); higher is better, -inf is unknown."""
        if self._diverse is None or self._features is None or not len(placed):
            return self._values
        values = self._values.copy()
        values[self._diverse] = self._distance(tuple(placed.tolist()), self._features)
        return values

    def _distance(self, placed: tuple[int, ...], features: FeatureArray) -> FloatArray:
        """Return each candidate's squared distance to the nearest of `placed`, (n,), computed once a request."""
        if placed not in self._nearest:
            # Differences, not the expanded square: what is equal must tie to the last bit.
            apart = features - features[placed[-1]].astype(np.float64)
            last: FloatArray = np.vecdot(apart, apart)
            rest = placed[:-1]
            self._nearest[placed] = np.minimum(last, self._distance(rest, features)) if rest else last
        return self._nearest[placed]


def _values(strategy: str, batch: RankingBatch) -> FloatArray:
    """Return the values on top of a slate, (n,)."""
    if strategy == RANDOM:
        return np.zeros(len(batch))
    column = column_of(strategy)
    if column is None or strategy == DIVERSE:
        return batch.score_values
    found = batch.column(column)
    if found.dtype.kind not in "biuf":
        raise InvalidBatch(
            f"Strategy {strategy!r} compares column {column!r}, whose values are {found.dtype}; only numbers "
            "have a highest. Name a numeric column."
        )
    values = found.astype(np.float64)
    if strategy.startswith(_LOWEST):
        values = -values
    return np.where(np.isnan(values), -np.inf, values)
