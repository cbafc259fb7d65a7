"""Policies that add up what came back, item by item: the same sums whatever the batches."""

from dataclasses import replace

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import EXP3, UCB1, BetaThompson, GaussianThompson, RewardBatch

POLICIES = {policy.name: policy for policy in (BetaThompson(), GaussianThompson(), UCB1(), EXP3())}


@pytest.fixture(params=POLICIES.values(), ids=POLICIES)
def policy(request):
    return request.param


def rewards_of(ids, values, **columns):
    return RewardBatch(ids, values, **{"propensities": np.full(len(ids), 0.5), **columns})


def sums(state):
    return {name: getattr(state, name).tolist() for name in state.names()}


@pytest.mark.parametrize("size", [1, 7, 100])
def test_learning_is_pure_and_does_not_depend_on_how_it_is_batched(policy, size):
    rng = np.random.default_rng(0)
    ids, values, given = rng.choice(list("abcdefgh"), 200), rng.random(200), rng.uniform(0.1, 0.9, 200)
    whole = policy.learn(policy.initial_state(), RewardBatch(ids, values, propensities=given))
    state = policy.initial_state()
    for start in range(0, 200, size):
        before, rows = policy.dumps(state), slice(start, start + size)
        following = policy.learn(state, RewardBatch(ids[rows], values[rows], propensities=given[rows]))
        assert policy.dumps(state) == before
        state = following
    assert state.version == -(-200 // size)
    # To the last bit: a restart that learns the same log in other batches serves the same slates.
    assert sums(state) == sums(whole)
    assert state.item_ids.tolist() == whole.item_ids.tolist() == list(dict.fromkeys(ids.tolist()))


def test_items_appear_with_their_first_reward(policy):
    state = policy.initial_state()
    assert state.rows(np.array(["a"])).tolist() == [-1]
    state = policy.learn(state, rewards_of(["b"], [1.0]))
    state = policy.learn(state, rewards_of(["a much longer id", "b", "a"], [1.0, 0.0, 0.5]))
    assert state.item_ids.tolist() == ["b", "a much longer id", "a"]
    assert state.rows(np.array(["a", "never", "b"])).tolist() == [2, -1, 0]
    for values in state.at(np.array([2, -1, 0])):
        assert values[1] == 0.0


def test_an_empty_batch_only_moves_the_version(policy):
    state = policy.learn(policy.initial_state(), rewards_of(["a"], [1.0]))
    following = policy.learn(state, rewards_of([], []))
    assert following.version == 2
    assert sums(following) == sums(state)


def test_ids_may_be_numbers_or_text_held_as_objects(policy):
    numbers = policy.learn(policy.initial_state(), rewards_of([7, 7, 9], [1.0, 1.0, 0.0]))
    assert policy.loads(policy.dumps(numbers)).item_ids.tolist() == [7, 9]
    objects = policy.learn(
        policy.initial_state(), rewards_of(np.array(["a", "bb"], dtype=object), [1.0, 0.0])
    )
    assert policy.loads(policy.dumps(objects)).item_ids.tolist() == ["a", "bb"]
    with pytest.raises(InvalidBatch, match=f"{policy.name}.*one type of id"):
        policy.learn(numbers, rewards_of(["a"], [1.0]))


@pytest.mark.parametrize(
    "columns",
    [{"weights": [-1.0, 1.0]}, {"weights": [1.0, np.inf]}, {"examination": [1.0, np.nan]}],
    ids=str,
)
def test_weights_without_a_meaning_are_refused(policy, columns):
    with pytest.raises(InvalidBatch, match=f"`{next(iter(columns))}`"):
        policy.learn(policy.initial_state(), rewards_of(["a", "b"], [1.0, 0.5], **columns))


def test_sums_that_overflow_are_refused_and_leave_the_state_alone(policy):
    state = policy.learn(policy.initial_state(), rewards_of(["a"], [1.0]))
    before = policy.dumps(state)
    with pytest.raises(InvalidBatch, match=f"of {policy.name} would no longer be finite"):
        policy.learn(state, rewards_of(["a", "a"], [1.0, 1.0], weights=[1.7e308, 1.7e308]))
    assert policy.dumps(state) == before


@pytest.mark.parametrize("size", [1, 7, 200])
def test_rewards_count_half_after_a_half_life_of_the_whole_log(policy, size):
    """By hand: each reward's addend times 2^(-how many came after it / half-life), whatever the batches."""
    forgetful = replace(policy, half_life=20.0)
    rng = np.random.default_rng(3)
    ids, values, given = rng.choice(list("abcd"), 200), rng.random(200), rng.uniform(0.1, 1.0, 200)
    given[::9] = 1.0
    state = forgetful.initial_state()
    for start in range(0, 200, size):
        rows = slice(start, start + size)
        state = forgetful.learn(state, RewardBatch(ids[rows], values[rows], propensities=given[rows]))
    one_by_one = [
        policy.learn(policy.initial_state(), RewardBatch([i], [v], propensities=[p]))
        for i, v, p in zip(ids, values, given, strict=True)
    ]
    for name in state.names():
        due = dict.fromkeys(state.item_ids.tolist(), 0.0)
        for age, single in enumerate(reversed(one_by_one)):
            for item, addend in zip(single.item_ids.tolist(), getattr(single, name).tolist(), strict=True):
                due[item] += addend * 2.0 ** (-age / 20.0)
        np.testing.assert_allclose(getattr(state, name), list(due.values()), rtol=1e-12)
    assert not forgetful.additive
    with pytest.raises(InvalidPolicy, match="no sum over rewards"):
        forgetful.merge(state, state)
    with pytest.raises(InvalidPolicy, match="no sum over rewards"):
        forgetful.unlearn(state, rewards_of(["a"], [1.0]))


def test_merging_adds_up_and_unlearning_takes_out(policy):
    rng = np.random.default_rng(4)
    ids, values, given = rng.choice(list("abcdefgh"), 300), rng.random(300), rng.uniform(0.1, 0.9, 300)

    def learnt(rows):
        return policy.learn(
            policy.initial_state(), RewardBatch(ids[rows], values[rows], propensities=given[rows])
        )

    whole, merged = learnt(slice(None)), policy.merge(learnt(slice(180)), learnt(slice(180, None)))
    assert merged.version == 2
    assert merged.item_ids.tolist() == whole.item_ids.tolist()
    left = policy.unlearn(whole, RewardBatch(ids[180:], values[180:], propensities=given[180:]))
    for name in whole.names():
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-12)
        np.testing.assert_allclose(getattr(left, name), getattr(learnt(slice(180)), name), rtol=1e-9)
    nothing = policy.unlearn(left, RewardBatch(ids[:180], values[:180], propensities=given[:180]))
    assert nothing.item_ids.tolist() == []
    assert nothing.version == 3


def test_what_was_not_learnt_cannot_be_unlearnt(policy):
    state = policy.learn(policy.initial_state(), rewards_of(["a", "b"], [1.0, 0.5]))
    before = policy.dumps(state)
    for ids, values in ((["c"], [1.0]), (["a", "a", "a"], [1.0, 1.0, 1.0])):
        with pytest.raises(InvalidBatch, match=f"{policy.name} was told to unlearn more.*'{ids[0]}'"):
            policy.unlearn(state, rewards_of(ids, values))
    assert policy.dumps(state) == before
