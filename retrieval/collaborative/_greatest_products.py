"""The greatest inner products of a query with the rows of a matrix, exactly, in rows that fall in length.

By Cauchy and Schwarz no product exceeds the product of both lengths. Where that is no more than the least of the
best so far, neither the row nor any after it can be among them, and the scan ends (LEMP of Teflioudi et al. 2015,
with length alone).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._compiled import compiled_in_any_order


@compiled_in_any_order
def greatest_products(
    vectors: NDArray[np.float32], lengths: NDArray[np.float32], query: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the positions (m,) and products of the `count` greatest of `vectors` (n, d) with `query` (d,), 0 < m ≤ n.

    They come in no order. `lengths` (n,) of the rows fall, and none is less than the row's true length.
    """
    total, dim = vectors.shape
    kept = min(count, total)
    # A heap with the least of the best so far on top.
    positions, products = np.empty(kept, np.int64), np.full(kept, -np.inf, np.float32)
    square = np.float32(0.0)
    for column in range(dim):
        square += query[column] * query[column]
    # Rounding in float32 must not end the scan early.
    reach = np.sqrt(square) * np.float32(1.00001)
    for row in range(total):
        if lengths[row] * reach <= products[0] and row >= kept:
            break
        product = np.float32(0.0)
        for column in range(dim):
            product += vectors[row, column] * query[column]
        if product <= products[0] and row >= kept:
            continue
        place = 0
        while True:
            child = 2 * place + 1
            if child >= kept:
                break
            if child + 1 < kept and products[child + 1] < products[child]:
                child += 1
            if products[child] >= product:
                break
            positions[place], products[place] = positions[child], products[child]
            place = child
        positions[place], products[place] = row, product
    return positions, products
