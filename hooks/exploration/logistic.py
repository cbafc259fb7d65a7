"""The logistic function, and the posterior of a logistic regression."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.types import FloatArray

# Newton's method needs about five; each is halved until it descends.
_MOST_STEPS: Final = 100
_MOST_HALVINGS: Final = 1_100  # from the largest float64 to the smallest


def sigmoid(log_odds: FloatArray) -> FloatArray:
    """Return S(z) = 1 / (1 + exp(-z)) of each z, exact in both tails."""
    # `scipy.special` has it too, at a sixth of a second of imports.
    decay = np.exp(-np.abs(log_odds))
    share: FloatArray = np.where(log_odds >= 0.0, 1.0, decay) / (1.0 + decay)
    return share


def laplace(
    mean: FloatArray,
    precision: FloatArray,
    features: NDArray[np.floating[Any]],
    values: FloatArray,
    weights: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return mode (d,) and curvature (d, d) of the posterior N(mean, precision⁻¹) · likelihood of m rewards.

    The loss is strictly convex, so Newton's method with steps halved until they descend finds its minimum from
    anywhere. Raises `numpy.linalg.LinAlgError` where the numbers have none in float64.
    """
    if not len(values):
        return mean, precision
    x = features.astype(np.float64)
    theta, log_odds = mean, x @ mean
    loss = _loss(np.zeros(len(mean)), precision, log_odds, values, weights)
    for _ in range(_MOST_STEPS):
        # Both tails by themselves: a share that is nearly 1 has lost the digits of what it lacks.
        share, rest = sigmoid(log_odds), sigmoid(-log_odds)
        gradient = precision @ (theta - mean) + (weights * ((1.0 - values) * share - values * rest)) @ x
        curvature = precision + (x.T * (weights * share * rest)) @ x
        step = np.linalg.solve(curvature, -gradient)
        slope = float(gradient @ step)
        if not np.isfinite(slope):
            raise np.linalg.LinAlgError("the loss is not finite")
        if slope >= -1e-24 * abs(loss):  # what is left to gain is below rounding
            theta = theta + step
            break
        moved = x @ step
        for _ in range(_MOST_HALVINGS):
            following = _loss(theta + step - mean, precision, log_odds + moved, values, weights)
            if following <= loss + 1e-4 * slope or abs(following - loss) <= 1e-15 * abs(loss):
                break
            step, moved, slope = step / 2.0, moved / 2.0, slope / 2.0
        theta, log_odds, loss = theta + step, log_odds + moved, following
    log_odds = x @ theta
    return theta, precision + (x.T * (weights * sigmoid(log_odds) * sigmoid(-log_odds))) @ x


def _loss(
    gap: FloatArray, precision: FloatArray, log_odds: FloatArray, values: FloatArray, weights: FloatArray
) -> float:
    surprise = values * np.logaddexp(0.0, -log_odds) + (1.0 - values) * np.logaddexp(0.0, log_odds)
    return float(gap @ precision @ gap / 2.0 + weights @ surprise)
