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

    __slots__ = ("_began_ns", "_ends")

    def __init__(self) -> None:
        """Begin the first step."""
        self._ends: list[tuple[str, int]] = []
        self._began_ns = perf_counter_ns()

    def end(self, step: str) -> None:
        """Say that `step` ends now; each ends once."""
        self._ends.append((step, perf_counter_ns()))

    def spent_us(self) -> Mapping[str, float]:
        """Return the microseconds of each step that was taken, in order; their sum is the time of the whole."""
        spent_us = {}
        began_ns = self._began_ns
        for step, ended_ns in self._ends:
            spent_us[step] = (ended_ns - began_ns) / 1e3
            began_ns = ended_ns
        return MappingProxyType(spent_us)
