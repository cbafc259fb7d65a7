"""What the host asks of a ranking stage; `explorank.Stage` is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from explorank.decision import Decision
from explorank.effort import Effort
from explorank.hooks.types import DecisionRecord, FeatureArray, FloatArray


class KillSwitchLike(Protocol):
    """Stops all exploration at once, without a restart."""

    @property
    def engaged(self) -> bool:
        """Whether exploration is stopped; cheap enough to read on every scrape."""
        ...

    def engage(self, reason: str) -> object:
        """Stop all exploration."""
        ...

    def release(self) -> object:
        """Let exploration resume as configured."""
        ...


class StageLike(Protocol):
    """The calls are made from several threads at once, always with keywords.

    A question that no answer could fit raises `InvalidRequest`, bad feedback raises `UnknownDecision` or
    `InvalidFeedback`, and a log that cannot take feedback raises `LogUnavailable`.
    """

    def rank(
        self,
        *,
        user_id: str | None,
        slots: int,
        surface: str,
        context: Mapping[str, Any] | None,
        exclude: Sequence[str],
        similar_to: str | None,
        effort: Effort,
    ) -> Decision:
        """Retrieve, score and explore."""
        ...

    def explore(
        self,
        *,
        item_ids: Sequence[str],
        scores: FloatArray,
        features: FeatureArray | None,
        user_id: str | None,
        slots: int,
        surface: str,
        context: Mapping[str, Any] | None,
        exclude: Sequence[str],
        effort: Effort,
    ) -> Decision:
        """Explore over the caller's own candidates: scores (n,), features (n, d)."""
        ...

    def shown(self, *, decision_id: str, items_in_order: Sequence[str]) -> object:
        """Record what was really displayed."""
        ...

    def reward(
        self,
        *,
        decision_id: str,
        item_id: str | None,
        slot: int | None,
        kind: str,
        value: float,
        reward_id: str | None,
        time: float | None,
    ) -> bool:
        """Record one reward; False says that its id was recorded before."""
        ...

    def decision(self, decision_id: str) -> DecisionRecord:
        """Return the logged decision."""
        ...

    def readiness(self) -> Mapping[str, str]:
        """Return what keeps the stage from answering as configured, by part; empty when it is ready."""
        ...

    def status(self) -> Mapping[str, Any]:
        """Return plugins, versions and the learner's state, as JSON-ready plain types."""
        ...

    @property
    def kill_switch(self) -> KillSwitchLike:
        """The switch that stops all exploration."""
        ...

    def close(self) -> object:
        """Release everything; called once, after the last request."""
        ...
