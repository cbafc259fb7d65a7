"""Puts what a search reads here and there on pages of 2 MB rather than 4 KB.

A search reads some thousand places among gigabytes. On small pages the processor looks nearly each of them up in the
page tables first, and on a virtual machine in those of the host too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from explorank.retrieval._faiss import load_faiss
from explorank.retrieval._madvise import Advice, advise

_SYSTEM: Final = Path("/sys/kernel/mm/transparent_hugepage")
_NEVER: Final = "[never]"
"""What the system says of huge pages where its administrator wants none."""


def huge_page_size() -> int:
    """Return how many bytes a huge page has, 0 where there are none or none are wanted."""
    try:
        if _NEVER in (_SYSTEM / "enabled").read_text(encoding="ascii"):
            return 0
        return int((_SYSTEM / "hpage_pmd_size").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def create_rows(path: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float32]]:
    """Return the rows (n, d) of a new NumPy file at `path`, n ≥ 1, mapped from it to be filled.

    What is written lies on huge pages of the system's cache, and so does what others map of the file then. Not every
    file system can do that (ext4 can from Linux 6.16 on); small pages hold the same.
    """
    rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    if huge_page_size():
        mapping = rows.ctypes.data - rows.offset  # the header comes first
        advise(mapping, rows.offset + rows.nbytes, Advice.HUGEPAGE)
    return rows


def move_lists(index: Any) -> int:
    """Move the codes of an `ivf_pq` index, which lie in this process's memory, to huge pages; return how many bytes.

    Searches may go on meanwhile. What else of the process lies between the lists goes along. Some 400 MB are moved in
    a second; what the system has no huge page for stays where it is.
    """
    size = huge_page_size()
    if not size:
        return 0
    return size * sum(advise(page * size, size, Advice.COLLAPSE) for page in _pages(index, size))


def _pages(index: Any, size: int) -> list[int]:
    """Return the numbers of the pages of `size` bytes that the lists of `index` lie on."""
    lists = load_faiss().downcast_InvertedLists(index.invlists)
    pages = set[int]()
    for number in range(index.nlist):
        blocks = -(-lists.list_size(number) // lists.n_per_block)
        if blocks:
            begin = int(lists.get_codes(number))
            pages.update(range(begin // size, (begin + blocks * lists.block_size - 1) // size + 1))
    return sorted(pages)
