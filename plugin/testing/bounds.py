"""How far chance may carry a mean: bounds that hold at any sample size, so that a false alarm has a known rate.

A normal approximation would be narrower, and wrong where an item is drawn a handful of times.
"""

from __future__ import annotations

import math

import numpy as np

from explorank.hooks.types import FloatArray


def freedman(variance: FloatArray, largest: FloatArray, false_alarm: float) -> FloatArray:
    """Return what the absolute value of a sum of martingale differences passes with `false_alarm` at most.

    `variance` is the sum of the conditional variances, `largest` bounds each difference. Freedman, *On Tail
    Probabilities for Martingales* (1975), solved for the deviation.
    """
    log = math.log(2.0 / false_alarm)
    drift = largest * (log / 3.0)
    bound: FloatArray = drift + np.hypot(drift, np.sqrt(2.0 * log * variance))
    return bound


def empirical_bernstein(samples: FloatArray, width: float, false_alarm: float) -> FloatArray:
    """Return how far the means of `samples` (m, …) lie from their expectations, but for `false_alarm`.

    Samples are independent, in an interval of length `width`. Maurer and Pontil, *Empirical Bernstein Bounds
    and Sample Variance Penalization* (2009), theorem 4, on both sides.
    """
    count = len(samples)
    log = math.log(4.0 / false_alarm)
    spread = np.sqrt(2.0 * log / count * samples.var(axis=0, ddof=1))
    bound: FloatArray = spread + 7.0 * width * log / (3.0 * (count - 1))
    return bound
