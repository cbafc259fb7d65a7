"""Time budgets: a call runs on a thread of its own, and whoever asked stops waiting when the time is up.

The deadline is cooperative. Python cannot stop a thread: a late call runs on in the background, its result
is dropped, and its thread is used again only when the call returns. So abandoned calls are counted and
capped; a call that never returns costs one thread for good.
"""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from explorank.hooks.errors import InvalidPlugin, PluginLate

_IDLE_THREADS: Final = 32
"""So many threads wait for the next call; above that a thread ends with its call."""


class Deadline:
    """The time budget of one plugin, and how many of its calls have been abandoned and still run."""

    def __init__(self, budget_ms: float, *, max_abandoned: int = 4) -> None:
        if not budget_ms > 0 or max_abandoned < 1:
            raise InvalidPlugin(
                f"A budget of {budget_ms} ms with {max_abandoned} abandoned calls would refuse every call; "
                "both must be above 0. Leave the budget out to call without a deadline."
            )
        self.budget_ms = budget_ms
        self._max_abandoned = max_abandoned
        self._lock = threading.Lock()
        self._abandoned = 0

    @property
    def exhausted(self) -> bool:
        """Whether so many abandoned calls still run that no further one should begin."""
        return self._abandoned >= self._max_abandoned

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return or raise what `function` does; raise `PluginLate` where it takes longer than the budget.

        It is not called at all, and late at once, while too many abandoned calls still run.

        It runs in a copy of the caller's context: it reads the caller's context variables, and what it sets
        stays its own.
        """
        if self.exhausted:
            raise PluginLate(f"{self._max_abandoned} earlier calls overran their budget and still run.")
        call = _Call(self, function, args, kwargs)
        _THREADS.submit(call)
        if not call.done.acquire(timeout=self.budget_ms / 1000) and self._abandon(call):
            raise PluginLate(
                f"No answer within the budget of {self.budget_ms:g} ms; the call runs on and its result is "
                "dropped. Make it faster or raise `budget_ms`."
            )
        if call.error is not None:
            raise call.error
        return call.value

    def _abandon(self, call: _Call) -> bool:
        with self._lock:
            if call.finished:
                return False
            call.abandoned = True
            self._abandoned += 1
            return True

    def finish(self, call: _Call) -> None:
        """Take note that `call` has returned, in time or not."""
        with self._lock:
            call.finished = True
            if call.abandoned:
                self._abandoned -= 1


class _Call:
    """One call under a deadline, handed from the caller to a worker thread and back."""

    __slots__ = (
        "_args",
        "_context",
        "_deadline",
        "_function",
        "_kwargs",
        "abandoned",
        "done",
        "error",
        "finished",
        "value",
    )

    def __init__(
        self,
        deadline: Deadline,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._deadline = deadline
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._context = contextvars.copy_context()
        self.value: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self.abandoned = False
        self.done = threading.Lock()
        self.done.acquire()

    def execute(self) -> None:
        try:
            self.value = self._context.run(self._function, *self._args, **self._kwargs)
        except BaseException as error:  # raised again in the caller's thread
            self.error = error
        self._deadline.finish(self)


class _Threads:
    """Daemon threads that run calls and are reused; as many as there are calls at once."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[_Call]] = []

    def submit(self, call: _Call) -> None:
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name="explorank-budget", daemon=True).start()
        inbox.put(call)

    def forget(self) -> None:
        """Drop the idle threads, which a forked child does not have."""
        self._idle = []

    def _serve(self, inbox: queue.SimpleQueue[_Call]) -> None:
        while True:
            call = inbox.get()
            call.execute()
            # Idle before done: whoever calls next, the waiting caller included, finds this thread free.
            waits = len(self._idle) < _IDLE_THREADS
            if waits:
                self._idle.append(inbox)
            call.done.release()
            if not waits:
                return
            del call


_THREADS: Final = _Threads()
if hasattr(os, "register_at_fork"):  # absent where processes cannot fork
    os.register_at_fork(after_in_child=_THREADS.forget)
