"""The record alone is enough: the logging policy gets its slate and its propensities back, bit by bit."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.evaluation import replay, target_propensities
from explorank.hooks.exploration import (
    EXP3,
    UCB1,
    BetaThompson,
    BootstrappedThompson,
    DisjointLinearThompson,
    DisjointLinUCB,
    EpsilonGreedy,
    GaussianThompson,
    Greedy,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralLinear,
    PlackettLuce,
    RankingBatch,
    RewardBatch,
    SlotStrategies,
    Softmax,
    SquareCB,
    Uniform,
    build_slate,
)
from explorank.hooks.guards import BlockList
from explorank.hooks.types import DecisionRecord, RankingRequest

N, DIM = 60, 4
POLICIES = {
    "epsilon": EpsilonGreedy(epsilon=0.3),
    "epsilon 0": EpsilonGreedy(epsilon=0.0),
    "greedy": Greedy(),
    "uniform": Uniform(),
    "softmax": Softmax(floor=0.1),
    "plackett-luce": PlackettLuce(),
    # Scores that are not the best have a probability too small for a float, until the best are placed.
    "plackett-luce, faint": PlackettLuce(temperature=1e-3),
    "square": SquareCB(gamma=50.0),
    "slot_strategies": SlotStrategies(("score", "price", "-price"), draws=32),
    "neural_linear": NeuralLinear(dim=DIM, pool=10, draws=32),
    "ucb": UCB1(),
    "ucb, no floor": UCB1(floor=0.0),
    "exp3": EXP3(),
    "gaussian": GaussianThompson(pool=10, draws=32),
    "beta": BetaThompson(pool=10, draws=32),
    "linear": LinearThompson(dim=DIM, pool=10, draws=32, floor=1e-6),
    "linear ucb": LinUCB(dim=DIM, pool=10),
    "disjoint ucb": DisjointLinUCB(dim=DIM, pool=10),
    "disjoint linear": DisjointLinearThompson(dim=DIM, pool=10, draws=32),
    "bootstrapped": BootstrappedThompson(dim=DIM, pool=10),
    "logistic": LogisticThompson(dim=DIM, pool=10, draws=32),
    # Fewer contenders than slots: the pool runs dry and is formed anew.
    "beta, small pool": BetaThompson(pool=2, draws=32),
    "linear, small pool": LinearThompson(dim=DIM, pool=2, draws=32),
    "linear ucb, small pool": LinUCB(dim=DIM, pool=2),
    "disjoint linear, small pool": DisjointLinearThompson(dim=DIM, pool=2, draws=32),
}


@dataclass(frozen=True)
class Alternating:
    """Even rows on even slots and odd rows on odd ones: newcomers at slot 1, some back at slot 2."""

    def eligible(self, request, batch, placed, slot):
        return (np.arange(len(batch)) % 2 == slot % 2) | (slot >= 3)


def learnt(policy, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.integers(N, size=100)
    ids, values, features = np.array([f"i{row}" for row in rows]), rng.random(100), rng.random((100, DIM))
    rewards = RewardBatch(
        ids,
        values,
        features,
        propensities=rng.uniform(0.1, 0.9, 100),
        slots=np.arange(100) % 6,
        strategies=np.repeat(["score", "price", "-price", ""], 25),
    )
    return policy.learn(policy.initial_state(), rewards)


def record_of(policy, state, seed, explore_slots=None, guards=(), n_slots=6, keep_features=True, scores=None):
    rng = np.random.default_rng(100 + seed)
    batch = RankingBatch(
        np.array([f"i{row}" for row in range(N)]),
        rng.standard_normal((N, DIM)),
        rng.integers(4, size=N).astype(float) if scores is None else scores,  # ties
        columns={"price": np.random.default_rng(seed).integers(9, size=N)},
    )
    slate = build_slate(policy, state, batch, n_slots, explore_slots, guards, seed=seed)
    needed = slate.support.any(axis=0)
    needed[slate.order] = True
    rows = np.flatnonzero(needed & keep_features)
    return DecisionRecord(
        request=RankingRequest(decision_id=str(seed), slots=n_slots),
        mode="live",
        arm="explore",
        item_ids=batch.item_ids,
        scores=batch.score_values,
        slate=slate,
        baseline_order=slate.order,
        feature_rows=rows,
        features=batch.features[rows],
        columns={"price": batch.columns["price"][rows]},
    )


@pytest.mark.parametrize(
    "guards", [(), (BlockList(items=["i3", "i4"]), Alternating())], ids=["free", "guarded"]
)
@pytest.mark.parametrize("explore_slots", [None, [1, 2, 5]], ids=["all", "some"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_logging_policy_gets_back_what_it_logged(policy, explore_slots, guards):
    state = learnt(policy)
    for seed in range(25):
        record = record_of(policy, state, seed, explore_slots, guards)
        again = replay(record, policy, state)
        for field in fields(record.slate):
            logged = getattr(record.slate, field.name)
            assert np.array_equal(getattr(again, field.name), logged), field.name
        assert target_propensities(record, policy, state).tolist() == record.slate.propensities.tolist()


def test_items_that_gain_a_probability_as_leaders_are_placed_are_replayed():
    """250 apart at temperature 1: the fourth is no part of the first slot's support, but of the second's."""
    policy = PlackettLuce()
    state = policy.initial_state()
    record = record_of(policy, state, 0, scores=-250.0 * np.arange(N))
    assert record.slate.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert record.slate.support[0].nonzero()[0].tolist() == [0, 1, 2]
    assert record.slate.support[2].nonzero()[0].tolist() == [2, 3, 4]
    again = replay(record, policy, state)
    assert again.support.tolist() == record.slate.support.tolist()
    assert target_propensities(record, policy, state).tolist() == record.slate.propensities.tolist()


def test_a_slate_that_the_guards_cut_short_is_rebuilt():
    policy = BetaThompson(pool=10, draws=16)
    blocked = BlockList(items=[f"i{row}" for row in range(3, N)])
    record = record_of(policy, learnt(policy), 1, guards=[blocked])
    assert len(record.slate) == 3
    assert replay(record, policy, learnt(policy)).order.tolist() == record.slate.order.tolist()


@pytest.mark.parametrize("target", POLICIES.values(), ids=POLICIES)
def test_a_target_has_the_whole_probability_on_the_support(target):
    """For one slot: what the target gives to each item that could have been logged sums to 1."""
    logging = LinearThompson(dim=DIM, pool=7, draws=32)
    logging_state, state = learnt(logging), learnt(target, seed=3)
    record = record_of(logging, logging_state, 5, n_slots=1)
    rows = record.slate.support[0].nonzero()[0]
    assert len(rows) == 7
    given = [
        target_propensities(
            replace(record, slate=replace(record.slate, order=np.array([row]))), target, state
        )[0]
        for row in rows
    ]
    assert sum(given) == pytest.approx(1.0, abs=1e-12)


def test_other_closed_forms_by_hand():
    state = Uniform().initial_state()
    record = record_of(Uniform(), state, 0, explore_slots=[0, 2], n_slots=3)
    assert target_propensities(record, Uniform(), state) == pytest.approx([1 / 60, 1.0, 1 / 58])
    epsilon = EpsilonGreedy(epsilon=0.6)
    first = int(record.slate.order[0])
    best = np.flatnonzero(record.scores == record.scores.max())
    expected = 0.6 / 60 + 0.4 * (first in best) / len(best)
    assert target_propensities(record, epsilon, epsilon.initial_state())[0] == pytest.approx(expected)


def test_other_draws_give_other_numbers_with_the_same_mean():
    policy = BetaThompson(pool=5, draws=64)
    state = learnt(policy)
    record = record_of(policy, state, 2, n_slots=1)
    by_seed = [target_propensities(record, policy, state, draws_seed=seed)[0] for seed in range(400)]
    assert len(set(by_seed)) > 5
    more = BetaThompson(pool=5, draws=64 * 400)
    exact = target_propensities(record, more, state)[0]
    # Both are shares of 25,600 draws: standard error at most sqrt(2 · 0.25 / 25,600) = 0.0044; bound 4.5.
    assert np.mean(by_seed) == pytest.approx(exact, abs=0.02)


def test_a_baseline_slate_needs_neither_features_nor_support():
    policy = LinearThompson(dim=DIM)
    record = record_of(policy, policy.initial_state(), 0, explore_slots=[], keep_features=False)
    assert target_propensities(record, policy, policy.initial_state()).tolist() == [1.0] * 6


def test_missing_features_are_named():
    policy = LinearThompson(dim=DIM)
    record = record_of(Uniform(), Uniform().initial_state(), 0, keep_features=False)
    with pytest.raises(InvalidBatch, match="no features of item 'i0'"):
        target_propensities(record, policy, policy.initial_state())
    # A policy without features asks for none.
    assert target_propensities(record, Greedy(), Greedy().initial_state()).shape == (6,)


def test_another_policy_draws_from_the_logged_support():
    logging = LinearThompson(dim=DIM, pool=8, draws=16)
    record = record_of(logging, learnt(logging), 3)
    other = replay(record, Uniform(), Uniform().initial_state())
    assert other.policy == "uniform"
    for slot, row in enumerate(other.order):
        assert record.slate.support[slot, row]
    assert len(set(other.order.tolist())) == len(other.order)


def test_a_column_that_the_record_lacks_is_named():
    record = replace(record_of(Uniform(), Uniform().initial_state(), 0), columns={})
    for strategy, lacking in (("price", "no column 'price'"), ("uncertain", "no column 'uncertainty'")):
        target = SlotStrategies(("score", strategy))
        with pytest.raises(InvalidBatch, match=lacking):
            target_propensities(record, target, target.initial_state())
    without = record_of(Uniform(), Uniform().initial_state(), 0, keep_features=False)
    diverse = SlotStrategies(("diverse",))
    with pytest.raises(InvalidBatch, match="no features of item"):
        target_propensities(without, diverse, diverse.initial_state())


def test_a_slate_that_does_not_explore_reads_no_columns():
    policy = SlotStrategies(("score", "price"))
    assert record_of(policy, policy.initial_state(), 0, explore_slots=[]).slate.reads == ()
    assert record_of(policy, policy.initial_state(), 0, explore_slots=[1]).slate.reads == ("price",)
