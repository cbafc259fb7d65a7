"""Bounded threads for the stage's synchronous, CPU-bound calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from explorank.host.errors import Problem, ProblemKind

T = TypeVar("T")


class WorkerPool:
    """Runs calls on a fixed set of threads and refuses work when too much of it waits.

    A caller that goes away leaves its call running: a decision that is half made would be logged anyway.
    """

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"explorank-{name}")
        self._capacity = threads + waiting
        self._unfinished = 0

    @property
    def unfinished(self) -> int:
        """How many calls run or wait."""
        return self._unfinished

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` on a thread and return its result; a `Problem` of 503 where too many wait."""
        if self._unfinished >= self._capacity:
            raise Problem(
                ProblemKind.OVERLOADED,
                f"{self._unfinished} calls run or wait already. Try again a little later, or raise "
                "the host's limits on threads or waiting calls.",
                headers={"Retry-After": "1"},
            )
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, call)
        self._unfinished += 1
        # The slot is free when the thread is, not when the caller stops waiting for it.
        future.add_done_callback(self._finished)
        return await asyncio.shield(future)

    def _finished(self, future: asyncio.Future[T]) -> None:
        self._unfinished -= 1
        if not future.cancelled():
            future.exception()  # marks it as seen, for callers that went away

    def close(self) -> None:
        """Wait for the calls that run and refuse new ones."""
        self._executor.shutdown(wait=True)
