"""The replicates against direct ridge solves on their resamples, and what their spread means."""

import math

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import BootstrappedThompson, RankingBatch, RewardBatch, build_slate
from explorank.hooks.exploration.bootstrapped_thompson import resampled


def test_a_reward_counts_twice_for_half_of_the_replicates():
    counted = resampled(0, 5000, 64)
    assert set(counted.ravel().tolist()) == {0.0, 2.0}
    # 64 · 5,000 fair coins: z = 4.5; and no two replicates agree more than chance, of 2,016 pairs.
    assert abs((counted - 1.0).sum()) < 4.5 * math.sqrt(64 * 5000)
    correlation = np.corrcoef(counted) - np.eye(64)
    assert np.abs(correlation).max() < 5 / math.sqrt(5000)


def test_what_a_reward_counts_for_depends_on_its_number_alone():
    whole = resampled(0, 100, 7)
    parts = [resampled(first, last - first, 7) for first, last in ((0, 1), (1, 40), (40, 40), (40, 100))]
    assert np.hstack(parts).tolist() == whole.tolist()


def test_every_replicate_equals_a_direct_ridge_solve_on_its_resample():
    dim, m, prior, noise = 5, 3000, 0.7, 1.9
    rng = np.random.default_rng(0)
    features = rng.standard_normal((m, dim)).astype(np.float32)
    values, weights, offsets = rng.standard_normal(m), rng.random(m) * 3, rng.standard_normal(m)
    policy = BootstrappedThompson(dim=dim, replicates=6, prior_precision=prior, noise=noise)
    state = start = policy.initial_state()
    for rows in np.split(np.arange(m), np.sort(rng.integers(m, size=80))):
        before = policy.dumps(state)
        following = policy.learn(
            state,
            RewardBatch(rows, values[rows], features[rows], weights=weights[rows], offsets=offsets[rows]),
        )
        assert policy.dumps(state) == before
        state = following
    assert (state.version, state.rewards) == (81, m)
    for replicate, counted in enumerate(resampled(0, m, 6)):
        scale = np.sqrt(counted * weights) / noise
        design = np.vstack((features.astype(float) * scale[:, None], np.sqrt(prior) * np.eye(dim)))
        drawn = np.sqrt(prior) * start.coefficients[replicate]
        direct = np.linalg.lstsq(design, np.concatenate(((values - offsets) * scale, drawn)), rcond=None)[0]
        np.testing.assert_allclose(state.coefficients[replicate], direct, atol=1e-9, rtol=0)


def test_before_any_reward_the_replicates_are_the_prior():
    policy = BootstrappedThompson(dim=50, prior_precision=4.0)
    drawn = 2.0 * policy.initial_state().coefficients
    # 3,200 standard normals: bound 5 standard errors.
    assert abs(drawn.mean()) < 5 / math.sqrt(3200)
    assert abs(drawn.var() - 1.0) < 5 * math.sqrt(2 / 3200)


def test_the_spread_follows_the_noise_of_each_candidate():
    """Two arms by one-hot features, noise 0.1 and 3: the replicates spread as sd / √n, whatever `noise` says."""
    rng = np.random.default_rng(1)
    arms = np.repeat([0, 1], 2000)
    values = rng.standard_normal(4000) * np.array([0.1, 3.0])[arms]
    policy = BootstrappedThompson(dim=2)
    state = policy.learn(policy.initial_state(), RewardBatch(arms, values, np.eye(2)[arms]))
    spread = state.coefficients.std(axis=0)
    # 64 replicates know a standard deviation to 1 / √128 = 9 %; bound 4 of that.
    np.testing.assert_allclose(spread, np.array([0.1, 3.0]) / math.sqrt(2000), rtol=0.36)


def test_the_votes_are_the_propensities():
    policy = BootstrappedThompson(dim=2, replicates=64, floor=0.2)
    rng = np.random.default_rng(2)
    rewards = RewardBatch(np.arange(20), rng.random(20), rng.standard_normal((20, 2)))
    state = policy.learn(policy.initial_state(), rewards)
    batch = RankingBatch(list("abcd"), rng.standard_normal((4, 2)))
    best = (state.coefficients @ batch.features.astype(float).T).argmax(axis=1)
    expected = 0.8 * np.bincount(best, minlength=4) / 64 + 0.05
    everyone = np.ones(4, dtype=bool)
    for seed in range(3):
        contest = policy.contest(state, batch, everyone, np.random.default_rng(seed))
        assert contest.distribution(everyone) == pytest.approx(expected)


def test_the_pool_is_the_best_by_mean_plus_two_sd_of_the_replicates():
    policy = BootstrappedThompson(dim=4, pool=5)
    state = policy.initial_state()
    features = np.random.default_rng(3).standard_normal((200, 4)).astype(np.float32)
    scored = state.coefficients @ features.astype(float).T
    upper = scored.mean(axis=0) + 2.0 * scored.std(axis=0)
    slate = build_slate(policy, state, RankingBatch(np.arange(200), features), 1)
    assert np.flatnonzero(slate.support[0]).tolist() == sorted(np.argsort(-upper)[:5].tolist())


@pytest.mark.parametrize(
    ("values", "features", "columns"),
    [
        ([1e308, 1e308], [[9.0], [9.0]], {}),
        ([1.0, 1.0], [[1.0], [1.0]], {"offsets": [0.0, math.nan]}),
        ([1.0, 1.0], [[1.0], [1.0]], {"weights": [1e308, 1e308]}),
        ([1.0], None, {}),
    ],
)
def test_rewards_without_a_solution_are_refused(values, features, columns):
    policy = BootstrappedThompson(dim=1, noise=0.1)
    with pytest.raises(InvalidBatch, match=r"no posterior|dim 1"):
        policy.learn(policy.initial_state(), RewardBatch(np.arange(len(values)), values, features, **columns))


@pytest.mark.parametrize(
    "options",
    [{"dim": 0}, {"replicates": 1}, {"replicates": 65}, {"noise": 0.0}, {"floor": 0.0}, {"pool": 0}],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of bootstrapped_thompson"):
        BootstrappedThompson(**{"dim": 2, **options})
