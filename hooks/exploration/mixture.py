"""The winners of a request share its probability, all but a part that is spread evenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorank.hooks.exploration.sampling import Winners
from explorank.hooks.types import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class WinnerMixture:
    """The highest values share 1 - `uniform` of the probability, all eligible candidates share `uniform`."""

    values: FloatArray  # (n,) higher is better, +inf allowed
    uniform: float

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return (1 - u) · [i is best] / #{best} + u / #{eligible}, (n,) float64."""
        winners = eligible & (self.values == self.values[eligible].max())
        distribution: FloatArray = winners * ((1.0 - self.uniform) / np.count_nonzero(winners))
        distribution += eligible * (self.uniform / np.count_nonzero(eligible))
        return distribution

    def drawable(self, eligible: BoolArray) -> Winners:
        """Return the same without a number per candidate."""
        values = np.where(eligible, self.values, -np.inf)
        best = values.argmax()
        winners = (values == values[best]).nonzero()[0]
        if len(winners) > 1:
            winners = winners[eligible[winners]]  # the best may be -inf, like what is not eligible
        return Winners(winners, eligible, self.uniform)
