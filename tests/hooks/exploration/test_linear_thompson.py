"""The linear posterior against a direct solve, and its refusals."""

import math

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import (
    LinearThompson,
    RankingBatch,
    RewardBatch,
    build_slate,
    slate_log_propensity,
)


def make(m, dim, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((m, dim)).astype(np.float32)
    return np.array([f"i{row}" for row in range(m)]), features, rng.standard_normal(m)


def test_the_posterior_by_hand():
    """One feature: precision 2 + (1 + 4) / 0.25 = 22, mean (1·1 + 2·3) / 0.25 / 22."""
    policy = LinearThompson(dim=1, prior_precision=2.0, noise=0.5)
    state = policy.learn(policy.initial_state(), RewardBatch(["a", "b"], [1.0, 3.0], [[1.0], [2.0]]))
    mean, covariance = policy.posterior(state)
    assert covariance == pytest.approx(1 / 22)
    assert mean == pytest.approx(7 * 4 / 22)


def test_the_posterior_equals_a_direct_ridge_solve():
    dim, m, prior, noise = 16, 100_000, 0.7, 1.9
    ids, features, values = make(m, dim)
    rng = np.random.default_rng(1)
    weights, examination, offsets = rng.random(m) * 3, rng.random(m), rng.standard_normal(m)
    policy = LinearThompson(dim=dim, prior_precision=prior, noise=noise)
    state = policy.initial_state()
    # 4,000 single rewards, then batches of any size.
    cuts = np.concatenate((np.arange(1, 4000), np.sort(rng.integers(4000, m, size=100))))
    for rows in np.split(np.arange(m), cuts):
        batch = RewardBatch(
            ids[rows],
            values[rows],
            features[rows],
            offsets=offsets[rows],
            weights=weights[rows],
            examination=examination[rows],
        )
        state = policy.learn(state, batch)
    x = features.astype(float)
    # Ridge on rows scaled by the root of their weight, as one least-squares problem.
    scale = np.sqrt(weights * examination) / noise
    design = np.vstack((x * scale[:, None], np.sqrt(prior) * np.eye(dim)))
    target = np.concatenate(((values - offsets) * scale, np.zeros(dim)))
    direct = np.linalg.lstsq(design, target, rcond=None)[0]
    mean, covariance = policy.posterior(state)
    np.testing.assert_allclose(mean, direct, atol=1e-9, rtol=0)
    np.testing.assert_allclose(covariance, np.linalg.inv(design.T @ design), atol=1e-9, rtol=0)


def test_ten_million_rewards_of_an_ill_conditioned_design_leave_the_posterior_exact():
    """Two features that differ by a thousandth, 100,000 rewards, a hundred times over: 10⁷ updates."""
    rng = np.random.default_rng(2)
    common, apart = rng.standard_normal((2, 100_000))
    features = np.column_stack((common + apart / 1000, common - apart / 1000, np.ones(100_000)))
    rewards = RewardBatch(np.arange(100_000), common + 0.1 * apart, features)
    policy = LinearThompson(dim=3)
    state = policy.initial_state()
    for _ in range(100):
        state = policy.learn(state, rewards)
    exact = rewards.features.astype(float)
    design = np.vstack((10.0 * exact, np.eye(3)))
    target = np.concatenate((10.0 * rewards.values, np.zeros(3)))
    direct = np.linalg.lstsq(design, target, rcond=None)[0]
    mean, covariance = policy.posterior(state)
    # 10⁷ sums round to 10⁷ · 2e-16 of the largest at worst; the solve multiplies that by its condition, 10⁶.
    np.testing.assert_allclose(mean, direct, rtol=1e-6)
    triangle = np.linalg.qr(design, mode="r")
    np.testing.assert_allclose(covariance, np.linalg.inv(triangle.T @ triangle), rtol=1e-6, atol=1e-12)


def test_learning_is_pure_and_does_not_depend_on_how_it_is_batched():
    policy = LinearThompson(dim=4)
    ids, features, values = make(100, 4)
    whole = policy.learn(policy.initial_state(), RewardBatch(ids, values, features))
    state = policy.initial_state()
    for row in range(100):
        before = policy.dumps(state)
        following = policy.learn(
            state, RewardBatch(ids[row : row + 1], values[row : row + 1], features[row : row + 1])
        )
        assert policy.dumps(state) == before
        state = following
    assert state.version == 100
    np.testing.assert_allclose(state.mean, whole.mean, rtol=1e-9)
    np.testing.assert_allclose(state.precision, whole.precision, rtol=1e-12)


def test_draws_have_the_posterior_mean_and_covariance():
    policy = LinearThompson(dim=3, draws=200_000)
    ids, features, values = make(30, 3)
    state = policy.learn(policy.initial_state(), RewardBatch(ids, values, features))
    batch = RankingBatch(list("abc"), np.eye(3))
    eligible = np.ones(3, dtype=bool)
    contest = policy.contest(state, batch, eligible, np.random.default_rng(5))
    drawn = contest._posterior.draws(np.arange(3))
    mean, covariance = policy.posterior(state)
    spread = np.sqrt(np.diag(covariance))
    # Standard errors: sd / sqrt(M) for means, about sqrt(2 / M) for variances; bound 5 of them.
    assert (np.abs(drawn.mean(axis=0) - mean) / spread).max() < 5 / math.sqrt(200_000)
    relative = np.cov(drawn.T) / np.outer(spread, spread) - covariance / np.outer(spread, spread)
    assert np.abs(relative).max() < 5 * math.sqrt(2 / 200_000)


def test_what_was_learnt_is_what_is_shown():
    policy = LinearThompson(dim=2, floor=0.1, noise=0.1)
    _, features, _ = make(400, 2)
    rewards = features @ np.array([1.0, -1.0])
    state = policy.learn(policy.initial_state(), RewardBatch(np.arange(400), rewards, features))
    batch = RankingBatch(list("abc"), [[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    likely = slate_log_propensity(policy, state, batch, [1], seed=6)
    assert np.exp(likely) == pytest.approx(0.9 + 0.1 / 3)


def test_the_pool_is_the_best_by_mean_plus_two_sd():
    policy = LinearThompson(dim=2, pool=2, draws=4)
    rewards = RewardBatch(list("ab"), [1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], weights=[8.0, 99.0])
    state = policy.learn(policy.initial_state(), rewards)
    # mean (8/9, 0), sd (1/3, 1/10): 1.56, 0.2, 3.1, -0.2 for the four.
    batch = RankingBatch(list("abcd"), [[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [-1.0, 0.0]])
    assert build_slate(policy, state, batch, 1).support[0].tolist() == [True, False, True, False]


def test_identical_features_share_the_first_place_over_the_seeds():
    policy = LinearThompson(dim=2, draws=16)
    batch = RankingBatch(list("ab"), np.ones((2, 2)))
    first = [build_slate(policy, policy.initial_state(), batch, 1, seed=seed).order[0] for seed in range(400)]
    assert 150 < sum(first) < 250  # z = 5


@pytest.mark.parametrize("features", [None, np.ones((1, 2))], ids=["none", "two"])
def test_other_features_than_it_was_set_up_for_are_refused(features):
    policy = LinearThompson(dim=3)
    with pytest.raises(InvalidBatch, match="dim 3"):
        policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], features))
    with pytest.raises(InvalidBatch, match="dim 3"):
        build_slate(policy, policy.initial_state(), RankingBatch(["a"], features), 1)


@pytest.mark.parametrize(
    ("values", "features", "columns"),
    [
        ([1e308, 1e308], [[9.0], [9.0]], {}),
        ([1.0, 1.0], [[1.0], [1.0]], {"offsets": [0.0, math.nan]}),
        ([1.0, 1.0], [[1.0], [1.0]], {"weights": [1e308, 1e308]}),
    ],
)
def test_numbers_that_leave_no_posterior_are_refused(values, features, columns):
    policy = LinearThompson(dim=1, noise=0.1)
    state = policy.initial_state()
    with pytest.raises(InvalidBatch, match="no posterior"):
        policy.learn(state, RewardBatch(["a", "b"], values, features, **columns))
    assert policy.posterior(state)[0] == 0.0


@pytest.mark.parametrize(
    "options",
    [{"dim": 0}, {"prior_precision": 0.0}, {"noise": math.inf}, {"floor": 0.0}, {"pool": 0}, {"draws": 0}],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of linear_thompson"):
        LinearThompson(**{"dim": 2, **options})


@pytest.mark.parametrize("draws", [1, 6, 64])
@pytest.mark.parametrize("dim", [1, 2, 3, 8])
def test_mirrored_draws_have_the_mean_of_independent_ones_and_spread_no_more(dim, draws):
    """M independent draws give an item with the probability p a share of the variance p (1 - p) / M.

    Over 3,000 seeds, the mean share is within 4.5 standard errors of plain Thompson sampling's, of 200,000
    draws, and the variances add up to no more than a tenth above those of independent draws.
    """
    rng = np.random.default_rng(dim)
    policy = LinearThompson(dim=dim, floor=1e-9, draws=draws)
    features = rng.standard_normal((6, dim)).astype(np.float32)
    rewards = RewardBatch(np.arange(30), rng.random(30), rng.standard_normal((30, dim)).astype(np.float32))
    state = policy.learn(policy.initial_state(), rewards)
    batch, everyone = RankingBatch(np.arange(6), features), np.ones(6, np.bool_)
    shares = np.array(
        [
            policy.contest(state, batch, everyone, np.random.default_rng(seed)).distribution(everyone)
            for seed in range(3_000)
        ]
    )
    mean, covariance = policy.posterior(state)
    plain = rng.multivariate_normal(mean, covariance, size=200_000) @ features.T.astype(float)
    p = np.bincount(plain.argmax(axis=1), minlength=6) / 200_000
    error = np.sqrt(p * (1 - p) * (1 / 200_000 + 1 / 3_000)) + 1e-6
    assert (np.abs(shares.mean(axis=0) - p) < 4.5 * error).all()
    assert shares.var(axis=0).sum() <= 1.1 * (p * (1 - p)).sum() / draws
