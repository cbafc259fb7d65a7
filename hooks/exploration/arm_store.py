"""Rows of numbers per arm that many states share: written once, never changed, found by their place.

A state of thousands of arms must be a value of its own, and copying all arms for each reward would cost more
than learning it. So a state holds places, and learning appends the rows that changed; a full store is
copied, the live rows only, into one half again as large. Appending is amortised to about three rows each.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

import numpy as np

from explorank.hooks.types import FeatureArray, FloatArray, IndexArray

_SMALLEST: Final = 64


class ArmStore:
    """An append-only table of what is known of each arm; readers need no lock."""

    def __init__(self, capacity: int, dim: int) -> None:
        triangle = dim * (dim + 1) // 2
        self.gram: Final[FloatArray] = np.zeros((capacity, triangle))
        """Σ w x xᵀ / noise², packed (C, t) with t = d (d + 1) / 2."""
        self.information: Final[FloatArray] = np.zeros((capacity, dim))
        """Σ w x (r - offset) / noise², (C, d)."""
        self.covariance: Final[FloatArray] = np.zeros((capacity, triangle))
        """Of the posterior, packed (C, t)."""
        self.mean: Final[FloatArray] = np.zeros((capacity, dim))
        """Of the posterior, (C, d)."""
        self.rough_covariance: Final[FeatureArray] = np.zeros((capacity, triangle), np.float32)
        """`covariance` rounded: half as much to read."""
        self.rough_mean: Final[FeatureArray] = np.zeros((capacity, dim), np.float32)
        """`mean` rounded."""
        self._used = 0
        self._claiming = Lock()

    @property
    def used(self) -> int:
        """How many rows have been claimed; rows below may belong to any state."""
        return self._used

    def append(
        self, gram: FloatArray, information: FloatArray, covariance: FloatArray, mean: FloatArray
    ) -> IndexArray | None:
        """Write rows (k, ...) and return their places (k,), or `None` where they no longer fit."""
        count = len(gram)
        with self._claiming:  # two threads may learn from one state; each gets rows of its own
            start = self._used
            if start + count > len(self.gram):
                return None
            self._used = start + count
        rows = slice(start, start + count)
        self.gram[rows], self.information[rows] = gram, information
        self.covariance[rows], self.mean[rows] = covariance, mean
        # A number beyond float32 becomes infinite, which the reader of the rough rows looks for.
        with np.errstate(over="ignore"):
            self.rough_covariance[rows], self.rough_mean[rows] = covariance, mean
        return np.arange(start, start + count)

    def grown(self, places: IndexArray, extra: int) -> ArmStore:
        """Return a store whose first rows are those at `places` (k,), with room for `extra` more and to spare."""
        live = len(places)
        larger = ArmStore(max(_SMALLEST, (live + extra) * 3 // 2), self.mean.shape[1])
        larger.gram[:live] = self.gram[places]
        larger.information[:live] = self.information[places]
        larger.covariance[:live] = self.covariance[places]
        larger.mean[:live] = self.mean[places]
        larger.rough_covariance[:live] = self.rough_covariance[places]
        larger.rough_mean[:live] = self.rough_mean[places]
        larger._used = live
        return larger
