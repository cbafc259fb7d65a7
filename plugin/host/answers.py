"""What the host answers with; the response schemas of the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from explorank.hooks.types import Arm, DecisionRecord, Mode, Slate, SlotMethod


class Answer(BaseModel):
    """Fields may be added to answers; clients ignore those they don't know."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ShownItem(Answer):
    """One slot of the slate."""

    slot: int
    """From 0."""
    item_id: str
    score: float
    propensity: float
    """The probability of this choice, given the slots above it."""
    method: SlotMethod
    sources: list[str]
    """The retrievers that found the item."""


class FallbackAnswer(Answer):
    """One thing that did not work and what was done instead."""

    step: str
    plugin: str
    reason: str
    action: str


class DecisionAnswer(Answer):
    """A slate; keep `decision_id` for the feedback."""

    decision_id: str
    items: list[ShownItem]
    policy: str
    policy_version: int
    mode: Mode
    arm: Arm
    versions: dict[str, str]
    fallbacks: list[FallbackAnswer]
    """Empty when all went as configured."""
    propensity_known: bool
    """False where a fallback makes the propensities unknown; evaluation leaves such a decision out."""
    logged: bool
    """False where the log could not be written: a baseline answer that takes no feedback."""
    repeated: bool
    """True where this is an earlier decision, served again; its id and propensities are the original's."""


class RequestAnswer(Answer):
    """The question as it was answered."""

    user_id: str | None
    slots: int
    surface: str
    time: float
    """In seconds since the Unix epoch."""
    context: dict[str, Any]
    exclude: list[str]
    similar_to: str | None


class SlateAnswer(Answer):
    """A slate with its randomness: which items could have stood where."""

    policy: str
    policy_version: int
    seed: str
    """A whole number, as text because it may have more digits than a JSON reader keeps."""
    floor: float
    order: list[int]
    """The rows of `item_ids` in slot order."""
    propensities: list[float]
    methods: list[SlotMethod]
    eligible: list[list[int]]
    """For each slot, the rows that the guards allowed."""
    support: list[list[int]]
    """For each slot, the rows whose probability was above 0."""


class FeaturesAnswer(Answer):
    """The features as served, for the rows that could be explored."""

    names: list[str]
    rows: list[int]
    values: list[list[float | None]]


class LoggedDecisionAnswer(Answer):
    """All that the log holds of a decision."""

    decision_id: str
    request: RequestAnswer
    mode: Mode
    arm: Arm
    item_ids: list[str]
    """The candidates; rows below count in this order."""
    scores: list[float]
    slate: SlateAnswer
    """What was answered."""
    shadow: SlateAnswer | None
    """What exploration would have shown, where the mode or the arm kept it back."""
    baseline_order: list[int]
    """The rows that would have been shown without exploration."""
    sources: list[list[str]]
    """For each slot, the retrievers that found its item."""
    features: FeaturesAnswer
    fallbacks: list[FallbackAnswer]
    versions: dict[str, str]
    propensity_known: bool
    """False where a fallback makes the propensity unknown; evaluation leaves such a decision out."""
    held_back: str
    """Why a limit kept the request from exploring, in all its slots or in some; empty where none did."""


class ShownAnswer(Answer):
    """What was recorded."""

    decision_id: str
    items: int


class ProblemViolation(Answer):
    """One broken rule."""

    where: str
    """A JSON path into the body, or what else the rule is about."""
    rule: str
    given: str | int | float | bool | None
    """What stood there, shortened."""


class ProblemAnswer(Answer):
    """RFC 9457: what is wrong and how to mend it."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemViolation]


class RewardResult(Answer):
    """What became of one reward."""

    result: Literal["accepted", "duplicate", "rejected"]
    problem: ProblemAnswer | None = None
    """Why it was rejected: status 404 for an unknown decision, 422 for a broken rule."""


class RewardsAnswer(Answer):
    """What became of each reward, in the order they were sent."""

    accepted: int
    duplicate: int
    rejected: int
    results: list[RewardResult]


class HealthAnswer(Answer):
    """The process is up."""

    status: Literal["up"]


class ReadyAnswer(Answer):
    """The stage answers as configured."""

    status: Literal["ready"]


class KillSwitchAnswer(Answer):
    """The state after the call."""

    engaged: bool


class StatusAnswer(Answer):
    """Plugins, versions and the learner; its fields grow with the stage."""

    model_config = ConfigDict(extra="allow")


def logged_decision(record: DecisionRecord) -> dict[str, Any]:
    """Return a logged decision in the form of `LoggedDecisionAnswer`."""
    request = record.request
    return {
        "decision_id": record.decision_id,
        "request": {
            "user_id": request.user_id,
            "slots": request.slots,
            "surface": request.surface,
            "time": request.time,
            "context": dict(request.context),
            "exclude": sorted(request.exclude),
            "similar_to": request.similar_to,
        },
        "mode": record.mode,
        "arm": record.arm,
        "item_ids": record.item_ids.tolist(),
        "scores": record.scores.tolist(),
        "slate": _slate(record.slate),
        "shadow": None if record.shadow is None else _slate(record.shadow),
        "baseline_order": record.baseline_order.tolist(),
        "sources": [list(names) for names in record.sources],
        "features": {
            "names": list(record.feature_names),
            "rows": record.feature_rows.tolist(),
            "values": record.features.tolist(),
        },
        "fallbacks": [
            {"step": each.step, "plugin": each.plugin, "reason": each.reason, "action": each.action}
            for each in record.fallbacks
        ],
        "versions": dict(record.versions),
        "propensity_known": record.propensity_known,
        "held_back": record.held_back,
    }


def _slate(slate: Slate) -> dict[str, Any]:
    return {
        "policy": slate.policy,
        "policy_version": slate.policy_version,
        "seed": str(slate.seed),
        "floor": slate.floor,
        "order": slate.order.tolist(),
        "propensities": slate.propensities.tolist(),
        "methods": list(slate.method),
        "eligible": [row.nonzero()[0].tolist() for row in slate.eligible],
        "support": [row.nonzero()[0].tolist() for row in slate.support],
    }
