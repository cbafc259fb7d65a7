"""A guard that keeps one category from filling a slate."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.types import BoolArray, IndexArray, RankingBatch, RankingRequest


class AtMostPerCategory:
    """Allow at most `limit` items of one category in a slate; an item without a category is always allowed.

    It depends on the slots above, so it is not `static`: it is asked before the draw of each slot.
    """

    name = "at_most_per_category"
    fails = "closed"

    def __init__(self, categories: Path, limit: int = 2) -> None:
        """Read `categories`, a CSV file of item ids and categories without a header."""
        if limit < 1:
            raise InvalidPolicy(f"`limit` is {limit}, so that no item of any category could be shown. Try 2.")
        with categories.open(newline="", encoding="utf-8") as file:
            category_of: dict[str, str] = dict(csv.reader(file))
        items = np.array(sorted(category_of), dtype=np.str_)
        names, codes = np.unique([category_of[item] for item in items.tolist()], return_inverse=True)
        self._items: NDArray[np.str_] = items
        self._codes: IndexArray = codes
        self._none = len(names)
        self._limit = limit

    def eligible(
        self, request: RankingRequest, batch: RankingBatch, placed: IndexArray, slot: int
    ) -> BoolArray:
        """Return who is not of a category that the slots above `slot` have filled, (n,) bool."""
        codes = self._categories_of(batch.item_ids)
        placed_of = np.bincount(codes[placed], minlength=self._none + 1)
        placed_of[self._none] = 0
        return placed_of[codes] < self._limit

    def _categories_of(self, item_ids: NDArray[np.str_]) -> IndexArray:
        if not len(self._items):
            return np.full(len(item_ids), self._none)
        at = np.searchsorted(self._items, item_ids).clip(max=len(self._items) - 1)
        return np.where(self._items[at] == item_ids, self._codes[at], self._none)
