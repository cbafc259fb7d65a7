"""The nearest of what a search found, in order: sorted by digits, in the same time whatever the similarities are."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._compiled import compiled

_BITS: Final = 11
"""Of a digit: three of them make up 32 bits, and their counts fit into the innermost cache."""
_DIGITS: Final = 3
_SIZE: Final = 1 << _BITS


@compiled
def nearest_first(
    similarities: NDArray[np.float32], labels: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the `k` greatest of `similarities` (m,), the greatest first, and their `labels`; no NaN, k ≤ m.

    Equal ones stay in the order they come in; 0 comes before -0.
    """
    count = len(similarities)
    bits = similarities.view(np.uint32)
    keys, places = np.empty((2, count), np.uint32), np.empty((2, count), np.int64)
    starts = np.zeros((_DIGITS, _SIZE), np.int64)
    for place in range(count):
        # As unsigned numbers, positive floats rise with their value and negative ones fall: falling keys for all.
        negative = bits[place] >> np.uint32(31)
        key = bits[place] if negative else np.uint32(0x7FFFFFFF) - bits[place]
        keys[0, place], places[0, place] = key, place
        for digit in range(_DIGITS):
            starts[digit, (key >> np.uint32(_BITS * digit)) & np.uint32(_SIZE - 1)] += 1
    now = 0
    for digit in range(_DIGITS):
        before = 0
        for value in range(_SIZE):
            before, starts[digit, value] = before + starts[digit, value], before
        for number in range(count):
            key = keys[now, number]
            value = (key >> np.uint32(_BITS * digit)) & np.uint32(_SIZE - 1)
            place = starts[digit, value]
            starts[digit, value] += 1
            keys[1 - now, place], places[1 - now, place] = key, places[now, number]
        now = 1 - now
    nearest, found = np.empty(k, np.float32), np.empty(k, np.int64)
    for number in range(k):
        nearest[number] = similarities[places[now, number]]
        found[number] = labels[places[now, number]]
    return nearest, found
