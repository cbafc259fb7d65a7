"""Carries what went wrong deep inside a hook or a guard to the decision it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from explorank.hooks.types import Fallback

_noted: ContextVar[list[Fallback] | None] = ContextVar("explorank_fallbacks", default=None)


@contextmanager
def collecting_fallbacks(fallbacks: list[Fallback]) -> Iterator[None]:
    """Append to `fallbacks` whatever is noted inside, each once."""
    token = _noted.set(fallbacks)
    try:
        yield
    finally:
        _noted.reset(token)


def note_fallback(fallback: Fallback) -> None:
    """Note a fallback of the request at hand; outside of a request it is dropped."""
    noted = _noted.get()
    if noted is not None and fallback not in noted:
        noted.append(fallback)


def note_guard_error(guard: str, error: Exception) -> None:
    """Note that `guard` failed while the request at hand was decided."""
    reason = f"{type(error).__name__}: {error}"
    note_fallback(Fallback("guard", guard, reason, "nothing or everything allowed, as the guard declares"))
