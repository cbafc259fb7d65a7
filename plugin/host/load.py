"""A request for a slate between its arrival and its answer: how long it waited, and what it may cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from explorank.effort import WHOLE, Effort
from explorank.host.errors import Problem, ProblemKind
from explorank.host.handlers import Reply
from explorank.host.limits import Limits
from explorank.host.load_controller import LoadController
from explorank.host.metrics import HostMetrics
from explorank.timings import WAIT

_HELD_BACK_S: Final = 0.25


class Load:
    """All requests for slates of one process."""

    def __init__(self, limits: Limits, efforts: Sequence[Effort], metrics: HostMetrics) -> None:
        """Without `limits.latency_s` nothing is ever shed."""
        self._metrics = metrics
        self._controller = (
            None
            if limits.latency_s is None
            else LoadController(efforts, bound_s=limits.latency_s, threads=limits.threads)
        )

    async def arrived(self, unfinished: int) -> Waiting:
        """Take note of a request behind so many unfinished ones; a `Problem` of 503 where it came in vain.

        The refusal is held back a little, within the bound. Clients that try again at once, whatever it says, would
        else ask thousands of times a second, and the answers to that take the time from slates.
        """
        if self._controller is not None and not self._controller.admits(unfinished):
            await asyncio.sleep(min(_HELD_BACK_S, self._controller.usable_s))
            raise self.refusal(f"{unfinished} requests were before this one, too many to answer it in time.")
        return Waiting(self, self._controller, self._metrics)

    def refusal(self, why: str) -> Problem:
        """Count a request that is refused and return its answer."""
        self._metrics.count_shed("refused")
        return Problem(
            ProblemKind.OVERLOADED,
            f"{why} Try again a little later; whoever runs the host may add workers.",
            headers={"Retry-After": "1"},
        )


class Waiting:
    """One request, from its arrival on."""

    __slots__ = ("_arrived_at", "_controller", "_load", "_metrics", "_waited_s")

    def __init__(self, load: Load, controller: LoadController | None, metrics: HostMetrics) -> None:
        self._load = load
        self._controller = controller
        self._metrics = metrics
        self._waited_s = 0.0
        self._arrived_at = time.perf_counter()

    def answer(self, call: Callable[[Effort], Reply]) -> Reply:
        """Return the answer of `call` with as much effort as the wait has left; a `Problem` of 503 without any."""
        began = time.perf_counter()
        self._waited_s = began - self._arrived_at
        if self._controller is None:
            reply = call(WHOLE)
        else:
            turn = self._controller.begin(self._waited_s)
            if turn is None:
                raise self._load.refusal(
                    f"The request waited {self._waited_s * 1e3:.1f} ms, and no answer would be in time any more."
                )
            if turn.rung:
                self._metrics.count_shed(turn.effort.name)
            reply = call(turn.effort)
            self._controller.finished(turn, time.perf_counter() - began)
        self._metrics.observe_steps({WAIT: self._waited_s * 1e6, **reply.timings_us})
        return reply

    def server_timing(self, reply: Reply) -> str:
        """Return the `Server-Timing` header of the answer: each step, and all of the time since the arrival."""
        total_s = time.perf_counter() - self._arrived_at
        steps = {WAIT: self._waited_s * 1e6, **reply.timings_us, "total": total_s * 1e6}
        return ", ".join([f"{step};dur={spent_us / 1e3:.3f}" for step, spent_us in steps.items()])
