"""Where the time of one request goes."""

from __future__ import annotations

import time
from collections.abc import Iterable


class Laps:
    """Counts the time since the last lap for a step, in nanoseconds."""

    def __init__(self) -> None:
        """Begin the first lap."""
        self.ns: dict[str, int] = {}
        self._last = time.perf_counter_ns()

    def lap(self, step: str) -> None:
        """Count the time since the last lap for `step`."""
        now = time.perf_counter_ns()
        self.ns[step] = self.ns.get(step, 0) + now - self._last
        self._last = now

    def split(self, parts: Iterable[tuple[str, float]], rest: str) -> None:
        """Count the time since the last lap as `parts`, steps and microseconds; what they leave over is for `rest`."""
        self.lap(rest)
        for step, us in parts:
            ns = round(us * 1e3)
            self.ns[step] = self.ns.get(step, 0) + ns
            self.ns[rest] -= ns
