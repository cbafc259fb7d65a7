"""Where the time of one request goes."""

from __future__ import annotations

import time


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
