"""What a gate is: it says, before anything is drawn, whether a request may explore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from explorank.hooks.types import RankingRequest


class Gate(Protocol):
    """Keeps a request from exploring; it then gets the baseline, and its record says why.

    A gate knows the request and the past, never what would be drawn: what it decides does not depend on the
    draw, so that the propensities of what is explored stay true.
    """

    def refusal(self, request: RankingRequest) -> str | None:
        """Return why this request may not explore, or `None` where it may; cheap, and called once a request."""


def refusal(gates: Sequence[Gate], request: RankingRequest) -> str | None:
    """Return the first refusal, or `None` where every gate is open; a gate that raises is shut."""
    for gate in gates:
        try:
            reason = gate.refusal(request)
        except Exception as error:  # whatever it was: a limit that cannot be checked must not be passed
            return f"{type(gate).__name__} failed: {error}"
        if reason is not None:
            return reason
    return None
