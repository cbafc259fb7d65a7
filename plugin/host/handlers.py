"""What each call does: a checked message in, the stage's answer out. All of it runs on worker threads."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from explorank.decision import Decision
from explorank.effort import Effort
from explorank.errors import InvalidFeedback, InvalidRequest, LogUnavailable, UnknownDecision
from explorank.host.answers import logged_decision
from explorank.host.bodies import check, json_path
from explorank.host.errors import Problem, ProblemKind, Violation
from explorank.host.limits import Limits
from explorank.host.messages import (
    Context,
    ExploreRequest,
    Id,
    KillSwitchRequest,
    RankRequest,
    RewardMessage,
    ShownRequest,
    UnjudgedRewards,
)
from explorank.host.metrics import CONTENT_TYPE, HostMetrics
from explorank.host.stage_protocol import StageLike

_LOGGER: Final = logging.getLogger("explorank.host")
_ID: Final = TypeAdapter(Id)


@dataclass(frozen=True, slots=True)
class Reply:
    """The body of an answer of 200."""

    content: bytes
    media_type: str = "application/json"
    timings_us: Mapping[str, float] = field(default_factory=dict)
    """What the steps of the stage took, in order."""

    @classmethod
    def json(cls, value: Mapping[str, Any]) -> Reply:
        """Return `value` as JSON; what is not finite becomes null."""
        return cls(orjson.dumps(value))


class Handlers:
    """The calls over one stage."""

    def __init__(self, stage: StageLike, metrics: HostMetrics, limits: Limits) -> None:
        self._stage = stage
        self._metrics = metrics
        self._limits = limits

    def rank(self, body: RankRequest, effort: Effort) -> Reply:
        """Answer with a slate from the catalogue."""
        with _refusals():
            decision = self._stage.rank(
                user_id=body.user_id,
                slots=body.slots,
                surface=body.surface,
                context=_as_mapping(body.context),
                exclude=body.exclude,
                similar_to=body.similar_to,
                effort=effort,
            )
        return self._decided(decision)

    def explore(self, body: ExploreRequest, effort: Effort) -> Reply:
        """Answer with a slate of the caller's candidates."""
        features = None if body.features is None else np.asarray(body.features, dtype=np.float32)
        with _refusals():
            decision = self._stage.explore(
                item_ids=body.item_ids,
                scores=np.asarray(body.scores, dtype=np.float64),
                features=features,
                user_id=body.user_id,
                slots=body.slots,
                surface=body.surface,
                context=_as_mapping(body.context),
                exclude=body.exclude,
                effort=effort,
            )
        return self._decided(decision)

    def _decided(self, decision: Decision) -> Reply:
        self._metrics.count_decision(decision)
        return Reply(orjson.dumps(decision.to_dict()), timings_us=decision.timings_us)

    def shown(self, body: ShownRequest) -> Reply:
        """Record what was displayed."""
        with _refusals():
            self._stage.shown(decision_id=body.decision_id, items_in_order=body.items_in_order)
        return Reply.json({"decision_id": body.decision_id, "items": len(body.items_in_order)})

    def rewards(self, body: Any) -> Reply:
        """Record one reward, or judge several one by one.

        A refused single reward is a problem of its own. Among several it is an entry of an answer of 200,
        so that one bad reward never holds back the others.
        """
        if isinstance(body, list):
            return self._several(body, ())
        if isinstance(body, dict) and "rewards" in body:
            return self._several(check(UnjudgedRewards, body).rewards, ("rewards",))
        return _tally([self._reward(body, ())])

    def _several(self, rewards: list[Any], within: tuple[str, ...]) -> Reply:
        if len(rewards) > self._limits.rewards:
            rule = f"at most {self._limits.rewards} rewards per call"
            raise Problem(
                ProblemKind.INVALID_REQUEST,
                f"{len(rewards)} rewards were sent; {rule}. Send them in several calls.",
                [Violation(json_path(within), rule, len(rewards))],
            )
        return _tally([self._judged(reward, (*within, row)) for row, reward in enumerate(rewards)])

    def _judged(self, reward: Any, within: tuple[str | int, ...]) -> dict[str, Any]:
        try:
            return self._reward(reward, within)
        except Problem as problem:
            if problem.kind is ProblemKind.LOG_UNAVAILABLE:
                raise
            return {"result": "rejected", "problem": problem.to_dict()}

    def _reward(self, reward: Any, within: Sequence[str | int]) -> dict[str, Any]:
        try:
            message = check(RewardMessage, reward, within=within)
            with _refusals(within):
                new = self._stage.reward(
                    decision_id=message.decision_id,
                    item_id=message.item_id,
                    slot=message.slot,
                    kind=message.kind,
                    value=message.value,
                    reward_id=message.reward_id,
                    time=message.time,
                )
        except Problem as problem:
            if problem.kind is not ProblemKind.LOG_UNAVAILABLE:
                self._metrics.count_reward("rejected")
            raise
        self._metrics.count_reward("accepted" if new else "duplicate")
        return {"result": "accepted" if new else "duplicate", "problem": None}

    def decision(self, path: Mapping[str, str]) -> Reply:
        """Answer with what the log holds of a decision."""
        try:
            decision_id = _ID.validate_python(path["decision_id"])
        except ValidationError:
            raise Problem(
                ProblemKind.UNKNOWN_DECISION, "The path does not end in a decision id; none looks like that."
            ) from None
        with _refusals():
            return Reply.json(logged_decision(self._stage.decision(decision_id)))

    def healthz(self, path: Mapping[str, str]) -> Reply:  # noqa: ARG002 - all calls without a body take the path
        """Answer that the process is up."""
        return Reply.json({"status": "up"})

    def readyz(self, path: Mapping[str, str]) -> Reply:  # noqa: ARG002 - all calls without a body take the path
        """Answer whether the stage can answer as configured."""
        reasons = self._stage.readiness()
        if reasons:
            raise Problem(
                ProblemKind.NOT_READY,
                f"Not ready: {', '.join(sorted(reasons))}.",
                [Violation(part, rule) for part, rule in sorted(reasons.items())],
            )
        return Reply.json({"status": "ready"})

    def metrics(self, path: Mapping[str, str]) -> Reply:  # noqa: ARG002 - all calls without a body take the path
        """Answer with the counters."""
        return Reply(self._metrics.exposition(), CONTENT_TYPE)

    def status(self, path: Mapping[str, str]) -> Reply:  # noqa: ARG002 - all calls without a body take the path
        """Answer with plugins, versions and the learner."""
        return Reply.json(self._stage.status())

    def kill_switch(self, body: KillSwitchRequest) -> Reply:
        """Stop all exploration, or let it resume."""
        switch = self._stage.kill_switch
        if body.engaged:
            switch.engage(body.reason)
        else:
            switch.release()
        _LOGGER.warning("kill switch %s: %r", "engaged" if body.engaged else "released", body.reason)
        return Reply.json({"engaged": switch.engaged})


@contextmanager
def _refusals(within: Sequence[str | int] = ()) -> Iterator[None]:
    """Turn what the stage refuses into problems."""
    try:
        yield
    except UnknownDecision as error:
        raise Problem(
            ProblemKind.UNKNOWN_DECISION,
            str(error),
            [Violation(json_path((*within, "decision_id")), str(error))],
        ) from error
    except (InvalidFeedback, InvalidRequest) as error:
        raise Problem(
            ProblemKind.INVALID_REQUEST, str(error), [Violation(json_path(within), str(error))]
        ) from error
    except LogUnavailable as error:
        # The message names files of this machine, which are the operator's to read.
        _LOGGER.error("the feedback log cannot be reached: %s", error)  # noqa: TRY400 - the cause is in the message
        raise Problem(
            ProblemKind.LOG_UNAVAILABLE,
            "Send all of it again later; what was recorded already will count as a duplicate.",
            headers={"Retry-After": "1"},
        ) from error


def _as_mapping(context: Context) -> dict[str, Any]:
    return context.model_dump(exclude_unset=True)


def _tally(results: list[dict[str, Any]]) -> Reply:
    outcomes = [result["result"] for result in results]
    return Reply.json(
        {
            **{outcome: outcomes.count(outcome) for outcome in ("accepted", "duplicate", "rejected")},
            "results": results,
        }
    )
