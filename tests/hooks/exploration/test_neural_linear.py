"""The Bayesian last layer: the posterior by hand and by the textbook, the noise learnt, another network's state."""

import numpy as np
import pytest
from scipy import stats

from explorank.hooks.exploration import LinearThompson, NeuralLinear, RankingBatch, RewardBatch


def learnt(policy, features, values, **columns):
    rewards = RewardBatch(np.arange(len(values)), values, features, **columns)
    return policy.learn(policy.initial_state(), rewards)


def test_a_posterior_by_hand():
    """One column of ones, λ = 1, rewards 2 and 4: A = 3, m = 2; a = 3 + 1, b = 2·1 + (20 - 12) / 2 = 6."""
    policy = NeuralLinear(dim=1, prior_precision=1.0, noise=1.0, noise_shape=3.0)
    state = learnt(policy, np.ones((2, 1)), [2.0, 4.0])
    assert (state.shape, state.rate) == pytest.approx((4.0, 6.0))
    mean, covariance = policy.posterior(state)
    assert mean == pytest.approx([2.0])
    assert covariance == pytest.approx(np.array([[(6.0 / 3.0) / 3.0]]))
    assert state.noise == pytest.approx(np.sqrt(2.0))


def test_it_equals_the_textbook_after_many_batches():
    """Equation 1 of Riquelme et al., in one step over all rewards, with weights, offsets and examination."""
    rng = np.random.default_rng(4)
    z = rng.standard_normal((5_000, 6)).astype(np.float32)
    r = z @ rng.standard_normal(6) + 0.3 * rng.standard_normal(5_000) + 40.0
    weights, examination = rng.uniform(0.0, 2.0, 5_000), rng.uniform(0.1, 1.0, 5_000)
    offsets = np.full(5_000, 40.0)
    policy = NeuralLinear(dim=6)
    state = policy.initial_state()
    for rows in np.array_split(np.arange(5_000), 77):
        batch = RewardBatch(
            rows,
            r[rows],
            z[rows],
            weights=weights[rows],
            examination=examination[rows],
            offsets=offsets[rows],
        )
        state = policy.learn(state, batch)
    w, y = weights * examination, r - offsets
    exact = z.astype(np.float64)
    precision = 0.25 * np.eye(6) + (exact.T * w) @ exact
    mean = np.linalg.solve(precision, exact.T @ (w * y))
    shape = 6.0 + w.sum() / 2.0
    rate = 5.0 + (w @ y**2 - mean @ precision @ mean) / 2.0
    assert (state.shape, state.rate) == pytest.approx((shape, rate), rel=1e-9)
    found, covariance = policy.posterior(state)
    assert found == pytest.approx(mean, rel=1e-9)
    assert covariance == pytest.approx(rate / (shape - 1.0) * np.linalg.inv(precision), rel=1e-9)


def test_the_rate_keeps_its_digits_where_the_textbook_loses_them():
    """Rewards of a million that the features explain: Σ r² - mᵀA m cancels all but a few digits.

    Over z = 1 with λ = 1e-12, the residuals ±0.5 about 1e6 leave b = 5 + 1,000 · 0.25 / 2, and 0.5 for the
    prior's pull, λ · 1e12 / 2.
    """
    policy = NeuralLinear(dim=1, prior_precision=1e-12)
    values = 1e6 + np.tile([0.5, -0.5], 500)
    state = learnt(policy, np.ones((1_000, 1)), values)
    assert state.rate == pytest.approx(5.0 + 125.0 + 0.5, rel=1e-6)


def test_the_noise_is_learnt():
    """Its estimate from 4,000 rewards has a standard error of 1.1 %, and the prior adds at most 0.5 %.

    The bound is 5 standard errors and the prior's part.
    """
    rng = np.random.default_rng(2)
    z = rng.standard_normal((4_000, 3))
    for noise in (0.5, 20.0):
        policy = NeuralLinear(dim=3)
        state = learnt(policy, z, z @ [1.0, -1.0, 0.5] + noise * rng.standard_normal(4_000))
        assert state.noise == pytest.approx(noise, rel=0.06)


def test_with_a_known_noise_it_is_linear_thompson():
    """As `noise_shape` grows, the noise is a constant, and the posterior that of the linear model."""
    rng = np.random.default_rng(5)
    z, values = rng.standard_normal((50, 3)), rng.standard_normal(50)
    neural = NeuralLinear(dim=3, prior_precision=0.5, noise=2.0, noise_shape=1e12)
    linear = LinearThompson(dim=3, prior_precision=0.5 / 2.0**2, noise=2.0)
    ours, theirs = (policy.posterior(learnt(policy, z, values)) for policy in (neural, linear))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-9)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-9)


def test_draws_have_the_posterior_of_student():
    """Two candidates, one of them known to earn 0: the other wins by the CDF of Student's t, 2a degrees.

    200,000 draws; the bound is 4.5 standard errors, which a correct implementation passes but for 1e-5.
    """
    policy = NeuralLinear(dim=1, noise_shape=2.0, prior_precision=1.0, draws=200_000, floor=1e-9)
    state = learnt(policy, np.ones((3, 1)), [0.4, 0.0, -0.1])
    batch, both = RankingBatch(["known", "new"], [[0.0], [1.0]]), np.ones(2, bool)
    share = policy.contest(state, batch, both, np.random.default_rng(0)).distribution(both)[1]
    scale = np.sqrt(state.rate / state.shape / state.belief.precision[0, 0])
    expected = stats.t.cdf(state.belief.mean[0] / scale, df=2 * state.shape)
    assert share == pytest.approx(expected, abs=4.5 * np.sqrt(0.25 / 200_000))


def test_another_representation_starts_from_the_prior():
    rng = np.random.default_rng(6)
    z, values = rng.standard_normal((30, 2)), rng.standard_normal(30)
    old, new = (NeuralLinear(dim=2, representation=name, draws=8) for name in ("tower-1", "tower-2"))
    state = learnt(old, z, values)
    loaded = new.loads(old.dumps(state))
    assert new.posterior(loaded)[0].tolist() == [0.0, 0.0]
    assert old.posterior(loaded)[0].tolist() == old.posterior(state)[0].tolist()
    batch, all_of_them = RankingBatch(np.arange(30), z), np.ones(30, bool)
    given, fresh = (
        new.contest(of, batch, all_of_them, np.random.default_rng(1)).distribution(all_of_them)
        for of in (loaded, new.initial_state())
    )
    assert given.tolist() == fresh.tolist()
    after = new.learn(loaded, RewardBatch(np.arange(30), values, z))
    assert (after.version, after.representation) == (2, "tower-2")
    assert new.posterior(after)[0].tolist() == new.posterior(learnt(new, z, values))[0].tolist()
