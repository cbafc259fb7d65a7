"""Bearer tokens by scope."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr
from starlette.requests import Request

from explorank.host.errors import InvalidToken, Problem, ProblemKind

if TYPE_CHECKING:
    from explorank.settings import TokenSettings

_BEARER: Final = re.compile(rb"bearer +([^\s]+) *", re.IGNORECASE)
_CHALLENGE: Final = 'Bearer realm="explorank"'


class Scope(StrEnum):
    """What a token allows; `admin` allows everything."""

    RANK = "rank"
    REWARD = "reward"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One secret per scope. Without any, the host is open.

    With at least one, a scope without a token of its own is reached with the admin token only.
    """

    rank: SecretStr | None = None
    """Allows `rank`, `explore` and reading decisions."""
    reward: SecretStr | None = None
    """Allows `shown` and `rewards`."""
    admin: SecretStr | None = None
    """Allows everything, `metrics` and the admin calls included."""

    def __post_init__(self) -> None:
        """Refuse tokens that anyone could guess or no header could carry."""
        for scope in Scope:
            secret: SecretStr | None = getattr(self, scope)
            if secret is None:
                continue
            text = secret.get_secret_value()
            if not re.fullmatch(r"[!-~]+", text):
                raise InvalidToken(
                    f"The token of scope {scope.value!r} is empty or holds spaces or characters beyond "
                    "ASCII; no `Authorization` header could carry it. Set a long random token, or none."
                )

    @classmethod
    def of(cls, settings: TokenSettings) -> Tokens:
        """Return the tokens that the settings hold."""
        return cls(rank=settings.rank, reward=settings.reward, admin=settings.admin)

    @property
    def open(self) -> bool:
        """Whether no token is set, so that anyone who reaches the host may do anything."""
        return self.rank is None and self.reward is None and self.admin is None

    def granted(self, token: bytes) -> frozenset[Scope]:
        """Return the scopes that `token` opens.

        Every secret is compared, each in constant time, so that the time taken tells nothing of them.
        """
        matching = [
            scope
            for scope in Scope
            if (secret := getattr(self, scope)) is not None
            and hmac.compare_digest(secret.get_secret_value().encode(), token)
        ]
        return frozenset(Scope if Scope.ADMIN in matching else matching)

    def authorise(self, request: Request, needed: Scope) -> None:
        """Raise a `Problem` of 401 or 403 unless the request's token opens the scope."""
        if self.open:
            return
        headers = [value for name, value in request.scope["headers"] if name == b"authorization"]
        sent = _BEARER.fullmatch(headers[0]) if len(headers) == 1 else None
        if sent is None:
            raise Problem(
                ProblemKind.NO_VALID_TOKEN,
                f"Send `Authorization: Bearer <token>` with a token of scope `{needed}` or `admin`.",
                headers={"WWW-Authenticate": _CHALLENGE},
            )
        scopes = self.granted(sent[1])
        if not scopes:
            raise Problem(
                ProblemKind.NO_VALID_TOKEN,
                "The token is not one of this host's.",
                headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
            )
        if needed not in scopes:
            raise Problem(
                ProblemKind.WRONG_SCOPE,
                f"The token opens {', '.join(sorted(scopes))}; this call needs `{needed}` or `admin`.",
                headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{needed}"'},
            )
