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
    for place in range(len(rows)):
        row = rows[place]
        total = np.float32(np.nan)
        if row >= 0:
            total = np.float32(0.0)
            for column in range(len(query)):
                total += vectors[row, column] * query[column]
        found[place] = total
