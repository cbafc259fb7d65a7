"""Offsets: what is expected of a candidate before learning is added to what the policy has learnt."""

import numpy as np
import pytest

from explorank.hooks.evaluation import replay, target_propensities
from explorank.hooks.exploration import (
    BetaThompson,
    BootstrappedThompson,
    DisjointLinearThompson,
    DisjointLinUCB,
    EpsilonGreedy,
    GaussianThompson,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralLinear,
    RankingBatch,
    RewardBatch,
    SlidingWindow,
    build_slate,
)
from explorank.hooks.feedback.record import decode, encode
from explorank.hooks.types import OFFSETS, DecisionRecord, RankingRequest

DIM, N = 3, 12
RESIDUAL = [
    GaussianThompson(floor=0.1),
    LinearThompson(dim=DIM, floor=0.1),
    LinUCB(dim=DIM, floor=0.1),
    DisjointLinearThompson(dim=DIM, floor=0.1),
    DisjointLinUCB(dim=DIM, floor=0.1),
    NeuralLinear(dim=DIM, floor=0.1),
    BootstrappedThompson(dim=DIM, floor=0.1),
    SlidingWindow(LinearThompson(dim=DIM, floor=0.1), rewards=100),
]
DEAF = [BetaThompson(floor=0.1), LogisticThompson(dim=DIM, floor=0.1), EpsilonGreedy(0.1)]


def world(offsets=None):
    rng = np.random.default_rng(3)
    ids = np.array([f"i{row}" for row in range(N)])
    features = rng.standard_normal((N, DIM)).astype(np.float32)
    rows = rng.integers(N, size=60)
    rewards = RewardBatch(ids[rows], rng.integers(2, size=60).astype(float), features[rows])
    return RankingBatch(ids, features, rng.random(N), offsets=offsets), rewards


def learnt(policy):
    return policy.learn(policy.initial_state(), world()[1])


@pytest.mark.parametrize("policy", RESIDUAL, ids=lambda policy: policy.name)
def test_what_is_expected_decides_where_it_outweighs_what_was_learnt(policy):
    state = learnt(policy)
    for row in (0, 7):
        batch, _ = world(np.where(np.arange(N) == row, 1e3, 0.0))
        slate = build_slate(policy, state, batch, 1, seed=row)
        assert slate.support[0, row]
        favoured = policy.contest(state, batch, np.ones(N, np.bool_), np.random.default_rng(row))
        assert favoured.distribution(np.ones(N, np.bool_))[row] == pytest.approx(0.9 + 0.1 / N)


@pytest.mark.parametrize("policy", RESIDUAL, ids=lambda policy: policy.name)
def test_only_differences_of_what_is_expected_matter(policy):
    state, everyone = learnt(policy), np.ones(N, np.bool_)
    offsets = np.random.default_rng(5).random(N)
    answers = [
        policy.contest(state, world(shifted)[0], everyone, np.random.default_rng(1)).distribution(everyone)
        for shifted in (offsets, offsets + 8.0)
    ]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-12)
    plain = policy.contest(state, world()[0], everyone, np.random.default_rng(1)).distribution(everyone)
    zeros = policy.contest(state, world(np.zeros(N))[0], everyone, np.random.default_rng(1))
    assert np.array_equal(plain, zeros.distribution(everyone))


@pytest.mark.parametrize("policy", RESIDUAL, ids=lambda policy: policy.name)
def test_residuals_that_are_zero_leave_what_was_expected(policy):
    """Where every reward is what was expected, only the widths change: the means stay those of the prior."""
    _, rewards = world()
    exact = RewardBatch(rewards.item_ids, rewards.values, rewards.features, offsets=rewards.values)
    state = policy.learn(policy.initial_state(), exact)
    if isinstance(policy, BootstrappedThompson | SlidingWindow):
        return  # replicates have prior means of their own, and a window has no posterior of its own
    mean = np.asarray(policy.posterior(state)[0])
    np.testing.assert_allclose(mean, 0.0, atol=1e-12)


@pytest.mark.parametrize("policy", DEAF, ids=lambda policy: policy.name)
def test_policies_that_learn_no_residuals_do_not_hear_of_offsets(policy):
    state = learnt(policy)
    loud = world(np.arange(N, dtype=float))[0]
    for seed in range(5):
        plain = build_slate(policy, state, world()[0], 4, seed=seed)
        told = build_slate(policy, state, loud, 4, seed=seed)
        assert told.order.tolist() == plain.order.tolist()
        assert told.propensities.tolist() == plain.propensities.tolist()
        assert OFFSETS not in told.reads


@pytest.mark.parametrize("policy", RESIDUAL, ids=lambda policy: policy.name)
def test_a_decision_is_replayed_from_its_record_bit_for_bit(policy):
    state = learnt(policy)
    batch, _ = world(np.random.default_rng(9).random(N))
    for seed in range(10):
        slate = build_slate(policy, state, batch, 5, explore_slots=[0, 2, 3], seed=seed)
        assert OFFSETS in slate.reads
        rows = np.flatnonzero(slate.support.any(axis=0))
        record = DecisionRecord(
            request=RankingRequest(decision_id=f"d{seed}", slots=5),
            mode="live",
            arm="explore",
            item_ids=batch.item_ids,
            scores=batch.score_values,
            slate=slate,
            baseline_order=slate.order,
            feature_rows=rows,
            features=batch.features[rows],
            columns={OFFSETS: batch.column(OFFSETS)[rows]},
        )
        record = decode(encode(record))
        again = replay(record, policy, state)
        assert again.order.tolist() == slate.order.tolist()
        assert again.propensities.tolist() == slate.propensities.tolist()
        assert target_propensities(record, policy, state).tolist() == slate.propensities.tolist()
