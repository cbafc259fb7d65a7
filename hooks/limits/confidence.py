"""Bounds on a running mean that hold at every moment at once, however often one looks and whenever one stops.

Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals
of Statistics 49 (2021): the empirical-Bernstein bound of their Theorem 4 with the gamma-exponential mixture of
their Proposition 9.

**What is assumed.** Each value x_i lies in [minimum, maximum], whatever came before. Nothing else: the values
may depend on one another, and their means may change.

**What is covered.** m_i is the mean of x_i given all before it. With probability at least 1 - error, the bound
holds for (m_1 + ... + m_n) / n at all n simultaneously. That target moves with n, so bounds from different
moments may not be intersected.

**Why.** Let c = maximum - minimum and p_i, in [minimum, maximum], be known before x_i. Since x_i - p_i >= -c,
exp(l (x_i - m_i) - psi(l) (x_i - p_i)^2), with psi(l) = (-log(1 - c l) - c l) / c^2, has a conditional mean of
at most 1 for each l in [0, 1/c) (Fan, Grama and Liu 2015, Lemma 4.1). The product over i, mixed over l by a
density, is then a nonnegative supermartingale that begins at 1, and it ever exceeds 1 / error with probability
at most error (Ville). Here p_i is the running mean of what came before, so that the bound follows the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc, gammaln

from explorank.hooks.errors import CorruptState, InvalidBatch
from explorank.hooks.types import FloatArray

Packed: TypeAlias = tuple[int, float, float]
"""A sequence as JSON holds it: count, total, squares."""

_OPTIMUM: Final = 100.0
_STEPS: Final = 60


def deviation(squares: ArrayLike, error: float, *, optimum: float = _OPTIMUM) -> FloatArray:
    """Return how far the sum of x_i - m_i may rise, for values in a range of width 1; the shape of `squares`.

    `squares` is the sum of (x_i - p_i)^2. With probability at least 1 - `error` the sum of x_i - m_i stays
    below this at all times; by symmetry, as much for its fall. The bound is tightest near `squares = optimum`
    and valid everywhere; the default suits some hundreds of clicks
    to some thousands.
    """
    v = np.asarray(squares, dtype=np.float64)
    # One-sided: the mixture's density is tuned as for twice the error on two sides.
    tail = np.log(1.0 / min(2.0 * error, 0.9))
    rho = optimum / (2.0 * tail + np.log1p(2.0 * tail))
    shape = v + rho
    target = np.log(1.0 / error)
    constant = rho * np.log(rho) - gammaln(rho) - np.log(gammainc(rho, rho)) + v + gammaln(shape)
    s = np.sqrt(2.0 * shape * (target + 1.0)) + target
    for _ in range(_STEPS):
        # The logarithm of the mixture is convex and rises, so Newton's steps come down to the root from above.
        x = s + shape
        mass = gammainc(shape, x)
        value = constant + s + np.log(mass) - shape * np.log(x) - target
        slope = s / x + np.exp((shape - 1.0) * np.log(x) - x - gammaln(shape)) / mass
        step = value / slope
        s = np.maximum(s - step, 0.0)
        if np.all(np.abs(step) <= 1e-10 * (1.0 + s)):
            break
    result: FloatArray = s * (1.0 + 1e-9)  # on the safe side of rounding
    return result


@dataclass(frozen=True, slots=True)
class BoundedMean:
    """What is known of the running mean of values in [minimum, maximum]: three numbers, whatever the count."""

    minimum: float
    maximum: float
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    """The sum of (x_i - p_i)^2, where p_i is the mean of the values before x_i; the middle, before any."""

    def plus(self, values: ArrayLike) -> Self:
        """Return what is known after `values` (m,) in their order; one after the other gives the same.

        Raises `InvalidBatch` for a value outside the bounds, which would void them.
        """
        x = np.asarray(values, dtype=np.float64).reshape(-1)
        if not len(x):
            return self
        if not ((x >= self.minimum) & (x <= self.maximum)).all():
            raise InvalidBatch(
                f"A value of {x[~((x >= self.minimum) & (x <= self.maximum))][0]} lies outside [{self.minimum}, "
                f"{self.maximum}], so that no bound on the mean would hold. Clip the values, or widen the bounds."
            )
        before = self.count + np.arange(len(x))
        totals = self.total + np.concatenate(([0.0], np.cumsum(x)))
        # The middle counts as one value before the first, so that the first guess is inside the bounds too.
        guesses = ((self.minimum + self.maximum) / 2 + totals[:-1]) / (before + 1)
        guesses = np.clip(guesses, self.minimum, self.maximum)
        return replace(
            self,
            count=self.count + len(x),
            total=float(totals[-1]),
            squares=self.squares + float(((x - guesses) ** 2).sum()),
        )

    def joined(self, other: BoundedMean) -> Self:
        """Return what is known of both sequences as one, in whatever order they interleaved.

        Each guess was made from a part of what came before, so it was still made before its value.
        """
        return replace(
            self,
            count=self.count + other.count,
            total=self.total + other.total,
            squares=self.squares + other.squares,
        )

    @property
    def mean(self) -> float | None:
        """The mean of the values, or `None` before any."""
        return self.total / self.count if self.count else None

    def lower_total(self, error: float) -> float:
        """Return what the sum of the m_i exceeds, at all times, with probability at least 1 - `error`."""
        return max(self.total - self._width(error), self.count * self.minimum)

    def upper_total(self, error: float) -> float:
        """Return what the sum of the m_i stays below, at all times, with probability at least 1 - `error`."""
        return min(self.total + self._width(error), self.count * self.maximum)

    def lower(self, error: float) -> float:
        """Return what the mean of the m_i exceeds, at all times, with probability at least 1 - `error`."""
        return self.lower_total(error) / self.count if self.count else self.minimum

    def upper(self, error: float) -> float:
        """Return what the mean of the m_i stays below, at all times, with probability at least 1 - `error`."""
        return self.upper_total(error) / self.count if self.count else self.maximum

    def _width(self, error: float) -> float:
        span = self.maximum - self.minimum
        return span * float(deviation(self.squares / span**2, error))

    def packed(self) -> Packed:
        """Return the three numbers, for JSON."""
        return self.count, self.total, self.squares

    def unpacked(self, packed: Sequence[float]) -> Self:
        """Return the sequence of the same bounds that `packed` holds; raise `CorruptState` for anything else."""
        try:
            count, total, squares = packed
            return replace(self, count=int(count), total=float(total), squares=float(squares))
        except (TypeError, ValueError) as error:
            raise CorruptState(
                f"A saved mean holds {packed!r} instead of count, total and squares; no bound can be told from "
                "it. The learner rebuilds its state from the log."
            ) from error
