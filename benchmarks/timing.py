"""CPU time of many short pieces of work, taken in turns so that the machine's drift falls on all alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Work: TypeAlias = Callable[[int], Callable[[], object]]
"""Given a number of calls, prepares them and returns what makes them; only the making is timed."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A piece of work, and the least number of calls in a sample of it."""

    work: Work
    least_calls: int = 1
    """More than 1 where one call in so many costs much more, which a median of single calls would hide."""


def repeated(call: Callable[[], object]) -> Work:
    """Return the work of making one and the same call, which needs no preparation."""

    def prepare(calls: int) -> Callable[[], object]:
        def run() -> None:
            for _ in range(calls):
                call()

        return run

    return prepare


def measure(contestants: Sequence[Contestant], rounds: int, sample_s: float) -> list[NDArray[np.float64]]:
    """Return for each contestant the CPU seconds of one call, once per round, (rounds,).

    In every round each contestant has its turn, in the opposite order every other round. A turn makes as many
    calls as fit in `sample_s`, and at least one. The time is that of the whole process, so that what a
    background thread does for a call counts too. The garbage collector rests, as in `timeit`.
    """
    seconds = [np.empty(rounds) for _ in contestants]
    gc.collect()
    gc.disable()
    try:
        calls = [_calls(contestant, sample_s) for contestant in contestants]
        turns = list(zip(contestants, calls, seconds, strict=True))
        for number in range(rounds):
            for contestant, count, taken in turns if number % 2 == 0 else reversed(turns):
                taken[number] = seconds_per_call(contestant.work, count)
            gc.collect()
    finally:
        gc.enable()
    return seconds


def _calls(contestant: Contestant, sample_s: float) -> int:
    seconds_per_call(contestant.work, 1)  # what is loaded or computed once
    fastest = math.inf
    for _ in range(3):
        fastest = min(fastest, max(1e-9, seconds_per_call(contestant.work, 1)))
        if fastest >= sample_s:
            break
    return max(contestant.least_calls, int(sample_s / fastest))


def seconds_per_call(work: Work, calls: int) -> float:
    """Return the CPU seconds of one call, over `calls` of them; what prepares them isn't timed."""
    run = work(calls)
    start = time.process_time_ns()
    run()
    return (time.process_time_ns() - start) * 1e-9 / calls
