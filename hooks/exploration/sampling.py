"""The numerical care of drawing: distributions checked, one item drawn, ties broken without a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.types import BoolArray, FloatArray, IndexArray

_SUM_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Distribution:
    """A policy's answer for one slot, checked and ready to draw from."""

    probabilities: FloatArray  # (n,)
    cumulative: FloatArray  # (n,)
    support: BoolArray  # (n,) where the probability is above 0

    @classmethod
    def of(cls, probabilities: FloatArray, eligible: BoolArray, policy: str) -> Distribution:
        """Return the distribution over `eligible` (n,) that the policy of that name gave.

        Raises `InvalidPolicy` where an entry is negative or not a number, an ineligible item has a share,
        or the sum is not 1 within 1e-9.
        """
        if probabilities.shape != eligible.shape:
            raise InvalidPolicy(
                f"Policy {policy!r} returned a distribution of shape {probabilities.shape} for "
                f"{len(eligible)} candidates; it must be ({len(eligible)},). Return one probability each."
            )
        # Counting is numpy's fastest way to ask whether any entry is true, and this runs for every slot.
        cumulative = probabilities.cumsum()
        total = float(cumulative[-1])
        negative = np.count_nonzero(probabilities < 0.0)
        # Written so that a NaN fails it too.
        if not abs(total - 1.0) <= _SUM_TOLERANCE or negative:
            raise InvalidPolicy(
                f"Policy {policy!r} returned a distribution with sum {total!r} and {negative} negative "
                "entries; it must sum to 1 and have none, or the logged propensities are not those of the "
                "draw. Divide by the sum."
            )
        support = probabilities > 0.0
        if np.count_nonzero(support > eligible):
            raise InvalidPolicy(
                f"Policy {policy!r} gave a probability to a candidate that the guards removed; a blocked "
                "item must never be shown. Set the entries outside `eligible` to 0."
            )
        return cls(probabilities, cumulative, support)

    def draw(self, uniform: float) -> int:
        """Return the row that `uniform` in [0, 1) picks, by inversion of the cumulative sums.

        A row of probability 0 has the cumulative sum of the row before it, hence is never picked.
        """
        total = self.cumulative[-1]
        row = int(self.cumulative.searchsorted(uniform * total, side="right"))
        # The product may round up to the total; the last row that raised the sum is meant then.
        return row if row < len(self.cumulative) else int(self.cumulative.searchsorted(total))

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""
        return float(self.probabilities[row] / self.cumulative[-1])


def ranked(scores: FloatArray, keys: FloatArray) -> IndexArray:
    """Return the rows from the highest score to the lowest, (n,); the smaller key wins a tie."""
    falling = -scores
    order: IndexArray = np.argsort(falling)
    in_order = falling[order]
    if (in_order[1:] == in_order[:-1]).any():
        order = np.lexsort((keys, falling))  # several times slower, and only needed where scores tie
    return order


def top(values: NDArray[np.floating[Any]], keys: FloatArray, count: int) -> IndexArray:
    """Return the positions, ascending, of the `count` largest values; the smaller key wins a tie."""
    if len(values) <= count:
        return np.arange(len(values))
    threshold = np.partition(values, -count)[-count]
    sure = np.flatnonzero(values > threshold)
    tied = np.flatnonzero(values == threshold)
    missing = count - len(sure)
    if missing < len(tied):
        tied = tied[np.argpartition(keys[tied], missing - 1)[:missing]]
    return np.sort(np.concatenate((sure, tied)))
