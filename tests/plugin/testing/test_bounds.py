"""The bounds keep their false-alarm rate where a normal approximation would not, and are not idle."""

import numpy as np
import pytest

from explorank.testing.bounds import empirical_bernstein, freedman

TRIALS, SEEDS, RATE = 20_000, 1_000, 0.05


@pytest.mark.parametrize("probability", [0.5, 0.1, 0.01, 0.001])
def test_freedman_is_passed_as_seldom_as_stated(probability):
    """Sums of 1{shown}/p - 1 over seeds. Were the rate 5%, 20,000 trials would exceed 6% once in 10^9."""
    drift = np.random.default_rng(1).binomial(SEEDS, probability, TRIALS) / probability - SEEDS
    variance, largest = np.array(SEEDS * (1 / probability - 1)), np.array(1 / probability)
    bound = freedman(variance, largest, RATE)
    assert (np.abs(drift) > bound).mean() < 0.06
    # At an even chance it is within half of the normal approximation's 1.96 standard deviations.
    if probability == 0.5:
        assert bound < 1.5 * 1.96 * np.sqrt(variance)


@pytest.mark.parametrize("probability", [0.5, 0.1, 0.01])
def test_empirical_bernstein_is_passed_as_seldom_as_stated(probability):
    samples = np.random.default_rng(2).binomial(1, probability, (SEEDS, 4_000)).astype(float)
    off = np.abs(samples.mean(axis=0) - probability)
    assert (off > empirical_bernstein(samples, 1.0, RATE)).mean() < 0.06


def test_both_shrink_as_seeds_grow():
    few, many = (np.tile([0.0, 1.0], n) for n in (100, 10_000))
    assert empirical_bernstein(many, 1.0, 1e-4) < empirical_bernstein(few, 1.0, 1e-4) / 9
    one, hundred = (freedman(np.array(v), np.array(1.0), 1e-4) for v in (1e4, 1e6))
    assert hundred / 1e6 < one / 1e4 / 9
