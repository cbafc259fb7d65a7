"""Where decisions wait for what they earn, in the learner's store: sums only, no items and no features."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from explorank.hooks.errors import CorruptState
from explorank.hooks.feedback.state_store import Entry, Shelf, StateStore

_STATE: Final = Shelf("earnings")
_WATCHED: Final = Shelf("earnings_watched")
_ONLY: Final = "monitor"
_WORTH_AT_MOST: Final = 1e200
"""No reward counts for more either way, so that every sum is finite; bounds on what is earned lie far below."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A decision that waits for what it earns."""

    decision_id: str
    group: str
    time: float
    """When it was made, in seconds since the Unix epoch."""
    bucket: int
    """That of its visitor, who is not kept."""
    worths: dict[str, float] = field(default_factory=dict)
    """What came for it, by reward id."""

    @property
    def earned(self) -> float:
        """The sum of what came for it, exact whatever the order in which it came."""
        return math.fsum(self.worths.values())


@dataclass(frozen=True, slots=True)
class Earned:
    """What a reward was worth to its decision."""

    decision_id: str
    reward_id: str
    worth: float
    time: float


class EarningsStore:
    """The monitor's entries in a learner's store, with their meaning. Writes belong inside its transactions.

    Methods raise what the store raises, and `CorruptState` for entries that nobody can have written.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def load(self) -> bytes | None:
        """Return the state that was last saved, or `None` where none was."""
        found = self._store.get(_STATE, _ONLY)
        return found[0].value if found else None

    def save(self, state: bytes) -> None:
        """Replace the state that was last saved."""
        self._store.put(_STATE, [Entry(_ONLY, state)])

    def watch(self, decisions: Iterable[Watched], earned: Iterable[Earned], window_s: float) -> None:
        """Let decisions wait `window_s` seconds for what they earn, and add what came to those that wait.

        Each reward id counts once. What came after its decision's window, and what belongs to no waiting decision,
        is left out. Called once in a transaction.
        """
        waiting = {each.decision_id: each for each in decisions}
        for reward in earned:
            found = waiting.get(reward.decision_id) or self._waiting(reward.decision_id)
            if found is not None and reward.time <= found.time + window_s:
                worth = min(max(reward.worth, -_WORTH_AT_MOST), _WORTH_AT_MOST)
                found.worths.setdefault(reward.reward_id, worth)
                waiting[reward.decision_id] = found
        self._store.put(_WATCHED, [_entry(each, each.time + window_s) for each in waiting.values()])

    def due(self, now: float, limit: int) -> list[Watched]:
        """Return up to `limit` decisions that have waited long enough, in the order they were made."""
        return [_watched(entry) for entry in self._store.first(_WATCHED, now, limit)]

    def forget(self, decision_ids: Iterable[str]) -> None:
        """Drop decisions that wait for nothing any more, and what they earned."""
        self._store.drop(_WATCHED, [Entry(decision_id) for decision_id in decision_ids])

    def _waiting(self, decision_id: str) -> Watched | None:
        found = self._store.get(_WATCHED, decision_id)
        return _watched(found[0]) if found else None


def _entry(decision: Watched, deadline: float) -> Entry:
    packed = [decision.group, decision.time, decision.bucket, decision.worths]
    return Entry(decision.decision_id, orjson.dumps(packed), deadline)


def _watched(entry: Entry) -> Watched:
    try:
        return Watched(entry.key, *orjson.loads(entry.value))
    except (TypeError, ValueError) as error:
        raise CorruptState(
            f"A decision that waits for what it earns cannot be read ({error}), so that the sums would be wrong. "
            "The learner rebuilds its state from the log."
        ) from error
