"""Normal posteriors: arithmetic that can be done by hand, and draws that have them."""

import math

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import GaussianThompson, RankingBatch, RewardBatch, build_slate


def believed(policy, state, ids):
    """Return mean and standard deviation of each item, as a request is told."""
    batch = RankingBatch(ids)
    contest = policy.contest(state, batch, np.ones(len(batch), dtype=bool), np.random.default_rng(5))
    return contest._posterior.mean, contest._posterior.deviation


def test_the_posterior_by_hand():
    """Precision 2 + 3 / 0.25 = 14 after three rewards; mean (2 · 1 + (4 + 1 + 1) / 0.25) / 14."""
    policy = GaussianThompson(prior_mean=1.0, prior_precision=2.0, noise=0.5)
    state = policy.learn(policy.initial_state(), RewardBatch(list("aaba"), [4.0, 1.0, -2.0, 1.0]))
    mean, deviation = believed(policy, state, np.array(list("abc")))
    assert mean == pytest.approx([26 / 14, (2 - 8) / 6, 1.0])
    assert deviation == pytest.approx(1 / np.sqrt([14, 6, 2]))
    assert [column.tolist() for column in policy.posterior(state)] == [
        mean.tolist()[:2],
        deviation.tolist()[:2],
    ]


def test_weights_examination_and_offsets_count():
    policy = GaussianThompson()
    rewards = RewardBatch(
        list("aa"), [1.0, 5.0], weights=[2.0, 1.0], examination=[0.5, 1.0], offsets=[0.0, 3.0]
    )
    state = policy.learn(policy.initial_state(), rewards)
    mean, deviation = believed(policy, state, np.array(["a"]))
    assert mean == pytest.approx([1.0])  # (1 + 2) / (1 + 2)
    assert deviation == pytest.approx([1 / math.sqrt(3)])


def test_the_posterior_is_that_of_a_linear_model_with_one_feature_per_item():
    rng, m, items = np.random.default_rng(0), 3000, 5
    rows, values, weights = rng.integers(items, size=m), rng.standard_normal(m) * 3, rng.random(m)
    policy = GaussianThompson(prior_precision=0.7, noise=1.9)
    state = policy.learn(policy.initial_state(), RewardBatch(rows, values, weights=weights))
    mean, deviation = believed(policy, state, np.arange(items))
    # Ridge on rows scaled by the root of their weight, as one least-squares problem.
    scale = np.sqrt(weights) / 1.9
    design = np.vstack((np.eye(items)[rows] * scale[:, None], math.sqrt(0.7) * np.eye(items)))
    target = np.concatenate((values * scale, np.zeros(items)))
    np.testing.assert_allclose(mean, np.linalg.lstsq(design, target, rcond=None)[0], atol=1e-9, rtol=0)
    covariance = np.linalg.inv(design.T @ design)
    np.testing.assert_allclose(deviation, np.sqrt(np.diag(covariance)), atol=1e-9, rtol=0)


def test_draws_have_the_posterior_mean_and_deviation():
    policy = GaussianThompson(prior_mean=-3.0, prior_precision=0.01, draws=200_000)
    state = policy.learn(policy.initial_state(), RewardBatch(list("aab"), [1.0, 2.0, 9.0]))
    batch, eligible = RankingBatch(list("abc")), np.ones(3, dtype=bool)
    contest = policy.contest(state, batch, eligible, np.random.default_rng(5))
    drawn = contest._posterior.draws(np.arange(3))
    mean, deviation = believed(policy, state, batch.item_ids)
    # Standard errors: sd / sqrt(M) for means, sd / sqrt(2 M) for deviations; bound 5 of them.
    assert (np.abs(drawn.mean(axis=0) - mean) / deviation).max() < 5 / math.sqrt(200_000)
    assert np.abs(drawn.std(axis=0) / deviation - 1).max() < 5 / math.sqrt(400_000)
    assert np.abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]).max() < 5 / math.sqrt(200_000)


def test_what_was_learnt_is_what_is_shown():
    policy = GaussianThompson(floor=0.1, noise=0.1)
    state = policy.learn(policy.initial_state(), RewardBatch(["bad", "good"], [-9.0, 50.0]))
    slate = build_slate(policy, state, RankingBatch(["bad", "good", "unknown"]), 1, seed=1)
    assert slate.order.tolist() == [1]
    assert slate.propensities[0] == pytest.approx(0.9 + 0.1 / 3)


def test_the_pool_is_the_best_by_optimism_and_ties_are_broken_by_the_seed():
    policy = GaussianThompson(pool=5, draws=8)
    ids, fresh = np.array([f"i{row}" for row in range(40)]), policy.initial_state()
    pools = np.array(
        [build_slate(policy, fresh, RankingBatch(ids), 1, seed=seed).support[0] for seed in range(200)]
    )
    assert (pools.sum(axis=1) == 5).all()
    # Equal items: each is in the pool 1 time in 8. 40 binomials, bound at z = 4.5 (false alarm 3e-4).
    assert np.abs(pools.sum(axis=0) - 25).max() < 4.5 * math.sqrt(200 / 8 * 7 / 8)
    # 50 zeros leave 0 + 2 / sqrt(51), an unseen item has 0 + 2.
    known = policy.learn(fresh, RewardBatch(ids[:35], np.zeros(35), weights=np.full(35, 50.0)))
    slate = build_slate(policy, known, RankingBatch(ids), 1)
    assert np.flatnonzero(slate.support[0]).tolist() == [35, 36, 37, 38, 39]


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_rewards_of_any_scale_are_learnt(scale):
    policy = GaussianThompson(prior_precision=1 / scale**2, noise=scale)
    state = policy.learn(policy.initial_state(), RewardBatch(list("ab"), [scale, -scale]))
    mean, deviation = believed(policy, state, np.array(list("abc")))
    assert mean / scale == pytest.approx([0.5, -0.5, 0.0])
    assert deviation / scale == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), 1.0])


def test_prior_and_noise_are_no_part_of_a_state():
    plain, cautious = GaussianThompson(), GaussianThompson(prior_mean=2.0, prior_precision=3.0)
    state = cautious.loads(plain.dumps(plain.learn(plain.initial_state(), RewardBatch(["a"], [1.0]))))
    assert cautious.posterior(state)[0] == pytest.approx([7 / 4])


def test_numbers_that_are_no_reward_are_refused():
    policy = GaussianThompson()
    with pytest.raises(InvalidBatch, match="totals of gaussian_thompson"):
        policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], offsets=[math.inf]))


@pytest.mark.parametrize(
    "options",
    [
        {"prior_mean": math.nan},
        {"prior_precision": 0.0},
        {"noise": math.inf},
        {"noise": 1e200},
        {"noise": 1e-200},
        {"floor": 0.0},
        {"pool": 0},
        {"draws": 0},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of gaussian_thompson"):
        GaussianThompson(**options)
