"""Everything the embedded host raises on purpose.

    ExplorankError
    ├── OpenToTheNetwork        (ValueError)   a host without tokens that would listen beyond loopback
    ├── InvalidToken            (ValueError)   a token that protects nothing
    ├── CannotListen            (OSError)      an address or a port that this machine does not give
    └── Problem                                an answer of 4xx or 5xx; never leaves the application

A `Problem` becomes a body of `application/problem+json` (RFC 9457).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from explorank.errors import ExplorankError

JsonScalar: TypeAlias = str | int | float | bool | None


class OpenToTheNetwork(ExplorankError, ValueError):
    """A host without tokens that would listen beyond loopback."""


class InvalidToken(ExplorankError, ValueError):
    """A token that protects nothing, such as an empty one."""


class CannotListen(ExplorankError, OSError):
    """An address or a port that this machine does not give, such as one that is taken."""


class ProblemKind(Enum):
    """Each kind of refusal: the end of its type URI, its status and its title."""

    MALFORMED_JSON = ("malformed-json", 400, "The body is not JSON")
    NO_VALID_TOKEN = ("no-valid-token", 401, "A valid token is required")
    WRONG_SCOPE = ("wrong-scope", 403, "The token's scope does not cover this")
    UNKNOWN_ROUTE = ("unknown-route", 404, "There is nothing at this path")
    UNKNOWN_DECISION = ("unknown-decision", 404, "No log holds this decision")
    WRONG_METHOD = ("wrong-method", 405, "The path does not take this method")
    SLOW_BODY = ("slow-body", 408, "The body did not arrive in time")
    BODY_TOO_LARGE = ("body-too-large", 413, "The body is larger than the limit")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "The body must be plain application/json")
    INVALID_REQUEST = ("invalid-request", 422, "The request breaks a rule")
    INTERNAL = ("internal", 500, "The host failed")
    OVERLOADED = ("overloaded", 503, "The host has more work than it can finish in time")
    LOG_UNAVAILABLE = ("log-unavailable", 503, "The feedback log cannot be reached")
    NOT_READY = ("not-ready", 503, "The stage is not ready")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.type_uri = f"urn:explorank:problem:{slug}"
        self.status = status
        self.title = title


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule, as it stands in a problem's `errors`."""

    where: str
    """A JSON path into the body, such as `$.rewards[2].value`, or what else the rule is about."""
    rule: str
    given: JsonScalar = None
    """What stood there; arrays and objects are described, long text is cut."""


class Problem(ExplorankError):
    """An answer of 4xx or 5xx."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        errors: Sequence[Violation] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the members of the problem document."""
        return {
            "type": self.kind.type_uri,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "errors": [
                {"where": error.where, "rule": error.rule, "given": error.given} for error in self.errors
            ],
        }
