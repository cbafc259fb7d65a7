"""The bounds hold at all times at once, and are what an integral computed otherwise says they are."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from explorank.hooks.errors import CorruptState, InvalidBatch
from explorank.hooks.limits.confidence import BoundedMean, deviation


def mixture(s: float, v: float, error: float, optimum: float) -> float:
    """The mean of exp(l s - psi(l) v) over l, with the density of 1 - l proportional to Gamma(rho, rho) on (0, 1]."""
    tail = math.log(1.0 / min(2.0 * error, 0.9))
    rho = optimum / (2.0 * tail + math.log1p(2.0 * tail))

    def density(u: float) -> float:
        return math.exp((rho - 1.0) * math.log(u) - rho * u + rho)

    def inner(u: float) -> float:
        growth = (1.0 - u) * (s + v) + v * math.log(u)
        return math.exp(growth) * density(u)

    total, _ = quad(density, 0.0, 1.0, limit=500)
    mean, _ = quad(inner, 0.0, 1.0, limit=500, points=[v / (s + v) if s + v else 0.5])
    return mean / total


@pytest.mark.parametrize("error", [0.2, 0.025, 0.0005])
@pytest.mark.parametrize("squares", [0.0, 0.3, 7.0, 120.0])
@pytest.mark.parametrize("optimum", [5.0, 100.0])
def test_the_bound_is_where_the_mixture_reaches_one_in_the_error(
    squares: float, error: float, optimum: float
) -> None:
    at = float(deviation(squares, error, optimum=optimum))
    assert mixture(at, squares, error, optimum) == pytest.approx(1.0 / error, rel=1e-4)


def test_the_bound_stays_finite_and_near_the_law_of_large_numbers_rate() -> None:
    """Beside sqrt(2 v log(1 / error)), which is right for one moment only, it is at most twice as wide."""
    squares = np.array([1e3, 1e5, 1e7, 1e9])
    ratio = deviation(squares, 0.01) / np.sqrt(2.0 * squares * math.log(100.0))
    assert (ratio > 1.0).all()
    assert (ratio < 2.0).all()
    assert (np.diff(deviation(np.linspace(0.0, 1e4, 101), 0.01)) > 0).all()


def sums_of_squares(x: np.ndarray) -> np.ndarray:
    """Of (runs, n) values in [0, 1], running; computed apart from the class."""
    before = np.arange(x.shape[1])
    guesses = (0.5 + np.cumsum(x, axis=1) - x) / (before + 1)
    return np.cumsum((x - guesses) ** 2, axis=1)


@pytest.mark.parametrize("error", [0.05, 0.25])
def test_the_running_mean_of_moving_means_is_covered_at_all_times(error: float) -> None:
    """2,000 runs of 2,000 values whose means move with what came before; looked at after each.

    The share of runs that ever leave the bound must be at most the error; it is allowed 3 standard deviations
    of 2,000 draws more, so that a bound that is exactly right fails for one seed in 700. The seed is fixed.
    """
    chance = np.random.default_rng(11)
    runs, n = 2000, 2000
    x, means, state = np.empty((runs, n)), np.empty((runs, n)), np.zeros(runs)
    for at in range(n):
        means[:, at] = np.clip(0.1 + 0.3 * state + 0.05 * np.sin(at / 50.0), 0.0, 1.0)
        x[:, at] = chance.random(runs) < means[:, at]
        state = 0.95 * state + 0.05 * x[:, at]
    squares, excess = sums_of_squares(x), np.cumsum(x - means, axis=1)
    grid = np.linspace(0.0, squares.max(), 2000)
    # Rounded down to the grid, so that the bound tested is a little tighter than the real one.
    bound = deviation(grid, error)[np.searchsorted(grid, squares, side="right") - 1]
    allowed = error + 3.0 * math.sqrt(error * (1.0 - error) / runs)
    assert (excess > bound).any(axis=1).mean() <= allowed
    assert (-excess > bound).any(axis=1).mean() <= allowed
    # The normal interval for one moment is left far more often by those who look at every moment.
    once = norm.isf(error) * np.sqrt(squares)
    assert (excess > once)[:, 20:].any(axis=1).mean() > allowed


def test_by_hand() -> None:
    """Guesses: the middle 1, then (1 + 2) / 2, then (1 + 2 + 0) / 3."""
    mean = BoundedMean(0.0, 2.0).plus([2.0, 0.0, 1.0])
    assert (mean.count, mean.total, mean.mean) == (3, 3.0, 1.0)
    assert mean.squares == pytest.approx(1.0 + 1.5**2 + 0.0)
    width = 2.0 * float(deviation(mean.squares / 4.0, 0.05))
    assert mean.upper_total(0.05) == 6.0  # what three values may be at most, below 3 + width
    assert width > 3.0
    assert mean.lower(0.05) == 0.0


def test_nothing_is_known_before_the_first_value() -> None:
    nothing = BoundedMean(-1.0, 3.0)
    assert (nothing.mean, nothing.lower(0.05), nothing.upper(0.05)) == (None, -1.0, 3.0)
    assert nothing.plus([]) is nothing


@given(
    st.lists(st.floats(-1.0, 3.0), min_size=1, max_size=30),
    st.integers(0, 30),
)
def test_one_by_one_or_in_batches_is_the_same(values: list[float], cut: int) -> None:
    whole = BoundedMean(-1.0, 3.0).plus(values)
    parts = BoundedMean(-1.0, 3.0).plus(values[:cut]).plus(values[cut:])
    single = BoundedMean(-1.0, 3.0)
    for value in values:
        single = single.plus([value])
    for other in (parts, single):
        assert other.count == whole.count
        assert other.total == pytest.approx(whole.total, abs=1e-12)
        assert other.squares == pytest.approx(whole.squares, rel=1e-9, abs=1e-12)
    assert -1.0 <= whole.lower(0.1) <= whole.upper(0.1) <= 3.0


def test_scale_and_origin_do_not_matter() -> None:
    chance = np.random.default_rng(3)
    x = chance.random(4000)
    plain, moved = BoundedMean(0.0, 1.0).plus(x), BoundedMean(-5.0, 5.0).plus(10.0 * x - 5.0)
    assert moved.lower(0.01) == pytest.approx(10.0 * plain.lower(0.01) - 5.0)
    assert moved.upper(0.01) == pytest.approx(10.0 * plain.upper(0.01) - 5.0)


def test_two_sequences_join_into_one_that_knows_more() -> None:
    chance = np.random.default_rng(4)
    one, other = (
        BoundedMean(0.0, 1.0).plus(chance.random(500)),
        BoundedMean(0.0, 1.0).plus(chance.random(900)),
    )
    both = one.joined(other)
    assert (both.count, both.total) == (1400, one.total + other.total)
    assert both.upper(0.05) - both.lower(0.05) < other.upper(0.05) - other.lower(0.05)


def test_it_packs_to_json_and_back() -> None:
    mean = BoundedMean(0.0, 1.0).plus([0.25, 1.0, 0.1])
    assert BoundedMean(0.0, 1.0).unpacked(json.loads(json.dumps(mean.packed()))) == mean
    with pytest.raises(CorruptState, match="count, total and squares"):
        mean.unpacked([1.0])


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan])
def test_a_value_beyond_the_bounds_is_refused(value: float) -> None:
    with pytest.raises(InvalidBatch, match="no bound on the mean would hold"):
        BoundedMean(0.0, 1.0).plus([0.5, value])
