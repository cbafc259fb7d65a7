"""The table of calls, from which both the routes and the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from explorank.host.answers import (
    Answer,
    DecisionAnswer,
    HealthAnswer,
    KillSwitchAnswer,
    LoggedDecisionAnswer,
    ReadyAnswer,
    RewardsAnswer,
    ShownAnswer,
    StatusAnswer,
)
from explorank.host.auth import Scope
from explorank.host.errors import ProblemKind
from explorank.host.handlers import Handlers, Reply
from explorank.host.limits import Limits
from explorank.host.messages import (
    ExploreRequest,
    KillSwitchRequest,
    Message,
    RankRequest,
    RewardMessage,
    RewardsMessage,
    ShownRequest,
    within_limit,
)


class Lane(Enum):
    """Which threads a call runs on, so that operators are heard while requests queue up."""

    EVENT_LOOP = "event loop"
    """At once; for what only reads a constant."""
    SLATES = "slates"
    """For what is asked for slates; under overload each is answered with less effort, or refused."""
    FEEDBACK = "feedback"
    """For what must not wait behind slates: it is little work, and nobody sends it twice."""
    OPERATORS = "operators"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a call takes."""

    model: type[Message] | None
    """`None`: the call checks each part on its own."""
    documented: Any
    """The type that the OpenAPI document describes."""
    examples: Mapping[str, Any]

    @classmethod
    def of(cls, model: type[Message], examples: Mapping[str, Any]) -> Body:
        """Return the body that is one message of `model`."""
        return cls(model=model, documented=model, examples=examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call."""

    name: str
    """The OpenAPI operation id."""
    method: Literal["GET", "POST"]
    path: str
    summary: str
    description: str = ""
    scope: Scope | None = None
    """`None`: open to all."""
    lane: Lane
    call: Callable[..., Reply]
    """Takes the checked body, or the path's parameters where there is no body; of slates, also the effort."""
    body: Body | None = None
    answer: type[Answer] | None
    """`None`: plain text."""
    problems: tuple[ProblemKind, ...] = field(default=())
    """Beyond those that tokens, bodies and lanes bring with them."""

    def all_problems(self) -> list[ProblemKind]:
        """Return every problem that this call may answer with."""
        kinds = [*self.problems]
        if self.scope is not None:
            kinds += [ProblemKind.NO_VALID_TOKEN, ProblemKind.WRONG_SCOPE]
        if self.body is not None:
            kinds += [
                ProblemKind.MALFORMED_JSON,
                ProblemKind.SLOW_BODY,
                ProblemKind.BODY_TOO_LARGE,
                ProblemKind.UNSUPPORTED_MEDIA_TYPE,
                ProblemKind.INVALID_REQUEST,
            ]
        if self.lane is not Lane.EVENT_LOOP:
            kinds += [ProblemKind.OVERLOADED]
        return [*kinds, ProblemKind.INTERNAL]


def operations(handlers: Handlers, limits: Limits) -> tuple[Operation, ...]:
    """Return every call but the OpenAPI document itself."""
    return (
        Operation(
            name="rank",
            method="POST",
            path="/v1/rank",
            summary="Rank the catalogue for a user",
            description="Retrieves, scores and explores. Whatever fails on the way is named in `fallbacks`.",
            scope=Scope.RANK,
            lane=Lane.SLATES,
            call=handlers.rank,
            body=Body.of(
                within_limit(RankRequest, limits.slots),
                examples={
                    "user": {"user_id": 196, "slots": 5, "surface": "home"},
                    "anonymous": {"slots": 5, "context": {"history": ["50", "181"]}},
                    "similar": {"similar_to": "50", "slots": 5, "exclude": ["181"]},
                },
            ),
            answer=DecisionAnswer,
        ),
        Operation(
            name="explore",
            method="POST",
            path="/v1/explore",
            summary="Explore over your own candidates and scores",
            description="For a host with its own retrieval and ranker. Guards act on these candidates too.",
            scope=Scope.RANK,
            lane=Lane.SLATES,
            call=handlers.explore,
            body=Body.of(
                within_limit(ExploreRequest, limits.slots),
                examples={
                    "scores only": {
                        "item_ids": ["a", "b", "c"],
                        "scores": [0.9, 0.5, 0.1],
                        "user_id": "u1",
                        "slots": 2,
                    }
                },
            ),
            answer=DecisionAnswer,
        ),
        Operation(
            name="shown",
            method="POST",
            path="/v1/shown",
            summary="Say what was really displayed",
            description="Durable when answered. Slots that were not displayed earn no default reward.",
            scope=Scope.REWARD,
            lane=Lane.FEEDBACK,
            call=handlers.shown,
            body=Body.of(
                ShownRequest,
                examples={"two of them": {"decision_id": "01J9ZK", "items_in_order": ["50", "181"]}},
            ),
            answer=ShownAnswer,
            problems=(ProblemKind.UNKNOWN_DECISION, ProblemKind.LOG_UNAVAILABLE),
        ),
        Operation(
            name="rewards",
            method="POST",
            path="/v1/rewards",
            summary="Record one reward or several",
            description=(
                "Durable when answered, and idempotent: a reward that is sent again is a duplicate. A single "
                "reward that is refused is answered 404 or 422. Several, as a list or under `rewards`, are "
                "judged one by one: the answer is 200, and `results` says for each, in order, whether it was "
                f"accepted, a duplicate, or rejected and why. At most {limits.rewards} per call."
            ),
            scope=Scope.REWARD,
            lane=Lane.FEEDBACK,
            call=handlers.rewards,
            body=Body(
                model=None,
                documented=RewardMessage | list[RewardMessage] | RewardsMessage,
                examples={
                    "one": {"decision_id": "01J9ZK", "slot": 0, "kind": "click"},
                    "list": [{"decision_id": "01J9ZK", "item_id": "50", "value": 1.0, "reward_id": "r-1"}],
                    "several": {"rewards": [{"decision_id": "01J9ZK", "slot": 1, "time": 1767225600}]},
                },
            ),
            answer=RewardsAnswer,
            problems=(ProblemKind.UNKNOWN_DECISION, ProblemKind.LOG_UNAVAILABLE),
        ),
        Operation(
            name="decision",
            method="GET",
            path="/v1/decisions/{decision_id}",
            summary="Read a logged decision",
            scope=Scope.RANK,
            lane=Lane.FEEDBACK,
            call=handlers.decision,
            answer=LoggedDecisionAnswer,
            problems=(ProblemKind.UNKNOWN_DECISION, ProblemKind.LOG_UNAVAILABLE),
        ),
        Operation(
            name="healthz",
            method="GET",
            path="/healthz",
            summary="Whether the process is up",
            lane=Lane.EVENT_LOOP,
            call=handlers.healthz,
            answer=HealthAnswer,
        ),
        Operation(
            name="readyz",
            method="GET",
            path="/readyz",
            summary="Whether the stage answers as configured",
            description="503 with one entry in `errors` per part that is not ready.",
            lane=Lane.OPERATORS,
            call=handlers.readyz,
            answer=ReadyAnswer,
            problems=(ProblemKind.NOT_READY,),
        ),
        Operation(
            name="metrics",
            method="GET",
            path="/metrics",
            summary="Counters for Prometheus",
            scope=Scope.ADMIN,
            lane=Lane.OPERATORS,
            call=handlers.metrics,
            answer=None,
        ),
        Operation(
            name="status",
            method="GET",
            path="/v1/admin/status",
            summary="Plugins, versions and the learner",
            scope=Scope.ADMIN,
            lane=Lane.OPERATORS,
            call=handlers.status,
            answer=StatusAnswer,
        ),
        Operation(
            name="kill_switch",
            method="POST",
            path="/v1/admin/kill-switch",
            summary="Stop all exploration, or let it resume",
            description="Takes effect on the next request, without a restart.",
            scope=Scope.ADMIN,
            lane=Lane.OPERATORS,
            call=handlers.kill_switch,
            body=Body.of(
                KillSwitchRequest,
                examples={
                    "stop": {"engaged": True, "reason": "conversion fell by 5 % since noon"},
                    "resume": {"engaged": False},
                },
            ),
            answer=KillSwitchAnswer,
        ),
    )
