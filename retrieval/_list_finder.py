"""How an IVF index finds the lists that are nearest to a query, where there are thousands of them.

FAISS compares the query with every centroid in full, which is a fifth of a search. Here the centroids have short
codes of their own, and the twice as many lists that these find are compared again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from explorank.retrieval._faiss import load_faiss

_LEAST_WORK: Final = 1 << 18
"""Lists times dimensions: less is compared in full as fast."""
_LEAST_LISTS: Final = 640
"""FAISS calls fewer too few to learn codes from."""
_DIMS_PER_CODE: Final = 2
_COMPARED_AGAIN: Final = 2.0
"""So many times the wanted lists: among a million vectors and for 112 lists, 99.97 % of the right ones."""
_COMPARED_TO_ASSIGN: Final = 64.0
"""A vector is put into one list alone, and has to be found there ever after."""


def pays(lists: int, dim: int) -> bool:
    """Return whether finding some of so many lists by codes takes less time than comparing them all."""
    return lists >= _LEAST_LISTS and lists * dim >= _LEAST_WORK


def find_lists_by_codes(index: Any) -> None:
    """Let a trained IVF `index` of an even dimension, with hundreds of lists, find them by codes."""
    faiss = load_faiss()
    centroids = np.ascontiguousarray(index.quantizer.reconstruct_n(0, index.nlist))
    codes = faiss.IndexPQFastScan(index.d, index.d // _DIMS_PER_CODE, 4, index.metric_type)
    finder = faiss.IndexRefineFlat(codes)
    finder.train(centroids)
    finder.add(centroids)
    finder.k_factor = _COMPARED_AGAIN
    # Each owns what it searches with from here on, as an index that is read from a file does.
    codes.thisown = finder.thisown = False
    finder.own_fields = True
    index.quantizer.thisown = True
    index.quantizer = finder


@contextmanager
def assigning(index: Any) -> Iterator[None]:
    """Have an IVF `index` look at more lists for a vector that is put into one; nobody searches meanwhile."""
    faiss = load_faiss()
    finder = faiss.downcast_index(index.quantizer)
    if not isinstance(finder, faiss.IndexRefine):
        yield
        return
    finder.k_factor = _COMPARED_TO_ASSIGN
    try:
        yield
    finally:
        finder.k_factor = _COMPARED_AGAIN
