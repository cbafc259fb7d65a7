"""A small stage in memory, and clients whose every answer is checked against the OpenAPI document."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from jsonschema import Draft202012Validator
from starlette.applications import Starlette

from explorank.decision import Decision
from explorank.effort import Effort
from explorank.errors import InvalidFeedback, InvalidRequest, UnknownDecision
from explorank.hooks.types import DecisionRecord, Fallback, RankingRequest, Slate
from explorank.host import create_app

N_ITEMS = 30


class Switch:
    def __init__(self) -> None:
        self.reason: str | None = None

    @property
    def engaged(self) -> bool:
        return self.reason is not None

    def engage(self, reason: str) -> None:
        self.reason = reason

    def release(self) -> None:
        self.reason = None


class MemoryStage:
    """Answers with `i0`, `i1`, … in this order, and keeps decisions and rewards in dictionaries."""

    def __init__(self) -> None:
        self.records: dict[str, DecisionRecord] = {}
        self.displayed: dict[str, tuple[str, ...]] = {}
        self.rewards: dict[str, float] = {}
        self.asked: list[dict[str, Any]] = []
        self.efforts: list[Effort] = []
        self.not_ready: dict[str, str] = {}
        self.fallbacks: tuple[Fallback, ...] = ()
        self.propensity_known = True
        self.logged = True
        self.repeated = False
        self.limits: dict[str, int] = {}
        self.failure: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.kill_switch = Switch()
        self.closed = 0
        self._ids = count()

    def rank(self, *, similar_to: str | None, effort: Effort, **question: Any) -> Decision:
        self.efforts.append(effort)
        self.asked.append({"similar_to": similar_to, **question})
        ids = [f"i{row}" for row in range(N_ITEMS)]
        return self._answer(ids, np.arange(N_ITEMS, 0.0, -1.0), similar_to=similar_to, **question)

    def explore(
        self,
        *,
        item_ids: Sequence[str],
        scores: Any,
        features: Any | None,
        effort: Effort,
        **question: Any,
    ) -> Decision:
        self.efforts.append(effort)
        self.asked.append({"item_ids": item_ids, "scores": scores, "features": features, **question})
        if features is not None and features.shape[1] != 2:
            raise InvalidRequest(f"the policy takes 2 features, not {features.shape[1]}")
        return self._answer(list(item_ids), scores, similar_to=None, **question)

    def _answer(
        self, ids: list[str], scores: Any, *, exclude: Sequence[str], context: Any, **rest: Any
    ) -> Decision:
        self.may_go_on.wait()
        if self.failure is not None:
            raise self.failure
        eligible = np.array([item not in exclude for item in ids], dtype=bool)
        best_first = np.argsort(-scores, kind="stable")
        order = best_first[eligible[best_first]][: rest["slots"]]
        k = len(order)
        mask = np.tile(eligible, (k, 1))
        record = DecisionRecord(
            request=RankingRequest(
                decision_id=f"d{next(self._ids)}",
                time=1_700_000_000.0,
                exclude=frozenset(exclude),
                context=dict(context),
                **rest,
            ),
            mode="live",
            arm="explore",
            item_ids=np.array(ids, dtype=np.str_),
            scores=scores,
            slate=Slate(order, np.ones(k), ("score",) * k, "greedy", 3, mask, mask, seed=2**100),
            baseline_order=order,
            sources=(("popular",),) * k,
            features=np.full((1, 1), np.nan, np.float32),
            feature_names=("age_days",),
            feature_rows=np.zeros(1, np.int64),
            fallbacks=self.fallbacks,
            versions={"ranker": "7"},
            propensity_known=self.propensity_known,
        )
        self.records[record.decision_id] = record
        return Decision.of(record, logged=self.logged, repeated=self.repeated)

    def shown(self, *, decision_id: str, items_in_order: Sequence[str]) -> None:
        unknown = set(items_in_order) - set(self.decision(decision_id).shown_ids)
        if unknown:
            raise InvalidFeedback(f"{sorted(unknown)} were not answered")
        self.displayed[decision_id] = tuple(items_in_order)

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
        shown = self.decision(decision_id).shown_ids
        if slot is None:
            if item_id not in shown:
                raise InvalidFeedback(f"item {item_id!r} was not answered")
            slot = shown.index(item_id)
        if slot >= len(shown):
            raise InvalidFeedback(f"slot {slot} was not answered")
        if not 0 <= value <= 1:
            raise InvalidFeedback(f"a reward lies between 0 and 1, not at {value}")
        key = reward_id or f"{decision_id}:{slot}:{kind}"
        new = key not in self.rewards
        self.rewards.setdefault(key, value)
        return new

    def decision(self, decision_id: str) -> DecisionRecord:
        if self.failure is not None:
            raise self.failure
        if decision_id not in self.records:
            raise UnknownDecision(f"No log holds decision {decision_id!r}")
        return self.records[decision_id]

    def readiness(self) -> Mapping[str, str]:
        return self.not_ready

    def status(self) -> Mapping[str, Any]:
        if self.failure is not None:
            raise self.failure
        return {"plugins": [], "learner": {"version": 3}, "limits": self.limits}

    def close(self) -> None:
        self.closed += 1


def schema_of(document: Mapping[str, Any], response: httpx.Response) -> dict[str, Any]:
    """Return what the document promises for this response, its references resolvable."""
    media_type = response.headers["content-type"].split(";")[0]
    promised: dict[str, Any] = {"$ref": "#/components/schemas/ProblemAnswer"}
    for template, methods in document["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        operation = methods.get(response.request.method.lower())
        if operation and re.fullmatch(pattern, response.request.url.path):
            assert str(response.status_code) in operation["responses"], (template, response.status_code)
            promised = operation["responses"][str(response.status_code)]["content"][media_type]["schema"]
            break
    else:
        assert response.status_code in {404, 405}
        assert media_type == "application/problem+json"
    return {**promised, "components": document["components"]}


@asynccontextmanager
async def open_client(app: Starlette, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client whose every answer must keep the document's promises."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    document: dict[str, Any] = {}

    async def check(response: httpx.Response) -> None:
        body = await response.aread()
        assert response.headers["x-request-id"]
        if not document or response.request.url.path == "/openapi.json":
            return
        schema = schema_of(document, response)
        if response.headers["content-type"].startswith("application/"):
            Draft202012Validator(schema).validate(orjson.loads(body))

    async with httpx.AsyncClient(
        transport=transport, base_url="http://host", headers=headers, event_hooks={"response": [check]}
    ) as client:
        document.update((await client.get("/openapi.json")).json())
        yield client


@pytest.fixture
def stage() -> MemoryStage:
    return MemoryStage()


@pytest.fixture
async def client(stage: MemoryStage) -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(create_app(stage)) as opened:
        yield opened


@pytest.fixture(scope="session")
def connect() -> Callable[..., Any]:
    """Open clients to other applications: `async with connect(app, **headers) as client`."""
    return open_client


@pytest.fixture(scope="session")
def new_stage() -> Callable[[], MemoryStage]:
    return MemoryStage
