"""What built-in plugins tell each other of a request, in its context."""

from __future__ import annotations

from typing import Final

from explorank.hooks.types import RankingRequest
from explorank.retrieval.features import OnlineUser

USER: Final = "feast_user"
"""The key under which what Feast holds of the user travels from the first hook to all others: it is read once."""


def user_of(request: RankingRequest) -> OnlineUser | None:
    """Return what Feast told of the visitor; None for an anonymous one, and without Feast."""
    user = request.context.get(USER)
    return user if isinstance(user, OnlineUser) else None
