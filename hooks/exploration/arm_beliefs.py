"""What is expected of each candidate by its own arm, and how sure that is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.arm_store import ArmStore
from explorank.hooks.exploration.compiled import (
    FEATURES,
    FLAG,
    MATRIX,
    ROWS,
    SINGLE_MATRIX,
    WRITTEN_SINGLES,
    WRITTEN_VECTOR,
    kernel,
)
from explorank.hooks.types import FeatureArray, FloatArray, IndexArray


class ArmBeliefs:
    """The mean and the width of what each candidate is expected to earn, each by its own arm."""

    __slots__ = ("_features", "_places", "_store", "one_context")

    def __init__(self, store: ArmStore, places: IndexArray, features: FeatureArray) -> None:
        """Take the store's row of each candidate's arm, (n,), and the candidates' features, (n, d)."""
        self._store = store
        self._places = places
        self._features = features
        self.one_context = bool(len(features)) and _is_one(features)
        """Whether all candidates have the same features."""

    def moments(self, rows: IndexArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of `rows`, (len(rows),) each."""
        store, mean, deviation = self._store, np.empty(len(rows)), np.empty(len(rows))
        _moments(
            self._features,
            self.one_context,
            rows,
            self._places,
            store.mean,
            store.covariance,
            mean,
            deviation,
        )
        return mean, deviation

    def upper_bounds(self, rows: IndexArray, deviations: float) -> FloatArray:
        """Return mean + `deviations` standard deviations of `rows`, (len(rows),)."""
        mean, deviation = self.moments(rows)
        return mean + deviations * deviation

    def rough_upper_bounds(self, rows: IndexArray, deviations: float) -> NDArray[np.floating[Any]]:
        """Return `upper_bounds` in single precision where it suffices: to say who contends."""
        store = self._store
        mean, upper = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
        _moments(
            self._features,
            self.one_context,
            rows,
            self._places,
            store.rough_mean,
            store.rough_covariance,
            mean,
            upper,
        )
        with np.errstate(over="ignore", invalid="ignore"):
            upper *= deviations
            upper += mean
            finite = math.isfinite(float(upper.sum()))
        return upper if finite else self.upper_bounds(rows, deviations)


# A row's sums are added up in the same order wherever it stands.
@kernel(
    (FEATURES, FLAG, ROWS, ROWS, MATRIX, MATRIX, WRITTEN_VECTOR, WRITTEN_VECTOR),
    (FEATURES, FLAG, ROWS, ROWS, SINGLE_MATRIX, SINGLE_MATRIX, WRITTEN_SINGLES, WRITTEN_SINGLES),
    reorder=True,
)
def _moments(
    features: FeatureArray,
    one_context: bool,  # noqa: FBT001 - compiled code takes its arguments by position
    rows: IndexArray,
    places: IndexArray,
    means: NDArray[Any],
    covariances: NDArray[Any],
    mean: NDArray[Any],
    deviation: NDArray[Any],
) -> None:
    """Write the mean and the standard deviation of each of `rows`, in the precision of the arms' tables."""
    dim, size, nothing = means.shape[1], covariances.shape[1], means.dtype.type(0.0)
    context, squares = np.empty(dim, means.dtype), np.empty(size, means.dtype)
    for position in range(len(rows)):
        if position == 0 or not one_context:
            # xᵀSx is one product with the packed S: the off-diagonal entries count twice.
            at = 0
            for row in range(dim):
                context[row] = features[rows[position], row]
                twice = context[row] + context[row]
                for column in range(row):
                    squares[at + column] = twice * context[column]
                squares[at + row] = context[row] * context[row]
                at += row + 1
        place = places[rows[position]]
        expected, variance = nothing, nothing
        for column in range(dim):
            expected += means[place, column] * context[column]
        for entry in range(size):
            variance += covariances[place, entry] * squares[entry]
        mean[position] = expected
        # Rounding may leave less than nothing.
        deviation[position] = nothing if variance < nothing else np.sqrt(variance)


def _is_one(features: NDArray[Any]) -> bool:
    """Return whether all rows (n, d) are the same: features of the request, not of the candidates."""
    return features.strides[0] == 0 or bool((features == features[0]).all())
