"""Waiting until a process does nothing by itself any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_LOOK_S: Final = 2.0
_IDLE: Final = 0.15
"""Of a core."""
_PATIENCE_S: Final = 300.0


def until_idle(cpu_s: Callable[[], float]) -> None:
    """Wait until a process, whose CPU seconds so far `cpu_s` returns, rests: what it reads at its start is there.

    Rows of an online store take it about a minute for a million items. Five minutes at most.
    """
    began, busy = time.monotonic(), True
    while busy and time.monotonic() < began + _PATIENCE_S:
        before = cpu_s()
        time.sleep(_LOOK_S)
        busy = cpu_s() - before > _IDLE * _LOOK_S
