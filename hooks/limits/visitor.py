"""Who is asking, as limits count visitors."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from explorank.hooks.types import RankingRequest

DAY_S: Final = 86_400.0


def visitor_of(request: RankingRequest) -> bytes | None:
    """Return 16 bytes that stand for the request's user, or for their session where they are anonymous.

    `None` where the request names neither `user_id` nor `context["session_id"]`: nobody can be told from
    anybody then. A user and a session of the same name are two visitors. The bytes are a BLAKE2b digest, so
    that rows keyed by them have one size and name nobody.
    """
    if request.user_id:
        return _digest(f"user:{request.user_id}")
    if session := request.context.get("session_id"):
        return _digest(f"session:{session}")
    return None


def day_of(time: float) -> int:
    """Return the UTC day that `time`, in seconds since the Unix epoch, lies in; days count from the epoch."""
    return int(time // DAY_S)


def _digest(name: str) -> bytes:
    text = name.encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16, person=b"explorank.visit").digest()
