"""Problems as HTTP answers."""

from __future__ import annotations

from typing import Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from explorank.host.errors import Problem, ProblemKind

MEDIA_TYPE: Final = "application/problem+json"


def problem_response(problem: Problem) -> Response:
    """Return the problem as a response."""
    return Response(
        orjson.dumps(problem.to_dict()),
        status_code=problem.kind.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


async def on_problem(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    """Answer a `Problem`."""
    assert isinstance(error, Problem)  # noqa: S101 - registered for this type only
    return problem_response(error)


async def on_routing_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    """Answer what Starlette itself refuses: an unknown path or a wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    if error.status_code == ProblemKind.WRONG_METHOD.status:
        allowed = (error.headers or {}).get("Allow", "")
        return problem_response(
            Problem(ProblemKind.WRONG_METHOD, f"This path takes {allowed}.", headers={"Allow": allowed})
        )
    return problem_response(
        Problem(ProblemKind.UNKNOWN_ROUTE, "`GET /openapi.json` lists every path that this host answers.")
    )
