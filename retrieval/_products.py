"""Products of a query with single rows of a matrix that may lie on disk: read where they are, not copied."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._compiled import compiled, compiled_in_any_order
from explorank.retrieval._prefetch import prefetch

_LINE: Final = 16
"""So many floats have a cache line."""
_AHEAD: Final = 8 * _LINE
"""So much of a row is asked for while those before it are read; what follows the processor fetches by itself. Shorter
rows gain nothing by it."""


# Apart: within the loop below, it keeps the compiler from vectorising rows of 96 or 112 dimensions.
@compiled
def _ask_for(vectors: NDArray[np.float32], rows: NDArray[np.int64], first: int, end: int) -> None:
    """Have the beginnings of the rows at `first` to `end` - 1 loaded."""
    for place in range(first, end):
        for column in range(0, _AHEAD, _LINE):
            prefetch(vectors, rows[place], column)


@compiled_in_any_order
def products(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    query: NDArray[np.float32],
    found: NDArray[np.float32],
) -> None:
    """Write the product of `query` (d,) with each of `rows` (m,) of `vectors` (n, d) to `found` (m,), NaN for -1."""
    # Four rows side by side: the processor waits for the memory of all of them at once.
    count, dim = len(rows), len(query)
    if not len(vectors):
        found[:] = np.float32(np.nan)
        return
    for first in range(0, count, 4):
        if dim > _AHEAD:
            _ask_for(vectors, rows, first + 4, min(first + 8, count))
        a = max(rows[first], 0)
        b = max(rows[min(first + 1, count - 1)], 0)
        c = max(rows[min(first + 2, count - 1)], 0)
        d = max(rows[min(first + 3, count - 1)], 0)
        total_a = total_b = total_c = total_d = np.float32(0.0)
        for column in range(dim):
            value = query[column]
            total_a += vectors[a, column] * value
            total_b += vectors[b, column] * value
            total_c += vectors[c, column] * value
            total_d += vectors[d, column] * value
        totals = (total_a, total_b, total_c, total_d)
        for place in range(first, min(first + 4, count)):
            found[place] = totals[place - first] if rows[place] >= 0 else np.float32(np.nan)
