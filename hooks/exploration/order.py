"""Who is best: the first of many by a number each, with ties broken by the seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.compiled import (
    INTEGER,
    MASK,
    ROWS,
    SINGLE_VECTOR,
    VECTOR,
    WORD,
    inlined,
    kernel,
)
from explorank.hooks.exploration.randomness import tie_key, tie_seed
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch


@kernel((VECTOR, ROWS, INTEGER, WORD), (SINGLE_VECTOR, ROWS, INTEGER, WORD))
def best(values: NDArray[np.floating[Any]], rows: IndexArray, count: int, seed: np.uint64) -> IndexArray:
    """Return the positions of the `count` largest of `values` (m,), the largest first.

    Where values are equal, the row (m,) with the smaller tie key comes first. None may be NaN.
    """
    count = min(count, len(values))
    # A heap of the best so far, with the one to be driven out first on top.
    heap, kept = np.arange(count), values[:count].copy()
    for place in range(count // 2 - 1, -1, -1):
        _settle(heap, kept, place, count, heap[place], kept[place], rows, seed)
    if count:
        for candidate in range(count, len(values)):
            value = values[candidate]
            # Most are turned away by this comparison alone.
            if value >= kept[0] and _ahead(value, candidate, kept[0], heap[0], rows, seed):
                _settle(heap, kept, 0, count, candidate, value, rows, seed)
    for place in range(count - 1, 0, -1):
        candidate, value = heap[place], kept[place]
        heap[place], kept[place] = heap[0], kept[0]
        _settle(heap, kept, 0, place, candidate, value, rows, seed)
    return heap


@inlined
def _ahead(
    value: float, position: int, other_value: float, other: int, rows: IndexArray, seed: np.uint64
) -> bool:
    if value != other_value:
        return bool(value > other_value)
    return bool(tie_key(rows[position], seed) < tie_key(rows[other], seed))


@inlined
def _settle(
    heap: IndexArray,
    kept: NDArray[np.floating[Any]],
    at: int,
    count: int,
    position: int,
    value: float,
    rows: IndexArray,
    seed: np.uint64,
) -> None:
    """Put an entry in at `at` and let it sink until nobody below is further behind."""
    while True:
        below = 2 * at + 1
        if below >= count:
            break
        right = below + 1
        if right < count and _ahead(kept[below], heap[below], kept[right], heap[right], rows, seed):
            below = right
        if not _ahead(value, position, kept[below], heap[below], rows, seed):
            break
        heap[at], kept[at] = heap[below], kept[below]
        at = below
    heap[at], kept[at] = position, value


@kernel((ROWS, WORD))
def in_key_order(rows: IndexArray, seed: np.uint64) -> IndexArray:
    """Return `rows` (m,), the smallest tie key first."""
    keys = np.empty(len(rows), np.uint64)
    for position in range(len(rows)):
        keys[position] = tie_key(rows[position], seed)
    return rows[np.argsort(keys)]


def best_by_score(batch: RankingBatch, possible: BoolArray, n_slots: int, seed: int) -> IndexArray:
    """Return the rows of the best `n_slots` of those `possible` (n,), the best first; fewer where there are fewer.

    It is the order of the slate with this seed in which no slot explores and no guard looks at the slots above.
    """
    rows: IndexArray = BestByScore(batch.score_values, tie_seed(seed), possible, n_slots).head
    return rows[:n_slots]


class BestByScore:
    """Who of those free has the highest score, asked slot by slot.

    Most slates need the head of the ranking alone, so only that is sorted; a slot for which nobody of it is
    left ranks all.
    """

    __slots__ = ("_possible", "_scores", "_seed", "head")

    def __init__(self, scores: FloatArray, seed: np.uint64, possible: BoolArray, depth: int) -> None:
        """Rank by `scores` (n,) those who are `possible` (n,), the best `depth` of them for now."""
        self._scores = scores
        self._seed = seed
        self._possible: IndexArray | None = possible.nonzero()[0]
        self.head: IndexArray = self._ranked(self._possible, depth)
        """The best `depth` or more, the very best first."""

    def among(self, free: BoolArray) -> int:
        """Return the best of `free` (n,), all of them possible; the smaller key wins a tie.

        Where nobody is free, the row that is returned is not.
        """
        row: int = first_free(self.head, free)
        if row < 0 and self._possible is not None:
            self.head = self._ranked(self._possible, len(self._possible))
            self._possible = None
            row = first_free(self.head, free)
        return max(row, 0)

    def _ranked(self, rows: IndexArray, depth: int) -> IndexArray:
        scores = self._scores if len(rows) == len(self._scores) else self._scores[rows]
        ranked: IndexArray = rows[best(scores, rows, depth, self._seed)]
        return ranked


@kernel((ROWS, MASK))
def first_free(ranking: IndexArray, free: BoolArray) -> int:
    """Return the first of `ranking` (k,) that is `free` (n,), -1 where none is."""
    found = -1
    for row in ranking:
        if free[row]:
            found = row
            break
    return found
