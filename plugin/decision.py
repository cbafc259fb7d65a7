"""The answer to one request, as the host sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from explorank.hooks.types import Arm, DecisionRecord, Fallback, Mode, SlotMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A slate with what the host must keep (`decision_id`) and what it may want to know.

    All per-slot tuples have one entry per answered slot, which may be fewer than were asked for.
    """

    decision_id: str
    items: tuple[str, ...]
    scores: tuple[float, ...]
    propensities: tuple[float, ...]
    """The probability of each choice, given the slots above it."""
    methods: tuple[SlotMethod, ...]
    sources: tuple[tuple[str, ...], ...]
    """The retrievers that found each item."""
    policy: str
    policy_version: int
    mode: Mode
    arm: Arm
    versions: Mapping[str, str]
    fallbacks: tuple[Fallback, ...]
    """What did not work and what was done instead; empty when all went as configured."""
    propensity_known: bool
    """False where a fallback makes the propensities unknown; evaluation leaves such a decision out."""
    logged: bool
    """False where the log was not writable: a baseline answer that takes no feedback."""
    repeated: bool = False
    """True where this is an earlier decision, served again: all but `timings_us` is as it was then."""
    timings_us: Mapping[str, float] = field(default_factory=dict, compare=False)
    """What this answer took, in microseconds by step (`explorank.timings.STEPS`), in order; a step that was not
    taken is absent. Neither logged nor part of `to_dict`."""

    @classmethod
    def of(
        cls,
        record: DecisionRecord,
        *,
        logged: bool,
        repeated: bool = False,
        timings_us: Mapping[str, float] | None = None,
    ) -> Decision:
        """Return the answer that `record` describes."""
        slate = record.slate
        return cls(
            decision_id=record.decision_id,
            items=tuple(record.shown_ids),
            scores=tuple(record.scores[slate.order].tolist()),
            propensities=tuple(slate.propensities.tolist()),
            methods=slate.method,
            sources=record.sources,
            policy=slate.policy,
            policy_version=slate.policy_version,
            mode=record.mode,
            arm=record.arm,
            versions=record.versions,
            fallbacks=record.fallbacks,
            propensity_known=record.propensity_known,
            logged=logged,
            repeated=repeated,
            timings_us=timings_us or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as JSON-ready plain types."""
        return {
            "decision_id": self.decision_id,
            "items": [
                {
                    "slot": slot,
                    "item_id": self.items[slot],
                    "score": self.scores[slot],
                    "propensity": self.propensities[slot],
                    "method": self.methods[slot],
                    "sources": list(self.sources[slot]),
                }
                for slot in range(len(self.items))
            ],
            "policy": self.policy,
            "policy_version": self.policy_version,
            "mode": self.mode,
            "arm": self.arm,
            "versions": dict(self.versions),
            "fallbacks": [asdict(fallback) for fallback in self.fallbacks],
            "propensity_known": self.propensity_known,
            "logged": self.logged,
            "repeated": self.repeated,
        }
