"""What a learner saves in a state store: the policy's state, the cursors into the log, and what still waits.

They change together, in transactions, so a kill at any moment leaves a state that counts every reward before the
cursors once and none beyond.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from explorank.hooks.errors import CorruptState
from explorank.hooks.feedback.outcomes import OpenDecision, Outcome, dump_outcome, load_outcome
from explorank.hooks.feedback.state_store import Entry, Shelf, StateStore
from explorank.hooks.types import Impression, Reward

_REVISION: Final = Shelf("revision")
_SAVED: Final = Shelf("saved")
_CURSORS: Final = Shelf("cursors")
_OPEN: Final = Shelf("open")
_EARLY: Final = Shelf("early")
_CLOSED: Final = Shelf("closed")
_ERASURES: Final = Shelf("erasures", shared=True)
_OWN: Final = (_REVISION, _SAVED, _CURSORS, _OPEN, _EARLY, _CLOSED)

_ONLY: Final = "learner"
"""The key on shelves that hold one thing."""
_COUNTS, _STATE = 0, 1
"""The parts of what was saved."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What one fingerprint's learner last saved."""

    revision: int
    """Rises by one with every save of a state."""
    state: bytes
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Erasure:
    """A user who is to be erased from log and state."""

    user_id: str
    decision_ids: list[str] | None = None
    """What is to leave the log; `None` while the state still knows it."""
    rebuild: bool = False
    """Whether the state has to be rebuilt from the log that is left."""


@dataclass(frozen=True, slots=True)
class Early:
    """Feedback that waits for its decision."""

    feedback: Impression | Reward
    entry: Entry
    """Where it stands."""


class Checkpoint:
    """One learner's entries in its store, with their meaning. Writes belong inside `store.transaction()`.

    Methods raise what the store raises, and `CorruptState` for entries that nobody can have written.
    """

    def __init__(self, store: StateStore) -> None:
        self.store = store

    # ---- the state ------------------------------------------------------------------------------------

    def revision(self) -> int:
        """Return the revision that was last saved, 0 where nothing was; cheap enough to poll."""
        found = self.store.get(_REVISION, _ONLY)
        return int(_json(found[0], "revision")) if found else 0

    def load(self) -> Saved | None:
        """Return what was last saved, or `None` where nothing was."""
        found = self.store.get(_SAVED, _ONLY)
        if not found:
            return None
        if [entry.part for entry in found] != [_COUNTS, _STATE]:
            raise _unreadable("what was saved", "it lacks a part")
        header = _json(found[_COUNTS], "what was saved")
        return Saved(header["revision"], found[_STATE].value, header["counts"])

    def save(self, saved: Saved) -> None:
        """Replace what was last saved."""
        self.save_counts(saved.revision, saved.counts)
        self.store.put(_SAVED, [Entry(_ONLY, saved.state, part=_STATE)])

    def save_counts(self, revision: int, counts: Mapping[str, int]) -> None:
        """Replace revision and counts of what was last saved; the state stays."""
        header = orjson.dumps({"revision": revision, "counts": dict(counts)})
        self.store.put(_SAVED, [Entry(_ONLY, header, part=_COUNTS)])
        self.store.put(_REVISION, [Entry(_ONLY, orjson.dumps(revision))])

    def adopt(self, fingerprint: str, saved: Saved) -> None:
        """Replace all that stands here by what another fingerprint's learner keeps, with `saved` as the state."""
        self.store.adopt(fingerprint, _OWN)
        self.save(saved)

    # ---- the log --------------------------------------------------------------------------------------

    def cursors(self) -> dict[str, int]:
        """Return how far each segment was read."""
        return {entry.key: int(_json(entry, "a cursor")) for entry in self.store.first(_CURSORS, math.inf)}

    def move_cursor(self, segment_id: str, seq: int) -> None:
        """Note that a segment was read up to `seq`."""
        self.store.put(_CURSORS, [Entry(segment_id, orjson.dumps(seq))])

    # ---- what waits -----------------------------------------------------------------------------------

    def open_decision(self, decision_id: str) -> OpenDecision | None:
        """Return a decision that waits for rewards, or `None` where it does not."""
        found = self.store.get(_OPEN, decision_id)
        return OpenDecision.loads(found[0].value) if found else None

    def due(self, now: float, limit: int) -> list[OpenDecision]:
        """Return up to `limit` decisions whose horizon has passed, the earliest first."""
        return [OpenDecision.loads(entry.value) for entry in self.store.first(_OPEN, now, limit)]

    def count_open(self) -> int:
        """Return how many decisions wait for rewards."""
        return self.store.count(_OPEN)

    def update_open(self, decisions: Iterable[OpenDecision], horizon_s: float) -> None:
        """Keep decisions that wait for rewards until `horizon_s` has passed, and drop those that are settled."""
        waiting, settled = [], []
        for decision in decisions:
            if decision.settled:
                settled.append(Entry(decision.decision_id))
            else:
                waiting.append(Entry(decision.decision_id, decision.dumps(), decision.time + horizon_s))
        self.store.put(_OPEN, waiting)
        self.store.drop(_OPEN, settled)

    def keep_closed(self, outcomes: Iterable[Outcome]) -> None:
        """Store outcomes that are to be folded once all that is known of their time has been read."""
        self.store.put(
            _CLOSED, [Entry(o.decision_id, dump_outcome(o), o.closed_at, o.slot) for o in outcomes]
        )

    def closed(self, limit: int) -> list[Outcome]:
        """Return the first `limit` closed outcomes, by when they closed, then decision and slot."""
        return [load_outcome(entry.value) for entry in self.store.first(_CLOSED, math.inf, limit)]

    def forget_closed(self, outcomes: Iterable[Outcome]) -> None:
        """Drop outcomes that are folded."""
        self.store.drop(_CLOSED, [Entry(o.decision_id, part=o.slot) for o in outcomes])

    def keep_early(self, decision_id: str, feedback: Iterable[tuple[Impression | Reward, float]]) -> None:
        """Store feedback, each with when it expires, whose decision has not been read yet.

        Called once in a transaction for each decision, because it goes behind what stands there already.
        """
        waiting = self.store.get(_EARLY, decision_id)
        behind = waiting[-1].part + 1 if waiting else 0
        self.store.put(
            _EARLY,
            [
                Entry(decision_id, _dump_feedback(each), expires, part)
                for part, (each, expires) in enumerate(feedback, behind)
            ],
        )

    def early(self, decision_id: str) -> list[Early]:
        """Return the feedback that came before its decision, in the order it came."""
        return [Early(_load_feedback(entry), entry) for entry in self.store.get(_EARLY, decision_id)]

    def expired(self, now: float, limit: int) -> list[Early]:
        """Return up to `limit` of the feedback that has waited in vain, the earliest first."""
        return [Early(_load_feedback(entry), entry) for entry in self.store.first(_EARLY, now, limit)]

    def forget_early(self, feedback: Iterable[Early]) -> None:
        """Drop feedback that waits no more."""
        self.store.drop(_EARLY, [each.entry for each in feedback])

    def forget_decisions(self, decision_ids: Iterable[str]) -> None:
        """Drop all that waits for or belongs to these decisions."""
        for decision_id in decision_ids:
            for shelf in (_OPEN, _EARLY, _CLOSED):
                self.store.drop(shelf, self.store.get(shelf, decision_id))

    # ---- erasing a user -------------------------------------------------------------------------------

    def request_erasure(self, user_id: str) -> None:
        """Ask whoever leads to erase a user; a request that is under way stays as far as it is."""
        if not self.store.get(_ERASURES, user_id):
            self.note_erasure(Erasure(user_id))

    def erasures(self) -> list[Erasure]:
        """Return the users who are to be erased, and how far that is."""
        return [
            Erasure(entry.key, **_json(entry, "a request to erase a user"))
            for entry in self.store.first(_ERASURES, math.inf)
        ]

    def note_erasure(self, erasure: Erasure) -> None:
        """Note which decisions are next to leave the log, the state being free of them or to be rebuilt."""
        progress = {"decision_ids": erasure.decision_ids, "rebuild": erasure.rebuild}
        self.store.put(_ERASURES, [Entry(erasure.user_id, orjson.dumps(progress))])

    def finish_erasure(self, user_id: str) -> None:
        """Drop the request, and every state but this one, which may know the user and is rebuilt when needed."""
        self.store.drop(_ERASURES, [Entry(user_id)])
        self.store.clear_others()


def _dump_feedback(feedback: Impression | Reward) -> bytes:
    kind = "reward" if isinstance(feedback, Reward) else "impression"
    return orjson.dumps({"kind": kind, "feedback": feedback})


def _load_feedback(entry: Entry) -> Impression | Reward:
    packed = _json(entry, "early feedback")
    fields = packed["feedback"]
    if packed["kind"] == "reward":
        return Reward(**fields)
    return Impression(**{**fields, "items_in_order": tuple(fields["items_in_order"])})


def _json(entry: Entry, what: str) -> Any:
    try:
        return orjson.loads(entry.value)
    except orjson.JSONDecodeError as error:
        raise _unreadable(what, error) from error


def _unreadable(what: str, why: object) -> CorruptState:
    return CorruptState(
        f"In the learner's state, {what} cannot be read ({why}), so that nothing beside it can be trusted. The "
        "learner rebuilds its state from the log."
    )
