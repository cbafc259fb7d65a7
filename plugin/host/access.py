"""What surrounds every request: its id, its time, its count, and an answer even when the host fails."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from explorank.host.errors import Problem, ProblemKind
from explorank.host.metrics import HostMetrics
from explorank.host.problem_response import problem_response

_LOGGER: Final = logging.getLogger("explorank.host")
_REQUEST_ID: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Access:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, metrics: HostMetrics, routes: Mapping[Any, str]) -> None:
        """Wrap `app`; `routes` gives each endpoint the label that its requests are counted under."""
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(scope)
        status = "disconnected"

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            _LOGGER.info("the client left before its request was complete (request %s)", request_id)
        except Exception:
            _LOGGER.exception("request %s failed", request_id)
            if status == "disconnected":
                problem = Problem(
                    ProblemKind.INTERNAL, f"The host's log says more under request {request_id}."
                )
                await problem_response(problem)(scope, receive, send_with_id)
        finally:
            route = self._routes.get(scope.get("endpoint"), "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count_request(route, method, status, time.perf_counter() - began)


def _request_id(scope: Scope) -> str:
    """Return the caller's id where it is fit for headers and logs, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return str(text)
    return uuid4().hex
