"""Distributions over the candidates of one slot: checked, and in whatever form is cheapest to draw from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration.compiled import FLOAT, INTEGER, ROWS, VECTOR, WRITTEN_MASK, kernel
from explorank.hooks.types import BoolArray, FloatArray, IndexArray

_SUM_TOLERANCE: Final = 1e-9


class SlotDistribution(Protocol):
    """A distribution over the candidates of one slot, in whatever form is cheapest to draw from."""

    def draw(self, uniform: float) -> int:
        """Return the row that `uniform` in [0, 1) picks; of all of them, each row's share picks it."""

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""

    def mark(self, support: BoolArray) -> None:
        """Set True in `support` (n,), all False so far, where the probability is above 0."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A policy's answer for one slot, one number per candidate, checked and ready to draw from."""

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
        cumulative = probabilities.cumsum()
        total = float(cumulative[-1])
        # Written so that a NaN fails it too.
        if not abs(total - 1.0) <= _SUM_TOLERANCE or probabilities.min() < 0.0:
            raise InvalidPolicy(
                f"Policy {policy!r} returned a distribution with sum {total!r} and "
                f"{np.count_nonzero(probabilities < 0.0)} negative entries; it must sum to 1 and have none, or "
                "the logged propensities are not those of the draw. Divide by the sum."
            )
        support = probabilities > 0.0
        # Counting is numpy's fastest way to ask whether any entry is true, and this runs for every slot.
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
        cumulative, total = self.cumulative, self.cumulative[-1]
        at = int(cumulative.searchsorted(uniform * total, side="right"))
        # The product may round up to the total; the last entry that raised the sum is meant then.
        return at if at < len(cumulative) else int(cumulative.searchsorted(total))

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""
        return float(self.probabilities[row] / self.cumulative[-1])

    def mark(self, support: BoolArray) -> None:
        """Set True in `support` (n,) where the probability is above 0."""
        support[:] = self.support


class Shares:
    """A distribution over few of the candidates: the others have probability 0, and cost nothing."""

    __slots__ = ("_probabilities", "_rows", "_total")

    def __init__(self, rows: IndexArray, probabilities: FloatArray) -> None:
        """Take distinct `rows` (p,) and the probability of each, (p,), which sum to 1 but for rounding."""
        self._rows = rows
        self._probabilities = probabilities
        self._total = total(probabilities)

    def draw(self, uniform: float) -> int:
        """Return the row that `uniform` in [0, 1) picks, by inversion of the cumulative sums."""
        return drawn_row(self._rows, self._probabilities, uniform * self._total)

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""
        return share_of(self._rows, self._probabilities, row) / self._total

    def mark(self, support: BoolArray) -> None:
        """Set True in `support` (n,) where the probability is above 0."""
        mark(self._rows, self._probabilities, support)

    def dense(self, n: int) -> FloatArray:
        """Return one number per candidate, (n,) float64."""
        probabilities = np.zeros(n)
        probabilities[self._rows] = self._probabilities
        return probabilities


@kernel((VECTOR,))
def total(probabilities: FloatArray) -> float:
    """Return the sum of `probabilities` (p,), added up in their order, as `drawn_row` does."""
    whole = 0.0
    for probability in probabilities:
        whole += probability
    return whole


@kernel((ROWS, VECTOR, FLOAT))
def drawn_row(rows: IndexArray, probabilities: FloatArray, at: float) -> int:
    """Return the first of `rows` (p,) where the running sum exceeds `at`, or the last that has a probability."""
    passed, last = 0.0, 0
    for position in range(len(rows)):
        if probabilities[position] > 0.0:
            last = position
            passed += probabilities[position]
            if passed > at:
                break
    found: int = rows[last]
    return found


@kernel((ROWS, VECTOR, INTEGER))
def share_of(rows: IndexArray, probabilities: FloatArray, row: int) -> float:
    """Return the probability of `row`, 0 where it is none of `rows` (p,)."""
    for position in range(len(rows)):
        if rows[position] == row:
            probability: float = probabilities[position]
            return probability
    return 0.0


@kernel((ROWS, VECTOR, WRITTEN_MASK))
def mark(rows: IndexArray, probabilities: FloatArray, support: BoolArray) -> None:
    """Set True in `support` (n,) for those of `rows` (p,) with a probability above 0."""
    for position in range(len(rows)):
        if probabilities[position] > 0.0:
            support[rows[position]] = True
