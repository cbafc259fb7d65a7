"""Vowpal Wabbit: contextual bandits over action-dependent features, by its text format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from vowpalwabbit import Workspace

from benchmarks.regret.play import Bandit, Entry, Seen
from benchmarks.regret.worker import Entries


class Player:
    """A workspace. It gives probabilities, from which an action is drawn; costs are negative rewards."""

    def __init__(self, options: str, seen: Seen, seed: int) -> None:
        crossed = " -q sa" if seen.kind == "disjoint" else ""
        self._vw = Workspace(f"--cb_explore_adf --quiet --random_seed {seed + 1}{crossed} {options}")
        self._seen = seen
        self._rng = np.random.default_rng(seed)
        self._chances: dict[int, float] = {}
        if seen.kind == "shared":
            self._actions = [f"|a {_listed(row)}" for row in seen.features]
        else:
            self._actions = [f"|a arm{position}" for position in range(seen.arms)]

    def choose(self, time: int) -> int:
        """Draw from what `predict` returns."""
        chances = np.array(self._vw.predict(self._example(time)))
        position = int(self._rng.choice(len(chances), p=chances / chances.sum()))
        self._chances[time] = float(chances[position])
        return position

    def learn(self, times: Sequence[int], positions: Sequence[int], rewards: Sequence[float]) -> None:
        """Learn them one after another, each with the probability that it was shown with."""
        for time, position, reward in zip(times, positions, rewards, strict=True):
            lines = self._example(time)
            at = position + (self._seen.kind == "disjoint")
            lines[at] = f"0:{-reward:.6g}:{self._chances.pop(time):.6g} {lines[at]}"
            self._vw.learn(lines)

    def _example(self, time: int) -> list[str]:
        if self._seen.kind == "shared":
            return [self._actions[item] for item in self._seen.offered[time].tolist()]
        if self._seen.kind == "arms":
            return list(self._actions)
        return [f"shared |s {_listed(self._seen.features[time])}", *self._actions]


def _listed(row: Any) -> str:
    return " ".join(f"{column}:{value:.5g}" for column, value in enumerate(row.tolist()))


def player(options: str) -> Entry:
    """Return the entry of an exploration algorithm."""

    def entry(seen: Seen, seed: int) -> Bandit:
        return Player(options, seen, seed)

    return entry


_CONTEXTUAL: Final[Mapping[str, Mapping[str, Entry]]] = {
    "squarecb": {
        "as it comes": player("--squarecb"),
        "gamma scale 100": player("--squarecb --gamma_scale 100"),
        "gamma scale 1000": player("--squarecb --gamma_scale 1000"),
    },
    "regcbopt": {
        "as it comes": player("--regcbopt"),
        "mellowness 0.01": player("--regcbopt --mellowness 0.01"),
    },
}
ENTRIES: Final[Entries] = {"arms": _CONTEXTUAL, "shared": _CONTEXTUAL, "disjoint": _CONTEXTUAL}
_CONSTANT_RATE: Final[Mapping[str, Mapping[str, Entry]]] = {
    "squarecb": {"gamma scale 100, power_t 0": player("--squarecb --gamma_scale 100 --power_t 0")}
}
FORGETFUL: Final[Entries] = {"arms": _CONSTANT_RATE, "shared": _CONSTANT_RATE, "disjoint": _CONSTANT_RATE}
