"""Beta posteriors: arithmetic that can be done by hand."""

import math

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import BetaThompson, RankingBatch, RewardBatch, build_slate


def posterior(policy, state):
    alpha, beta = policy.posterior(state)
    return {
        item: (pytest.approx(a), pytest.approx(b))
        for item, a, b in zip(state.item_ids.tolist(), alpha, beta, strict=True)
    }


def test_rewards_add_up_to_the_posterior():
    policy = BetaThompson(prior_alpha=2.0, prior_beta=3.0)
    state = policy.learn(policy.initial_state(), RewardBatch(["a", "b", "a"], [1.0, 0.25, 0.0]))
    assert posterior(policy, state) == {"a": (3.0, 4.0), "b": (2.25, 3.75)}
    assert state.version == 1


def test_weights_and_examination_scale_a_reward():
    policy = BetaThompson()
    rewards = RewardBatch(["a", "a"], [1.0, 0.0], weights=[2.0, 1.0], examination=[0.5, 0.25])
    state = policy.learn(policy.initial_state(), rewards)
    assert posterior(policy, state) == {"a": (2.0, 1.25)}


@pytest.mark.parametrize(
    ("rewards", "complaint"),
    [
        (RewardBatch(["a", "b"], [1.0, 1.5]), "item 'b' is 1.5"),
        (RewardBatch(["a"], [-0.1]), "item 'a' is -0.1"),
        (RewardBatch(["a"], [1.0], offsets=[0.2]), "offsets"),
        (RewardBatch(["a"], [1.0], weights=[-1.0]), "`weights`.*-1.0"),
        (RewardBatch(["a"], [1.0], examination=[math.nan]), "`examination`.*nan"),
        (RewardBatch([7], [1.0]), "one type of id"),
    ],
)
def test_rewards_without_a_meaning_are_refused(rewards, complaint):
    policy = BetaThompson()
    state = policy.learn(policy.initial_state(), RewardBatch(["z"], [1.0]))
    with pytest.raises(InvalidBatch, match=complaint):
        policy.learn(state, rewards)


def test_what_was_learnt_is_what_is_shown():
    policy = BetaThompson()
    state = policy.learn(
        policy.initial_state(), RewardBatch(["bad", "good"], [0.0, 1.0], weights=[500.0, 500.0])
    )
    batch = RankingBatch(["bad", "good", "unknown"])
    slate = build_slate(policy, state, batch, 1, seed=1)
    assert slate.order.tolist() == [1]
    # Beta(501, 1) against Beta(1, 1): an unknown item wins one draw in 502, a bad one practically never.
    assert slate.propensities[0] > 0.95


def test_the_pool_is_the_best_by_optimism_and_ties_are_broken_by_the_seed():
    policy = BetaThompson(pool=5, draws=8)
    ids = np.array([f"i{row}" for row in range(40)])
    fresh = policy.initial_state()
    pools = np.array(
        [build_slate(policy, fresh, RankingBatch(ids), 1, seed=seed).support[0] for seed in range(200)]
    )
    assert (pools.sum(axis=1) == 5).all()
    # Equal arms: each is in the pool 1 time in 8. 40 binomials, bound at z = 4.5 (false alarm 3e-4).
    assert np.abs(pools.sum(axis=0) - 25).max() < 4.5 * math.sqrt(200 / 8 * 7 / 8)
    # Failures lower mean + 2 sd: those arms never contend, whatever the seed.
    known = policy.learn(fresh, RewardBatch(ids[:35], np.zeros(35), weights=np.full(35, 50.0)))
    slate = build_slate(policy, known, RankingBatch(ids), 1)
    assert np.flatnonzero(slate.support[0]).tolist() == [35, 36, 37, 38, 39]


def test_a_pool_that_the_guards_empty_is_formed_anew():
    policy = BetaThompson(pool=2, draws=8)
    slate = build_slate(policy, policy.initial_state(), RankingBatch(list("abcde")), 5, seed=4)
    assert sorted(slate.order.tolist()) == [0, 1, 2, 3, 4]
    assert slate.support.sum(axis=1).tolist() == [2, 1, 2, 2, 1]


def test_twins_share_the_first_place_over_the_seeds():
    """Draws of a hopeless prior underflow to equal zeros: row order must not decide who wins."""
    policy = BetaThompson(prior_alpha=1e-5, prior_beta=1.0, draws=4)
    batch = RankingBatch(list("ab"))
    first = [build_slate(policy, policy.initial_state(), batch, 1, seed=seed).order[0] for seed in range(400)]
    assert 150 < sum(first) < 250  # z = 5


@pytest.mark.parametrize(
    "options",
    [
        {"prior_alpha": 0.0},
        {"prior_beta": math.inf},
        {"floor": 0.0},
        {"floor": 1.1},
        {"floor": math.nan},
        {"pool": 0},
        {"draws": 0},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of beta_thompson"):
        BetaThompson(**options)
