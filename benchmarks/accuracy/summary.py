"""What came of the contenders over several seeds, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.accuracy.metrics import Accuracy
from explorank.pipeline.metrics import Interval, bootstrap

MEASURES: Final = ("ndcg", "recall", "mrr")


@dataclass(slots=True)
class Record:
    """One contender's figures, seed after seed."""

    name: str
    users: int
    ablation: bool = False
    by_seed: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)
    """For each seed each measure of every user (u,), NaN for those not asked about."""
    coverage: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def add(self, users: NDArray[np.int64], found: Accuracy, seconds: float, mib: float) -> None:
        """Take up a seed's figures of `users` (m,)."""
        figures = {}
        for measure in MEASURES:
            figures[measure] = np.full(self.users, np.nan)
            figures[measure][users] = getattr(found, measure)
        self.by_seed.append(figures)
        self.coverage.append(found.coverage)
        self.seconds.append(seconds)
        self.mib.append(mib)

    def of_users(self, measure: str) -> NDArray[np.float64]:
        """Return each user's mean over the seeds, (u,), NaN for those never asked about."""
        return mean_of_seeds([figures[measure] for figures in self.by_seed])

    def of_seeds(self, measure: str) -> list[float]:
        """Return the mean over users of each seed."""
        return [float(np.nanmean(figures[measure])) for figures in self.by_seed]

    def interval(self, measure: str) -> Interval:
        """Return the mean and the bootstrap interval over users, each user's seeds averaged."""
        return bootstrap(self.of_users(measure), seed=0)

    def gain(self, other: Record, measure: str) -> Interval:
        """Return the mean difference to `other` and its interval over users, user by user and split by split."""
        return bootstrap(self.of_users(measure) - other.of_users(measure), seed=0)

    def over_seeds(self, measure: str) -> float | None:
        """Return half the width of Student's 95 % interval of the mean over seeds; None for a single seed."""
        return half_width(self.of_seeds(measure))

    def to_dict(self) -> dict[str, Any]:
        """Return aggregates only: nothing of any user."""
        figures: dict[str, Any] = {}
        for measure in MEASURES:
            interval = self.interval(measure)
            figures[measure] = {
                "mean": interval.mean,
                "interval_over_users": [interval.low, interval.high],
                "by_seed": self.of_seeds(measure),
                "half_width_over_seeds": self.over_seeds(measure),
            }
        return {
            "name": self.name,
            "ablation": self.ablation,
            **figures,
            "coverage": float(np.mean(self.coverage)),
            "seconds": float(np.median(self.seconds)),
            "mib": float(np.median(self.mib)),
        }


def mean_of_seeds(by_seed: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return each user's mean over the seeds that asked about them, (u,), NaN for those never asked about."""
    every = np.stack(by_seed)
    asked = np.isfinite(every)
    count = asked.sum(axis=0)
    return np.where(count > 0, np.where(asked, every, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def half_width(by_seed: Sequence[float]) -> float | None:
    """Return half the width of Student's 95 % interval of the mean of `by_seed`; None for a single seed."""
    if len(by_seed) < 2:
        return None
    return float(stats.t.ppf(0.975, len(by_seed) - 1) * np.std(by_seed, ddof=1) / np.sqrt(len(by_seed)))


def of_seeds_told(interval: Interval, by_seed: Sequence[float]) -> str:
    """Return the mean with its interval over users and, of several seeds, half the width of that over seeds."""
    width = half_width(by_seed)
    return f"{interval}" + ("" if width is None else f" ±{width:.3f}")


def told(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return aggregates of each contender, and its gain in NDCG over every other: nothing of any user."""
    results = []
    for record in records:
        gains = {other.name: record.gain(other, "ndcg") for other in records if other is not record}
        beyond = {name: [gain.mean, gain.low, gain.high] for name, gain in gains.items()}
        results.append({**record.to_dict(), "ndcg_beyond": beyond})
    return results


def table(records: Sequence[Record], against: Sequence[str]) -> list[str]:
    """Return Markdown: a row per contender, and its gain in NDCG over each of `against`."""
    bases = [record for name in against for record in records if record.name == name]
    headings = [
        "system", "NDCG@10", "recall@10", "MRR@10", "coverage", *(f"NDCG@10 beyond {base.name}" for base in bases),
        "fit, CPU s", "MiB",
    ]  # fmt: skip
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    for record in records:
        cells = [
            record.name,
            *(of_seeds_told(record.interval(measure), record.of_seeds(measure)) for measure in MEASURES),
            f"{np.mean(record.coverage):.3f}",
            *("" if record is base else f"{record.gain(base, 'ndcg'):+}" for base in bases),
            f"{np.median(record.seconds):.1f}",
            f"{np.median(record.mib):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
