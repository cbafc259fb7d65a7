"""Products of a query with single rows of a matrix that may lie on disk: read where they are, not copied."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._compiled import compiled_in_any_order


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
