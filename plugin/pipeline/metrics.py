"""Ranking accuracy with binary relevance, and intervals over users."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def ndcg_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Return NDCG@k of `ranked`, best first, with gain 1 for each relevant item.

    DCG = sum over hits at rank i (from 1) of 1 / log2(i + 1), divided by that of the best order
    (Järvelin and Kekäläinen, 2002). NaN where nothing is relevant.
    """
    if not relevant:
        return float("nan")
    wanted = set(relevant)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    hits = np.fromiter((item in wanted for item in ranked[:k]), np.bool_)
    return float(discounts[: len(hits)][hits].sum() / discounts[: min(k, len(wanted))].sum())


def recall_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Return the share of the relevant items among the first `k`. NaN where nothing is relevant."""
    wanted = set(relevant)
    return len(wanted.intersection(ranked[:k])) / len(wanted) if wanted else float("nan")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its two-sided 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self:.3f}"

    def __format__(self, spec: str) -> str:
        """Format the three numbers by `spec`; a bare sign or nothing means three decimals."""
        spec = f"{spec}.3f" if spec in {"", "+"} else spec
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap(
    values: NDArray[np.float64],
    *,
    seed: int,
    resamples: int = 2_000,
    users: NDArray[Any] | None = None,
) -> Interval:
    """Return the mean of `values` (n,) and its percentile bootstrap interval, users resampled.

    Each value is a user's, or `users` (n,) says whose it is: a user's values are drawn together then, as they depend
    on one another. NaN is left out.
    """
    present = np.isfinite(values)
    if not present.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    values = values[present]
    generator = np.random.default_rng(seed)
    if users is None:
        means = values[generator.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    else:
        _, owner = np.unique(users[present], return_inverse=True)
        counts = np.bincount(owner)
        drawn = generator.integers(len(counts), size=(resamples, len(counts)))
        means = np.bincount(owner, weights=values)[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))
