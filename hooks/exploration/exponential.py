"""Probabilities proportional to exponentials: the distribution of softmax, Plackett-Luce and EXP3.

Only differences of values matter, so they are measured against the best of the request before they meet
`exp`. Weights are computed once for all slots; a slot adds up those still eligible. Where the leaders are
placed, or barred, and the others are faint beside them, that slot measures against its own best.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from explorank.hooks.types import BoolArray, FloatArray

# What is this far below the best weighs nothing: exp(-700) is 1e-304, below which numbers lose digits.
_LOWEST: Final = -700.0
# A total below this is measured anew. Halfway (in logarithms) to the lowest weight: a share that is lost at
# either end is below 1e-150.
_FAINT: Final = 1e-152


class ExponentialWeights:
    """A contest in which p(i) = (1 - u) · exp(v_i / T) / Σ_j exp(v_j / T) + u / #{eligible}.

    A softmax share below 1e-150 counts as 0. Any finite values, temperatures from the smallest positive
    number to infinity, and ties have an answer; adding a constant to all values changes it by rounding only.
    """

    def __init__(self, values: FloatArray, temperature: float, uniform: float) -> None:
        self._values: Final = values
        self._temperature: Final = temperature
        self._uniform: Final = uniform
        self._weights: Final = self._against(values.max())

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return the probabilities, (n,) float64."""
        weights = self._weights * eligible
        total = weights.sum()
        if total < _FAINT:
            weights = self._against(self._values[eligible].max()) * eligible
            total = weights.sum()
        weights *= (1.0 - self._uniform) / total
        if self._uniform:
            weights += eligible * (self._uniform / np.count_nonzero(eligible))
        return weights

    def _against(self, best: float) -> FloatArray:
        """Return exp((v - best) / T), (n,); 1 for what is better, which can't be eligible."""
        with np.errstate(over="ignore"):  # an infinite distance weighs nothing, as it should
            gaps = np.minimum((self._values - best) / self._temperature, 0.0)
        weights: FloatArray = np.exp(gaps, where=gaps > _LOWEST, out=np.zeros(len(gaps)))
        return weights
