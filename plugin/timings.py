"""Where the time of one request went, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns
from types import MappingProxyType
from typing import Final

STEPS: Final = ("enrich_request", "retrieve", "filter", "enrich", "score", "explore", "log")
"""The steps of a request in their order, named after the hooks; `log` is `ranking_log_decision` with what makes
the decision durable before it."""

WAIT: Final = "wait"
"""In metrics and headers, the time that a request waited for its first step."""


class StepClock:
    """Splits the time of one request among its steps, without a gap: what lies between two is the later's."""

    __slots__ = ("_last_ns", "_spent_ns")

    def __init__(self) -> None:
        """Begin the first step."""
        self._spent_ns: dict[str, int] = {}
        self._last_ns = perf_counter_ns()

    def end(self, step: str) -> None:
        """Count the time since the last step's end for `step`."""
        now_ns = perf_counter_ns()
        self._spent_ns[step] = self._spent_ns.get(step, 0) + now_ns - self._last_ns
        self._last_ns = now_ns

    def spent_us(self) -> Mapping[str, float]:
        """Return the microseconds of each step that was taken, in order; their sum is the time of the whole."""
        return MappingProxyType({step: spent_ns / 1e3 for step, spent_ns in self._spent_ns.items()})
