"""What a process tells Linux about its memory, by madvise(2); elsewhere nothing is told, and nothing happens."""

from __future__ import annotations

import ctypes
import sys
from enum import IntEnum
from functools import cache
from typing import Any


class Advice(IntEnum):
    """What is asked for."""

    HUGEPAGE = 14
    """Huge pages, for what is read in or first touched from here on."""
    POPULATE_READ = 22
    """All pages now, before anybody touches them; Linux 5.14."""
    COLLAPSE = 25
    """What is there to be moved to huge pages now, if need be; Linux 6.1."""


def advise(start: int, size: int, advice: Advice) -> bool:
    """Give `advice` on the `size` bytes from `start`, the beginning of a page; return whether it was taken."""
    madvise = _madvise()
    return madvise is not None and madvise(start, size, int(advice)) == 0


@cache
def _madvise() -> Any | None:
    if sys.platform != "linux":  # others give these numbers other meanings
        return None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return madvise
