"""How long a block takes, and how much more memory the process held in it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Final

_STATUS: Final = Path("/proc/self/statm")
_PAGE_MIB: Final = os.sysconf("SC_PAGE_SIZE") / 2**20
_EVERY_S: Final = 0.01


@dataclass(slots=True)
class Effort:
    """What a block took."""

    seconds: float = 0.0
    """Of CPU time, all threads together: what others do on the machine lengthens it little."""
    wall_s: float = 0.0
    mib: float = 0.0
    """Beyond what the process held when the block began, looked at a hundred times a second; 0 where the system does
    not tell."""


@contextmanager
def measured() -> Iterator[Effort]:
    """Yield an `Effort` that is filled in when the block ends."""
    effort, done = Effort(), Event()
    before = highest = _resident()

    def watch() -> None:
        nonlocal highest
        while not done.wait(_EVERY_S):
            highest = max(highest, _resident())

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    start, start_wall = time.process_time(), time.perf_counter()
    try:
        yield effort
    finally:
        effort.seconds, effort.wall_s = time.process_time() - start, time.perf_counter() - start_wall
        done.set()
        watcher.join()
        effort.mib = (max(highest, _resident()) - before) * _PAGE_MIB


def resident_mib() -> float:
    """Return how much memory the process holds; 0 where the system does not tell."""
    return _resident() * _PAGE_MIB


def _resident() -> int:
    return int(_STATUS.read_text(encoding="ascii").split()[1]) if _STATUS.exists() else 0
