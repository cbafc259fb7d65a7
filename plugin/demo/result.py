"""What the demo found, ready to be printed or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from explorank.demo.accuracy import Accuracy
from explorank.demo.simulation import Run
from explorank.pipeline.metrics import Interval, bootstrap


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of the run: what happened and how long it took."""

    name: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One slot of the decision that is shown in full."""

    slot: int
    item_id: str
    text: str
    score: float
    score_rank: int
    """Counted from 1 over all candidates."""
    propensity: float
    method: str
    sources: tuple[str, ...]
    features: dict[str, float]


@dataclass(frozen=True, slots=True)
class ShownDecision:
    """One real decision, as it stands in the log."""

    decision_id: str
    user_id: str
    policy: str
    policy_version: int
    mode: str
    candidates: int
    liked_before: tuple[str, ...]
    items: tuple[ShownItem, ...]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy's figures over all seeds."""

    name: str
    reward: Interval
    """Of the cumulative reward at the end."""
    gain: Interval
    """Of the difference to no exploration under the same seed and visits."""
    coverage: Interval
    """Share of the rated items that were shown to anybody."""


@dataclass(slots=True)
class DemoResult:
    """Everything the report shows."""

    data_name: str
    data_note: str
    positive_from: float
    split: str
    steps: list[Step] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    test_users: int = 0
    runs: list[Run] = field(default_factory=list)
    visitors: int = 0
    decision: ShownDecision | None = None
    commands: list[str] = field(default_factory=list)

    @property
    def seeds(self) -> int:
        """How often the simulation was repeated."""
        return len({run.seed for run in self.runs})

    def contestants(self) -> list[Contestant]:
        """Return the policies' figures; intervals are bootstraps over seeds."""
        by_name: dict[str, list[Run]] = {}
        for run in self.runs:
            by_name.setdefault(run.policy, []).append(run)
        names = list(by_name)
        base = _ends(by_name[names[0]], "cumulative_reward") if names else np.zeros(0)
        return [
            Contestant(
                name,
                bootstrap(_ends(runs, "cumulative_reward"), seed=0),
                bootstrap(_ends(runs, "cumulative_reward") - base, seed=0),
                bootstrap(_ends(runs, "coverage"), seed=0),
            )
            for name, runs in by_name.items()
        ]


def _ends(runs: Sequence[Run], curve: str) -> NDArray[np.float64]:
    return np.array([getattr(run, curve)[-1] for run in runs])
