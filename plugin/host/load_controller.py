"""Keeps a latency bound when more is asked than can be answered: cheaper answers first, refusals last.

Two rules act together:

- **A standing queue** (CoDel: Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012). A queue that
  empties now and then only absorbs bursts; one whose shortest wait over an interval stays above a target never
  will. Then all requests take one rung less. Where CoDel drops packets, we spend less on each request. The way back
  is one rung per interval, and only if what arrives would fit into four fifths of the time at that rung.
- **What is left of the bound.** Each request takes the first rung whose expected time, with a margin of twice its
  mean deviation (Jacobson, "Congestion Avoidance and Control", SIGCOMM 1988), fits into what its wait has left. If
  none fits it is refused at once: an answer that comes too late would delay those behind it for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from threading import Lock
from typing import Final

from explorank.effort import Effort

_USABLE: Final = 0.8  # of the bound: the rest goes for what is not seen from here, sockets and threads
_TARGET: Final = 1 / 2  # of what is usable
_DESIRED_LOAD: Final = 0.8  # above it, queues grow out of chance alone
_FORGETTING: Final = 0.97  # per calm interval: what a rung took once, long ago, must not bar it for ever
_MARGIN: Final = 2.0  # mean deviations
_UNSEEN: Final = 0.5  # of the rung before: what a rung is taken to cost before it was ever tried


@dataclass(frozen=True, slots=True)
class Turn:
    """A request that may begin."""

    rung: int
    effort: Effort


class LoadController:
    """Decides what each request may cost, from how long it waited and how long others took.

    Safe to share between threads; a call takes a few microseconds.
    """

    def __init__(
        self,
        ladder: Sequence[Effort],
        *,
        bound_s: float,
        threads: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take the efforts, each less than the one before, and how many `threads` work on requests at once."""
        self._bound_s: Final = bound_s
        self.usable_s: Final = _USABLE * bound_s
        """How long a request may take as seen from here."""
        self._target_s: Final = _TARGET * self.usable_s
        self._ladder: Final = tuple(ladder)
        self._threads: Final = threads
        self._clock: Final = clock
        self._lock: Final = Lock()
        self._costs = tuple(_Cost() for _ in self._ladder)
        self._rung = 0
        self._began_at = clock()
        self._least_wait_s = inf
        self._arrivals = 0

    @property
    def rung(self) -> int:
        """How many rungs all requests are below the whole effort; 0 where there is no standing queue."""
        return self._rung

    def admits(self, unfinished: int) -> bool:
        """Return whether a request that arrives behind so many unfinished ones can be answered in time at all."""
        with self._lock:
            self._judge()
            self._arrivals += 1
            mean_s, high_s = self._expected(len(self._ladder) - 1)
            # Whoever finds nobody before him is never in vain: what nobody tries, nobody learns.
            return unfinished < self._threads or unfinished * mean_s / self._threads + high_s <= self.usable_s

    def begin(self, waited_s: float) -> Turn | None:
        """Return what a request that waited so long may cost; `None` where no answer would come in time."""
        with self._lock:
            self._judge()
            self._least_wait_s = min(self._least_wait_s, waited_s)
            left_s = self.usable_s - waited_s
            for rung in range(self._rung, len(self._ladder)):
                if self._expected(rung)[1] <= left_s:
                    return Turn(rung, self._explained(rung, waited_s))
            last = len(self._ladder) - 1
            return Turn(last, self._explained(last, waited_s)) if waited_s <= self._target_s else None

    def finished(self, turn: Turn, took_s: float) -> None:
        """Learn how long an answer took, its wait left out."""
        with self._lock:
            self._costs[turn.rung].learn(took_s)

    def _explained(self, rung: int, waited_s: float) -> Effort:
        effort = self._ladder[rung]
        if rung == 0:
            return effort
        return replace(
            effort,
            reason=f"overload: the request had waited {waited_s * 1e3:.1f} ms of {self._bound_s * 1e3:g} ms",
        )

    def _expected(self, rung: int) -> tuple[float, float]:
        """Return the mean time of a rung, and one that it rarely exceeds; a guess before it was ever tried."""
        share = 1.0
        while not self._costs[rung].seen and rung:
            rung -= 1
            share *= _UNSEEN
        cost = self._costs[rung]
        return share * cost.mean_s, share * (cost.mean_s + _MARGIN * cost.deviation_s)

    def _judge(self) -> None:
        """Move by a rung where an interval has ended; intervals in which nothing began were calm."""
        elapsed_s = self._clock() - self._began_at
        intervals = int(elapsed_s / self._bound_s)
        if intervals == 0:
            return
        if self._target_s < self._least_wait_s < inf:
            self._rung = min(len(self._ladder) - 1, self._rung + 1)
            intervals -= 1
        if intervals:
            self._calm(intervals, self._arrivals / elapsed_s)
        self._began_at += elapsed_s
        self._least_wait_s = inf
        self._arrivals = 0

    def _calm(self, intervals: int, arrivals_per_s: float) -> None:
        """Come nearer to the whole effort, by at most a rung for each interval."""
        for cost in self._costs:
            cost.forget(intervals)
        for _ in range(min(intervals, self._rung)):
            load = arrivals_per_s * self._expected(self._rung - 1)[0] / self._threads
            if load > _DESIRED_LOAD:
                return
            self._rung -= 1


class _Cost:
    """The time that a rung takes: its mean and its mean deviation, moving.

    The first answer counts for nothing: it also pays for what is done once, such as filling caches.
    """

    __slots__ = ("_warm", "deviation_s", "mean_s", "renewed", "seen")

    def __init__(self) -> None:
        self._warm = False
        self.seen = False
        self.renewed = False
        """Whether an answer took this rung since the last interval ended."""
        self.mean_s = 0.0
        self.deviation_s = 0.0

    def learn(self, took_s: float) -> None:
        self.renewed = True
        if not self._warm:
            self._warm = True
        elif not self.seen:
            self.seen, self.mean_s, self.deviation_s = True, took_s, took_s / 2
        else:
            off_s = took_s - self.mean_s
            self.mean_s += off_s / 8
            self.deviation_s += (abs(off_s) - self.deviation_s) / 4

    def forget(self, intervals: int) -> None:
        if not self.renewed:
            kept = _FORGETTING**intervals
            self.mean_s *= kept
            self.deviation_s *= kept
        self.renewed = False
