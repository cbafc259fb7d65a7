"""Gives a process the pages of files that it has mapped, before requests ask for them one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from explorank.retrieval._madvise import Advice, advise

_MAPPINGS: Final = Path("/proc/self/maps")
_MEMORY: Final = Path("/proc/meminfo")
_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
"""What a container may use, in bytes, or a word where it may use all there is."""


def map_pages(folder: Path) -> int:
    """Read in and map all pages of the files in `folder` that this process has mapped; return how many bytes.

    The first touch of a page interrupts who touches it, and a request that compares vectors here and there among a
    million meets a hundred such pages. Pages stay shared and can be taken back at any time. Nothing is done, and 0
    returned, where the files are larger than the memory that is left, and where the system cannot do it.
    """
    mapped = list(_mappings(folder))
    if not mapped or sum(size for _, size in mapped) > _available():
        return 0
    return sum(size for start, size in mapped if advise(start, size, Advice.POPULATE_READ))


def _mappings(folder: Path) -> Iterator[tuple[int, int]]:
    """Yield address and length in bytes of each mapping of a file in `folder`; none but on Linux."""
    inside = f"{folder.resolve()}/"
    with suppress(OSError):
        for line in _MAPPINGS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            span, *_, path = line.split(maxsplit=5)
            if path.startswith(inside):
                start, end = (int(address, 16) for address in span.split("-"))
                yield start, end - start


def _available() -> int:
    """Return how many bytes of memory could be had, files' pages that nobody needs included.

    Of a container's limit that is half: what else its processes need has to stand beside the files.
    """
    available = 0
    with suppress(OSError):
        for line in _MEMORY.read_text(encoding="ascii").splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                available = int(amount.removesuffix("kB")) * 1024
    with suppress(OSError, ValueError):
        available = min(available, int(_LIMIT.read_text(encoding="ascii")) // 2)
    return available
