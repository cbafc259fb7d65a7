"""A circuit breaker: whoever keeps failing is left alone for a while."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

from explorank.hooks.errors import InvalidPlugin

BreakerState: TypeAlias = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Closed until `failures` failures fall within `window_s`, then open for `open_s` seconds.

    After that it is half-open: one call may pass, whose success closes the breaker and whose failure opens
    it again. A passed call that never reports (its thread was interrupted, say) is replaced by another after
    a further `open_s`. Thread-safe; a closed breaker costs one attribute comparison and takes no lock.
    M. Nygard, Release It!, 2nd edition, chapter 5.
    """

    def __init__(
        self,
        failures: int = 5,
        window_s: float = 30.0,
        open_s: float = 10.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1 or not window_s > 0 or not open_s > 0:
            raise InvalidPlugin(
                f"A circuit breaker of {failures} failures in {window_s} s, open for {open_s} s, could never "
                "close or never open; it needs at least 1 failure and times above 0."
            )
        self._window_s = window_s
        self._open_s = open_s
        self._clock = clock
        self._lock = threading.Lock()
        self._state: BreakerState = "closed"
        self._failed_at: deque[float] = deque(maxlen=failures)
        self._retry_at = 0.0

    @property
    def state(self) -> BreakerState:
        """Whether calls pass (`closed`), don't (`open`), or one has been let through (`half-open`)."""
        return self._state

    def allow(self) -> bool:
        """Return whether a call may pass now; whoever is told so reports `succeeded` or `failed`."""
        if self._state == "closed":
            return True
        with self._lock:
            if self._is("closed"):
                return True
            now = self._clock()
            if now < self._retry_at:
                return False
            self._state = "half-open"
            self._retry_at = now + self._open_s
            return True

    def succeeded(self) -> None:
        """Take note of a call that worked."""
        if self._state == "closed":
            return
        with self._lock:
            if self._is("half-open"):
                self._state = "closed"
                self._failed_at.clear()

    def failed(self) -> None:
        """Take note of a call that did not work."""
        with self._lock:
            if self._is("open"):
                return
            now = self._clock()
            self._failed_at.append(now)
            full = len(self._failed_at) == self._failed_at.maxlen
            if self._is("half-open") or (full and now - self._failed_at[0] <= self._window_s):
                self._state = "open"
                self._retry_at = now + self._open_s

    def _is(self, state: BreakerState) -> bool:
        # Read again under the lock: another thread may have changed it since the unlocked look.
        return self._state == state
