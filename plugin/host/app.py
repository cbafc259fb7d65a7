"""The ASGI application: routes, threads and lifetime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from explorank.effort import WHOLE, Effort
from explorank.host.access import Access
from explorank.host.auth import Tokens
from explorank.host.bodies import check, parse_json, read_body
from explorank.host.errors import Problem
from explorank.host.handlers import Handlers, Reply
from explorank.host.limits import Limits
from explorank.host.load import Load
from explorank.host.metrics import HostMetrics
from explorank.host.openapi import document
from explorank.host.operations import Lane, Operation, operations
from explorank.host.problem_response import on_problem, on_routing_error
from explorank.host.stage_protocol import StageLike
from explorank.host.workers import WorkerPool

Endpoint = Callable[[Request], Awaitable[Response]]

_OPERATOR_THREADS: Final = 2
_OPERATORS_WAITING: Final = 32
_BOUNDED_BY_TIME: Final = 1_000_000
_FEEDBACK_THREADS: Final = 2  # so that what arrives during a commit shares the next one


def create_app(
    stage: StageLike,
    *,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    efforts: Sequence[Effort] = (WHOLE,),
) -> Starlette:
    """Return the application over `stage`, which it closes when the server shuts down.

    `efforts` are what a slate may cost under overload, each less than the one before (`explorank.effort.ladder`);
    they matter where `limits.latency_s` is set.

    Without `tokens` the application is open to whoever reaches it, so bind it to loopback only.
    """
    tokens = tokens or Tokens()
    limits = limits or Limits()
    metrics = HostMetrics(lambda: stage.kill_switch.engaged, status=stage.status)
    table = operations(Handlers(stage, metrics, limits), limits)
    # Candidates and scores of `explore` are the caller's own: it can only go without exploration.
    without_exploration = [effort for effort in efforts if not effort.explores]
    loads = {
        "rank": Load(limits, efforts, metrics),
        "explore": Load(limits, [efforts[0], *without_exploration], metrics),
    }
    pools = {
        Lane.SLATES: WorkerPool(
            "slates",
            threads=limits.threads,
            waiting=limits.waiting if limits.latency_s is None else _BOUNDED_BY_TIME,
        ),
        Lane.FEEDBACK: WorkerPool("feedback", threads=_FEEDBACK_THREADS, waiting=limits.waiting),
        Lane.OPERATORS: WorkerPool("operators", threads=_OPERATOR_THREADS, waiting=_OPERATORS_WAITING),
    }
    described = orjson.dumps(document(table, open_to_all=tokens.open))

    async def openapi(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
        return Response(described, media_type="application/json")

    endpoints: list[tuple[str, str, Endpoint]] = [("GET", "/openapi.json", openapi)]
    endpoints += [
        (operation.method, operation.path, _endpoint(operation, pools, loads, tokens, limits))
        for operation in table
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - Starlette's signature
        yield
        await asyncio.to_thread(_close, stage, pools)

    app = Starlette(
        routes=[Route(path, endpoint, methods=[method]) for method, path, endpoint in endpoints],
        middleware=[
            Middleware(Access, metrics=metrics, routes={endpoint: path for _, path, endpoint in endpoints})
        ],
        exception_handlers={Problem: on_problem, HTTPException: on_routing_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would answer 307 where the path is simply unknown
    return app


def _close(stage: StageLike, pools: Mapping[Lane, WorkerPool]) -> None:
    for pool in pools.values():
        pool.close()
    stage.close()


def _endpoint(
    operation: Operation,
    pools: Mapping[Lane, WorkerPool],
    loads: Mapping[str, Load],
    tokens: Tokens,
    limits: Limits,
) -> Endpoint:
    async def respond(request: Request) -> Response:
        if operation.scope is not None:
            tokens.authorise(request, operation.scope)
        given: bytes | Mapping[str, str] = request.path_params
        if operation.body is not None:
            given = await read_body(request, limit=limits.body_bytes, timeout_s=limits.body_timeout_s)
        if operation.lane is Lane.EVENT_LOOP:
            return _response(_perform(operation, given))
        pool = pools[operation.lane]
        if operation.lane is not Lane.SLATES:
            return _response(await pool.run(lambda: _perform(operation, given)))
        waiting = await loads[operation.name].arrived(pool.unfinished)
        reply = await pool.run(lambda: waiting.answer(lambda effort: _perform(operation, given, effort)))
        return _response(reply, {"Server-Timing": waiting.server_timing(reply)})

    return respond


def _response(reply: Reply, headers: Mapping[str, str] | None = None) -> Response:
    return Response(reply.content, media_type=reply.media_type, headers=headers)


def _perform(operation: Operation, given: bytes | Mapping[str, str], *effort: Effort) -> Reply:
    """Parse, check and call, all on one thread: a large body must not hold up the event loop."""
    if operation.body is None:
        return operation.call(given)
    assert isinstance(given, bytes)  # noqa: S101 - the body was read
    value = parse_json(given)
    checked = value if operation.body.model is None else check(operation.body.model, value)
    return operation.call(checked, *effort)
