"""gittins: one engine with a few knobs, online and made for a world that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import gittins

from benchmarks.regret.play import Bandit, Entry, Seen
from benchmarks.regret.worker import Entries

BITS: Final = 18
HORIZON: Final = 1e9  # rounds are seconds to it, and nothing expires


class Player:
    """An engine's state. Where candidates have features, their position is no part of their name."""

    def __init__(self, options: Mapping[str, Any], seen: Seen, seed: int) -> None:
        self._state = gittins.create(bits=BITS, horizon=HORIZON, **options)
        self._seen = seen
        self._salt = str(seed)
        self._decisions: dict[int, Any] = {}
        if seen.kind == "shared":
            self._candidates = [(f"item{item}", _named(row)) for item, row in enumerate(seen.features)]
        else:
            self._candidates = [(f"arm{position}", {}) for position in range(seen.arms)]

    def choose(self, time: int) -> int:
        """Return what `decide` does."""
        context: dict[str, float] = {}
        candidates = self._candidates
        if self._seen.kind == "shared":
            candidates = [candidates[item] for item in self._seen.offered[time].tolist()]
        elif self._seen.kind == "disjoint":
            context = _named(self._seen.features[time])
        record = gittins.decide(self._state, context, candidates, float(time), self._salt)
        self._decisions[time] = record.decision_id
        return int(record.chosen)

    def learn(self, times: Sequence[int], positions: Sequence[int], rewards: Sequence[float]) -> None:
        """Resolve the decisions one after another."""
        for time, reward in zip(times, rewards, strict=True):
            gittins.learn(self._state, self._decisions.pop(time), float(reward), float(time))


def _named(row: Any) -> dict[str, float]:
    return {f"f{column}": value for column, value in enumerate(row.tolist())}


def player(**options: Any) -> Entry:
    """Return the entry of an engine with these options."""

    def entry(seen: Seen, seed: int) -> Bandit:
        return Player(options, seen, seed)

    return entry


_SETTINGS: Final[Mapping[str, Mapping[str, Entry]]] = {
    "engine": {
        "as it comes": player(),
        "epsilon 0.01": player(epsilon=0.01),
        "epsilon 0.01, never forgetting": player(epsilon=0.01, forgetfulness=1.0),
    }
}
ENTRIES: Final[Entries] = {"arms": _SETTINGS, "shared": _SETTINGS, "disjoint": _SETTINGS}
# It forgets as it comes.
FORGETFUL: Final[Entries] = {}
