"""What is learnt over one network's last layer stays apart from what is learnt over another's."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from explorank.hooks.errors import CorruptState, InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import (
    BetaThompson,
    LinearThompson,
    NeuralLinear,
    PerRepresentation,
    RankingBatch,
    RewardBatch,
    SlidingWindow,
    build_slate,
)


def rewards_over(names, seed=0, dim=2):
    rng = np.random.default_rng(seed)
    m = len(names)
    return RewardBatch(
        np.arange(m),
        rng.standard_normal(m),
        rng.standard_normal((m, dim)),
        representations=np.array(list(names), dtype=np.str_),
    )


def cut(rewards, start, end):
    rows = slice(start, end)
    return RewardBatch(
        rewards.item_ids[rows],
        rewards.values[rows],
        rewards.features[rows],
        representations=rewards.representations[rows],
    )


@hypothesis_settings(max_examples=40)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=24), st.lists(st.integers(0, 24), max_size=4))
def test_each_representation_has_the_posterior_of_its_own_rewards(names, cuts):
    inner = LinearThompson(dim=2)
    policy = PerRepresentation(inner, kept=3)
    rewards = rewards_over(names)
    state = policy.initial_state()
    ends = sorted({0, len(names), *(at for at in cuts if at < len(names))})
    for start, end in pairwise(ends):
        state = policy.learn(state, cut(rewards, start, end))
    for name in "abc":
        own = np.flatnonzero(np.array(names) == name)
        if not len(own):
            assert state.over(name) is None
            continue
        alone = inner.learn(
            inner.initial_state(), RewardBatch(own, rewards.values[own], rewards.features[own])
        )
        np.testing.assert_allclose(state.over(name).precision, alone.precision, rtol=1e-9)
        np.testing.assert_allclose(state.over(name).mean, alone.mean, rtol=1e-9, atol=1e-12)
    # The one learnt from latest stands last, however the log was cut.
    assert state.states[-1][0] == names[-1]
    assert state.version == len(ends) - 1


def test_the_one_longest_not_learnt_from_is_forgotten():
    policy = PerRepresentation(LinearThompson(dim=2), kept=2)
    state = policy.learn(policy.initial_state(), rewards_over("abac"))
    assert [name for name, _ in state.states] == ["a", "c"]


def test_a_request_is_answered_over_its_representation():
    """One reward of 1 for the first column over `new`: there the item of that column leads, elsewhere nobody does."""
    policy = PerRepresentation(NeuralLinear(dim=2, floor=0.1, draws=64))
    taught = RewardBatch(
        np.arange(60),
        np.tile([1.0, 0.0], 30),
        np.tile(np.eye(2), (30, 1)),
        representations=np.array(["new"] * 60),
    )
    state = policy.learn(policy.initial_state(), taught)

    def shares(representation):
        batch = RankingBatch(np.array(["x", "y"]), np.eye(2), representation=representation)
        slates = [build_slate(policy, state, batch, n_slots=1, seed=seed) for seed in range(80)]
        return np.mean([slate.order[0] == 0 for slate in slates])

    assert shares("new") > 0.9
    assert 0.3 < shares("old") < 0.7
    assert 0.3 < shares("") < 0.7


def test_states_come_back_as_they_were_saved():
    for inner in (NeuralLinear(dim=2), SlidingWindow(LinearThompson(dim=2), rewards=4, blocks=2)):
        policy = PerRepresentation(inner)
        state = policy.learn(policy.initial_state(), rewards_over("aabcb"))
        again = policy.loads(policy.dumps(state))
        assert again.version == state.version
        batch = RankingBatch(np.arange(4), np.random.default_rng(1).standard_normal((4, 2)))
        for name in "abcd":
            named = RankingBatch(batch.item_ids, batch.features, representation=name)
            expected, found = (build_slate(policy, one, named, n_slots=2, seed=3) for one in (state, again))
            assert found.order.tolist() == expected.order.tolist()
            np.testing.assert_allclose(found.propensities, expected.propensities)


def test_it_answers_for_the_policy_it_keeps_apart():
    policy = PerRepresentation(NeuralLinear(dim=7, floor=0.2))
    assert (policy.name, policy.dim, policy.exploration_floor) == ("represented_neural_linear", 7, 0.2)
    assert policy.needs_features
    assert policy.learns_residuals
    assert not policy.additive  # what was forgotten cannot be taken out again
    likely = PerRepresentation(BetaThompson())
    some = RewardBatch(np.array(["i", "j"]), np.ones(2), representations=np.array(["a", "b"]))
    assert likely.expected(likely.initial_state(), some).tolist() == [0.5, 0.5]
    assert policy.expected(policy.initial_state(), rewards_over("ab", dim=7)) is None


def test_unfit_rewards_and_damaged_states_are_refused():
    policy = PerRepresentation(LinearThompson(dim=2), kept=2)
    state = policy.learn(policy.initial_state(), rewards_over("ab"))
    with pytest.raises(InvalidBatch):
        policy.learn(state, rewards_over("ab", dim=3))
    with pytest.raises(InvalidBatch):
        policy.learn(state, RewardBatch(np.zeros(0), np.zeros(0)))
    meta, packed = policy.pack(state)
    for damage in (
        {"names": ["a"]},
        {"names": ["a", "a"]},
        {"version": -1},
        {"states": None},
    ):
        with pytest.raises(CorruptState, match="represented_linear_thompson"):
            policy.unpack({**meta, **damage}, packed)
    with pytest.raises(CorruptState, match=r"7\.mean"):
        policy.unpack(meta, {**packed, "7.mean": np.zeros(2)})
    with pytest.raises(InvalidPolicy, match="kept"):
        PerRepresentation(LinearThompson(dim=2), kept=0)
