"""Reading the log: what new events close, and what they leave waiting."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from explorank.hooks.errors import CorruptState, LogUnavailable, UnknownDecision
from explorank.hooks.feedback.checkpoint import Checkpoint
from explorank.hooks.feedback.outcomes import OpenDecision, Outcome, RewardRules
from explorank.hooks.feedback.segments import Event, Segments
from explorank.hooks.types import DecisionRecord, Impression, Reward


class Reading:
    """One transaction's pass over new events of a segment."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        segments: Segments,
        rules: RewardRules,
        is_learnt: Callable[[DecisionRecord], bool],
        *,
        cursors: Mapping[str, int],
        segment_id: str,
        cursor: int,
        now: float,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.decisions: list[DecisionRecord] = []
        """Those that no other segment brought before, learnt from or not."""
        self.rewards: list[Reward] = []
        """All of them; one that is early comes again after its decision."""
        self._checkpoint = checkpoint
        self._segments = segments
        self._rules = rules
        self._is_learnt = is_learnt
        self._cursors = cursors
        self._segment_id = segment_id
        self._cursor = cursor
        self._now = now
        self._touched: dict[str, OpenDecision | None] = {}
        self._early: defaultdict[str, list[tuple[Impression | Reward, float]]] = defaultdict(list)

    def take(self, events: Sequence[Event]) -> list[Outcome]:
        """Return what the events close; keep what stays open."""
        # Decisions first: within the batch no feedback is early then, wherever it stands.
        decisions = [event for event in events if isinstance(event, DecisionRecord)]
        feedback = [event for event in events if not isinstance(event, DecisionRecord)]
        outcomes = [outcome for record in decisions for outcome in self._decision(record)]
        outcomes += [outcome for item in feedback for outcome in self._feedback(item)]
        touched = [decision for decision in self._touched.values() if decision is not None]
        self._checkpoint.update_open(touched, self._rules.horizon_s)
        for decision_id, early in self._early.items():
            self._checkpoint.keep_early(decision_id, early)
        return outcomes

    def _decision(self, record: DecisionRecord) -> list[Outcome]:
        decision_id = record.decision_id
        if self._read_elsewhere(decision_id):
            return []
        self.decisions.append(record)
        if self._is_learnt(record):
            self._touched[decision_id] = OpenDecision.of(record)
        early = self._checkpoint.early(decision_id)
        self._checkpoint.forget_early(early)
        return [outcome for each in early for outcome in self._feedback(each.feedback, record)]

    def _feedback(self, feedback: Impression | Reward, record: DecisionRecord | None = None) -> list[Outcome]:
        if isinstance(feedback, Reward):
            self.rewards.append(feedback)
        decision = self._open(feedback.decision_id)
        if decision is None:
            self._without_open(feedback, record)
            return []
        if isinstance(feedback, Impression):
            before = decision.order_changed
            decision.observe_impression(feedback)
            self.counts["order_changed"] += decision.order_changed and not before
            return []
        reception, outcomes = decision.take(feedback, self._rules)
        if reception != "accepted":
            self.counts["duplicates" if reception == "duplicate" else reception] += 1
        return outcomes

    def _open(self, decision_id: str) -> OpenDecision | None:
        if decision_id not in self._touched:
            self._touched[decision_id] = self._checkpoint.open_decision(decision_id)
        return self._touched[decision_id]

    def _without_open(self, feedback: Impression | Reward, record: DecisionRecord | None) -> None:
        """Take feedback for a decision that is closed, not learnt from, or not read yet."""
        if record is None and not self._read(self._segments.copies(feedback.decision_id)):
            del self._touched[feedback.decision_id]
            expires = max(feedback.time, self._now) + self._rules.horizon_s
            self._early[feedback.decision_id].append((feedback, expires))
            return
        if isinstance(feedback, Impression):
            return
        if record is None:
            try:
                record = self._segments.decision(feedback.decision_id)
            except (CorruptState, LogUnavailable, UnknownDecision):
                self.counts["ignored"] += 1
                return
        self.counts["late" if self._is_learnt(record) else "ignored"] += 1

    def _read(self, copies: Mapping[str, int]) -> bool:
        return any(
            seq <= (self._cursor if segment_id == self._segment_id else self._cursors.get(segment_id, 0))
            for segment_id, seq in copies.items()
        )

    def _read_elsewhere(self, decision_id: str) -> bool:
        """Return whether another segment brought the same decision before; its slots may have closed."""
        copies = self._segments.copies(decision_id)
        copies.pop(self._segment_id, None)
        return self._read(copies)


def outcomes_until(
    cursors: Mapping[str, int],
    record: DecisionRecord,
    segments: Segments,
    checkpoint: Checkpoint,
    rules: RewardRules,
) -> list[Outcome]:
    """Return what a decision has yielded of the log that was read up to `cursors`, as `Reading` yielded it."""
    decision = OpenDecision.of(record)
    outcomes: list[Outcome] = []
    for event in segments.events_of(record.decision_id, cursors):
        if isinstance(event, Impression):
            decision.observe_impression(event)
        else:
            outcomes += decision.take(event, rules)[1]
    if checkpoint.open_decision(record.decision_id) is None:
        outcomes += decision.close(rules)
    return outcomes
