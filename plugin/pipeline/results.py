"""Intervals as cards hold them."""

from __future__ import annotations

import math

from explorank.model_card import Estimate
from explorank.pipeline.metrics import Interval


def estimate(interval: Interval) -> Estimate:
    """Return the interval as plain numbers, None where nothing was measured."""
    mean, low, high = (
        float(number) if math.isfinite(number) else None
        for number in (interval.mean, interval.low, interval.high)
    )
    return Estimate(mean, low, high)
