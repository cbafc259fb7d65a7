"""Indices that can be computed by hand, and who shares the floor."""

import math

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import LinUCB, RankingBatch, RewardBatch, build_slate

# Precision diag(9, 100), information (8, 0): mean (8/9, 0), sd of the axes 1/3 and 1/10.
REWARDS = RewardBatch(list("ab"), [1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], weights=[8.0, 99.0])


def shares(policy, features, rewards=REWARDS, seed=0):
    """Return the probability of each candidate for the first slot."""
    state = policy.learn(policy.initial_state(), rewards)
    batch = RankingBatch([f"i{row}" for row in range(len(features))], features)
    everyone = np.ones(len(batch), dtype=bool)
    contest = policy.contest(state, batch, everyone, np.random.default_rng(seed))
    return contest.distribution(everyone).tolist()


def test_the_highest_index_takes_all_but_the_floor():
    # Indices at alpha 1: 8/9 + 1/3 = 1.22, 0.1, 16/9·0.6 + 0.4 = 1.47, and -8/9 + 1/3.
    features = [[1.0, 0.0], [0.0, 1.0], [1.2, 0.0], [-1.0, 0.0]]
    assert shares(LinUCB(dim=2, floor=0.2), features) == pytest.approx([0.05, 0.05, 0.85, 0.05])


@pytest.mark.parametrize(("alpha", "winner"), [(0.0, 0), (2.6, 0), (2.7, 1)])
def test_alpha_says_how_much_the_unknown_is_worth(alpha, winner):
    """8/9 + alpha/3 against 0 + alpha·2/3 (a second direction as wide as 20 sd of 1/10 is 2 of 1/3)."""
    features = [[1.0, 0.0], [0.0, 20.0 / 3.0]]
    given = shares(LinUCB(dim=2, alpha=alpha, floor=0.1), features)
    assert given[winner] == pytest.approx(0.95)


def test_the_width_has_the_unit_of_the_reward():
    """With every reward and the noise ten times as large, and the prior to match, choices stay the same."""
    rng = np.random.default_rng(3)
    train, features, values = rng.standard_normal((40, 2)), rng.standard_normal((9, 2)), rng.random(40)
    small = RewardBatch(np.arange(40), values, train)
    large = RewardBatch(np.arange(40), 10.0 * values, train)
    assert shares(LinUCB(dim=2, noise=0.5, prior_precision=4.0), features, small) == shares(
        LinUCB(dim=2, noise=5.0, prior_precision=0.04), features, large
    )


def test_the_floor_is_shared_by_the_best_indices_only():
    policy = LinUCB(dim=2, floor=0.5, pool=2)
    features = [[1.0, 0.0], [0.0, 1.0], [1.2, 0.0], [-1.0, 0.0]]
    assert shares(policy, features) == pytest.approx([0.25, 0.0, 0.75, 0.0])


def test_the_pool_is_the_best_by_the_index_among_a_thousand():
    rng = np.random.default_rng(5)
    features = rng.standard_normal((1000, 8)).astype(np.float32)
    policy = LinUCB(dim=8, alpha=1.5, pool=50)
    rewards = RewardBatch(np.arange(60), rng.random(60), rng.standard_normal((60, 8)))
    state = policy.learn(policy.initial_state(), rewards)
    mean, covariance = policy.posterior(state)
    x = features.astype(float)
    index = x @ mean + 1.5 * np.sqrt(np.einsum("ij,jk,ik->i", x, covariance, x))
    slate = build_slate(policy, state, RankingBatch(np.arange(1000), features), 3)
    expected = np.argsort(-index)
    assert sorted(expected[:50].tolist()) == np.flatnonzero(slate.support[0]).tolist()
    best = [
        build_slate(policy, state, RankingBatch(np.arange(1000), features), 1, seed=seed)
        for seed in range(40)
    ]
    assert sum(slate.order[0] == expected[0] for slate in best) >= 36


def test_features_beyond_single_precision_still_have_an_index():
    policy = LinUCB(dim=2, pool=1)
    features = [[3e38, 0.0], [3e38, 3e38], [1.0, 1.0]]
    slate = build_slate(policy, policy.initial_state(), RankingBatch(list("abc"), features), 3)
    assert slate.order.tolist() == [1, 0, 2]


def test_equal_indices_are_broken_by_the_seed():
    policy = LinUCB(dim=2)
    batch = RankingBatch(list("ab"), np.ones((2, 2)))
    first = [build_slate(policy, policy.initial_state(), batch, 1, seed=seed).order[0] for seed in range(400)]
    assert 150 < sum(first) < 250  # z = 5


def test_half_of_a_reward_is_kept_after_a_half_life():
    """One feature, half-life 1: weights ¼, ½, 1, precision 2 + 1.75, information 4·¼ + 2·½ + 1·1."""
    policy = LinUCB(dim=1, prior_precision=2.0, half_life=1.0)
    whole = policy.learn(policy.initial_state(), RewardBatch(list("abc"), [4.0, 2.0, 1.0], np.ones((3, 1))))
    mean, covariance = policy.posterior(whole)
    assert covariance == pytest.approx(1 / 3.75)
    assert mean == pytest.approx(3 / 3.75)
    state = policy.initial_state()
    for value in (4.0, 2.0, 1.0):
        state = policy.learn(state, RewardBatch(["a"], [value], np.ones((1, 1))))
    assert state.precision == pytest.approx(whole.precision)
    assert state.mean == pytest.approx(whole.mean)
    # An empty batch is no reward: nothing ages.
    assert policy.learn(state, RewardBatch([], [], np.zeros((0, 1)))).precision == pytest.approx(3.75)


def test_what_is_forgotten_returns_to_the_prior():
    policy = LinUCB(dim=2, half_life=5.0)
    state = policy.learn(
        policy.initial_state(), RewardBatch(["a"] * 50, np.ones(50), np.tile([1.0, 0.0], (50, 1)))
    )
    state = policy.learn(state, RewardBatch(["b"] * 500, np.ones(500), np.tile([0.0, 1.0], (500, 1))))
    mean, covariance = policy.posterior(state)
    assert mean[0] == pytest.approx(0.0, abs=1e-12)
    assert covariance[0, 0] == pytest.approx(1.0)
    # Σ ½^(age / 5) over all ages is 1 / (1 - ½^(1/5)) = 7.73 rewards.
    assert covariance[1, 1] == pytest.approx(1 / (1 + 1 / (1 - 0.5**0.2)))


def test_other_features_than_it_was_set_up_for_are_refused():
    policy = LinUCB(dim=3)
    with pytest.raises(InvalidBatch, match="lin_ucb has dim 3"):
        build_slate(policy, policy.initial_state(), RankingBatch(["a"], [[1.0, 2.0]]), 1)


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 0},
        {"alpha": -1.0},
        {"alpha": math.nan},
        {"prior_precision": 0.0},
        {"noise": math.inf},
        {"half_life": 0.0},
        {"floor": 0.0},
        {"pool": 0},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of lin_ucb"):
        LinUCB(**{"dim": 2, **options})
