"""Sums over rewards: merged and taken out again, linear posteriors are what a direct solve gives."""

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import (
    BootstrappedThompson,
    DisjointLinearThompson,
    DisjointLinUCB,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralLinear,
    RewardBatch,
    SlotStrategies,
)

DIM = 4
POLICIES = [
    LinearThompson(dim=DIM, noise=0.5),
    LinUCB(dim=DIM, prior_precision=2.0),
    DisjointLinearThompson(dim=DIM),
    DisjointLinUCB(dim=DIM, noise=2.0),
    NeuralLinear(dim=DIM, noise=0.3),
]


@pytest.fixture(params=POLICIES, ids=lambda policy: policy.name)
def policy(request):
    return request.param


def world(m=400):
    rng = np.random.default_rng(8)
    return {
        "item_ids": rng.integers(6, size=m),
        "values": rng.standard_normal(m),
        "features": rng.standard_normal((m, DIM)).astype(np.float32),
        "weights": rng.uniform(0.1, 2.0, m),
        "offsets": rng.standard_normal(m) / 4,
    }


def part(columns, rows):
    return RewardBatch(**{name: column[rows] for name, column in columns.items()})


def knowledge(policy, state):
    """The natural parameters, arms by their ids."""
    _, packed = policy.pack(state)
    if "item_ids" in packed:
        order = np.argsort(packed["item_ids"])
        packed = {name: array[order] for name, array in packed.items()}
    return packed


def assert_same(policy, one, other):
    ours, theirs = knowledge(policy, one), knowledge(policy, other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name == "item_ids":
            assert ours[name].tolist() == theirs[name].tolist()
        else:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-9)


def test_merging_and_unlearning_agree_with_learning_directly(policy):
    columns = world()
    learnt = {
        rows: policy.learn(policy.initial_state(), part(columns, slice(*rows)))
        for rows in ((0, 400), (0, 250), (250, 400))
    }
    merged = policy.merge(learnt[0, 250], learnt[250, 400])
    assert_same(policy, merged, learnt[0, 400])
    assert_same(policy, policy.merge(learnt[250, 400], learnt[0, 250]), learnt[0, 400])
    left = policy.unlearn(learnt[0, 400], part(columns, slice(250, 400)))
    assert_same(policy, left, learnt[0, 250])
    assert_same(policy, policy.unlearn(left, part(columns, slice(0, 250))), policy.initial_state())


def test_an_arm_that_nothing_is_left_of_is_gone():
    policy = DisjointLinUCB(dim=2)
    rewards = RewardBatch(["a", "b", "b"], [1.0, 2.0, 3.0], np.array([[1, 2], [3, 4], [5, 6]]))
    state = policy.learn(policy.initial_state(), rewards)
    left = policy.unlearn(state, RewardBatch(["a"], [1.0], np.array([[1, 2]])))
    assert left.item_ids.tolist() == ["b"]
    merged = policy.merge(left, policy.learn(policy.initial_state(), RewardBatch(["c"], [0.0], [[1, 1]])))
    assert merged.item_ids.tolist() == ["b", "c"]
    with pytest.raises(InvalidBatch, match="type of id"):
        policy.merge(left, policy.learn(policy.initial_state(), RewardBatch([7], [0.0], [[1, 1]])))


def test_rewards_that_were_never_learnt_are_refused(policy):
    columns = world()
    state = policy.learn(policy.initial_state(), part(columns, slice(30)))
    before = policy.dumps(state)
    with pytest.raises(InvalidBatch, match=f"{policy.name} was told to unlearn"):
        policy.unlearn(state, part(columns, slice(60)))
    assert policy.dumps(state) == before


def test_what_is_no_sum_says_so():
    for policy in (
        LinearThompson(dim=DIM, half_life=10.0),
        DisjointLinUCB(dim=DIM, half_life=10.0),
        LogisticThompson(dim=DIM),
        BootstrappedThompson(dim=DIM),
    ):
        state = policy.initial_state()
        assert not policy.additive
        with pytest.raises(InvalidPolicy, match=f"{policy.name} has learnt is no sum"):
            policy.merge(state, state)
        with pytest.raises(InvalidPolicy, match=f"{policy.name} has learnt is no sum"):
            policy.unlearn(state, RewardBatch(["a"], [1.0], np.ones((1, DIM))))


def test_slots_and_strategies_add_up():
    policy = SlotStrategies(("score", "random"))
    columns = {
        "item_ids": np.arange(8),
        "values": np.arange(8.0),
        "slots": np.arange(8) % 2,
        "strategies": np.array(["score", "random", "", "score"] * 2),
    }
    whole = policy.learn(policy.initial_state(), part(columns, slice(8)))
    halves = [policy.learn(policy.initial_state(), part(columns, rows)) for rows in (slice(4), slice(4, 8))]
    assert_same(policy, policy.merge(*halves), whole)
    assert_same(policy, policy.unlearn(whole, part(columns, slice(4, 8))), halves[0])
