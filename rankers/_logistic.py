"""The logistic function, and logistic regression by Newton's method: small, convex, and without a library."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_STEPS: Final = 100
_CONVERGED: Final = 1e-10


def logistic(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + e^-raw), of any shape, without overflow."""
    chances: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * raw)
    return chances


def logistic_regression(
    columns: NDArray[np.float64],
    targets: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    *,
    penalty: float,
) -> tuple[NDArray[np.float64], float]:
    """Return slopes (c,) and intercept of the most probable logistic model of `targets` in [0, 1], (n,).

    `columns` is (n, c), of comparable scales. `penalty` / 2 times the squared slopes is added to the summed log loss,
    the intercept left free; a penalty above 0 makes the answer unique and finite. Newton's method, each step halved
    until the loss falls.
    """
    n, c = columns.shape
    weigh = np.ones(n) if weights is None else weights
    design = np.column_stack([columns, np.ones(n)])
    ridge = np.append(np.full(c, penalty), 1e-9)
    mean = float(np.clip(np.average(targets, weights=weigh), 1e-6, 1.0 - 1e-6))
    theta = np.append(np.zeros(c), np.log(mean / (1.0 - mean)))

    def loss(at: NDArray[np.float64]) -> float:
        raw = design @ at
        return float(weigh @ (np.logaddexp(0.0, raw) - targets * raw) + 0.5 * ridge @ (at * at))

    now = loss(theta)
    for _ in range(_STEPS):
        chances = logistic(design @ theta)
        gradient = design.T @ (weigh * (chances - targets)) + ridge * theta
        curvature = (design * (weigh * chances * (1.0 - chances))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while (then := loss(theta - length * step)) > now and length > 1e-8:
            length /= 2.0
        theta, gained, now = theta - length * step, now - then, then
        if gained <= _CONVERGED * (1.0 + abs(now)):
            break
    return theta[:c], float(theta[c])
