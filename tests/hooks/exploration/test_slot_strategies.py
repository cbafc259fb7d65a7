"""Slot allocation: shares by hand, fair credit, and a bandit that finds the strategy of each slot."""

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration import RankingBatch, RewardBatch, SlotStrategies, build_slate
from explorank.hooks.exploration.slot_strategies import NOBODY

ALL = np.ones(4, dtype=bool)
BATCH = RankingBatch(
    list("abcd"),
    features=[[0.0, 0.0], [1.0, 0.0], [0.0, 5.0], [1.0, 5.0]],
    scores=[4.0, 3.0, 2.0, 1.0],
    uncertainty=[0.1, 0.2, 0.9, 0.3],
    columns={
        "first_seen": np.array([5.0, 1.0, np.nan, 9.0]),
        "popularity": np.array([10, 40, 20, 30]),
        "price": np.array([2.0, 2.0, 8.0, 9.0]),
    },
)


def contest(strategies, batch=BATCH, floor=0.2, state=None, seed=0, **options):
    policy = SlotStrategies(strategies, floor=floor, **options)
    state = policy.initial_state() if state is None else state
    return policy.contest(state, batch, np.ones(len(batch), bool), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("strategy", "top", "below_a"),
    [
        ("score", "a", "b"),
        ("newest", "d", "d"),  # c, whose age is unknown, comes last
        ("popular", "b", "b"),
        ("uncertain", "c", "c"),
        ("diverse", "a", "d"),  # √26 from a; on top the best score
        ("price", "d", "d"),
        ("-price", "ab", "b"),  # a tie is shared
        ("random", "abcd", "bcd"),
    ],
)
def test_what_a_strategy_places(strategy, top, below_a):
    chosen = contest((strategy,))
    below = ALL & (BATCH.item_ids != "a")
    for items, mask, slot, placed in ((top, ALL, 0, NOBODY), (below_a, below, 1, np.array([0]))):
        expected = np.isin(BATCH.item_ids, list(items)) / len(items)
        assert chosen.distribution(mask, slot, placed) == pytest.approx(expected, abs=1e-15)


def test_diverse_looks_at_the_nearest_of_the_slate_above():
    batch = RankingBatch(list("abcd"), [[0.0], [1.0], [4.0], [9.0]], scores=[0.0] * 4)
    left = np.array([False, True, True, False])
    # Beside a at 0 and d at 9: b is 1 from the nearest, c is 4.
    answer = contest(("diverse",), batch).distribution(left, 2, np.array([0, 3]))
    assert answer.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_an_item_has_the_shares_of_all_strategies_that_would_place_it():
    """`score` and `diverse` agree on a; `popular` places b. The floor is halved between a and b."""
    chosen = contest(("score", "diverse", "popular"), draws=512)
    answer = chosen.distribution(ALL)
    wins = np.random.default_rng(0).standard_normal((3, 512)).argmax(axis=0)
    agreed = np.mean(wins < 2)
    assert answer == pytest.approx([0.8 * agreed + 0.1, 0.8 * (1.0 - agreed) + 0.1, 0.0, 0.0])


def test_a_strategy_serves_several_slots():
    """By score alone, the slate is the ranking; each slot is certain."""
    policy = SlotStrategies(("score",))
    slate = build_slate(policy, policy.initial_state(), BATCH, 4, explore_slots=(0, 1, 2))
    assert slate.order.tolist() == [0, 1, 2, 3]
    assert slate.propensities.tolist() == [1.0] * 4
    assert slate.strategies[3] == ""  # it does not explore
    assert set(slate.strategies[:3]) <= {"score", ""}  # the floor may be named instead


def test_the_named_strategy_has_the_law_of_drawing_it_first():
    """Credits given the item: 0.8·π / p for each that would place it, the floor's part for none.

    Over 4,000 even uniforms the shares are exact to 1 / 4,000 each.
    """
    policy = SlotStrategies(("score", "diverse", "popular"), floor=0.2, draws=512)
    chosen = policy.contest(policy.initial_state(), BATCH, ALL, np.random.default_rng(0))
    wins = np.random.default_rng(0).standard_normal((3, 512)).argmax(axis=0)
    share = np.bincount(wins, minlength=3) / 512
    probability = 0.8 * (share[0] + share[1]) + 0.1
    named = [chosen.strategy(0, uniform, ALL) for uniform in np.arange(0.5, 4_000) / 4_000]
    for strategy, expected in (
        ("score", 0.8 * share[0] / probability),
        ("diverse", 0.8 * share[1] / probability),
        ("popular", 0.0),
        ("", 0.1 / probability),
    ):
        assert named.count(strategy) / 4_000 == pytest.approx(expected, abs=1 / 4_000)


def test_a_posterior_by_hand():
    """Two rewards at noise 2 are worth half the prior: λ = 1 + 2/4, mean = (1·0.5 + 3/4) / 1.5."""
    policy = SlotStrategies(("score", "random"), prior_mean=0.5, noise=2.0)
    rewards = RewardBatch(
        ["a", "b", "c", "d"],
        [1.0, 2.0, 9.0, 9.0],
        slots=[1, 1, 0, 1],
        strategies=["random", "random", "random", ""],
    )
    state = policy.learn(policy.initial_state(), rewards)
    mean, deviation = policy.posterior(state, 1)
    assert mean == pytest.approx([0.5, 1.25 / 1.5])
    assert deviation == pytest.approx([1.0, 1.5**-0.5])
    assert policy.posterior(state, 7)[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("strategy", "named"), [("first_seen2", "'first_seen2'"), ("diverse", "features"), ("word", "numeric")]
)
def test_what_a_strategy_lacks_is_named(strategy, named):
    batch = RankingBatch(["a", "b"], columns={"word": np.array(["x", "y"])})
    with pytest.raises(InvalidBatch, match=named):
        contest((strategy,), batch)


def test_learning_is_fair_to_a_strategy_that_agrees_with_others():
    """The means that are learnt are those of always following each strategy, whoever else places the item.

    Items a, b, c earn 0.9, 0.5, 0.1 with noise ±0.1; `score` and `first` agree on a in slot 0, `last` places
    c, `random` any: 0.9, 0.9, 0.1, 0.5. Each mean's error is at most 0.33 (of `random`) / sqrt(its count); the
    bound is 4.5 of those, so that a correct implementation fails 4 times in 10⁵.
    """
    rng = np.random.default_rng(3)
    worth = np.array([0.9, 0.5, 0.1])
    batch = RankingBatch(
        list("abc"),
        scores=worth,
        columns={"first": np.array([9.0, 0.0, 0.0]), "last": np.array([0.0, 0.0, 9.0])},
    )
    policy = SlotStrategies(("score", "first", "last", "random"), floor=0.3, draws=64)
    prior = policy.initial_state()  # never updated, so that every strategy goes on being chosen
    slates = [build_slate(policy, prior, batch, 1, seed=seed) for seed in range(6_000)]
    rows = np.array([slate.order[0] for slate in slates])
    rewards = RewardBatch(
        batch.item_ids[rows],
        worth[rows] + rng.uniform(-0.1, 0.1, size=len(rows)),
        slots=np.zeros(len(rows), int),
        strategies=[slate.strategies[0] for slate in slates],
    )
    state = policy.learn(prior, rewards)
    counts, totals = state.at(state.rows(np.array([f"0:{strategy}" for strategy in policy.strategies])))
    assert (counts > 500).all()
    off = np.abs(totals / counts - [0.9, 0.9, 0.1, 0.5])
    assert (off <= 4.5 * np.array([0.06, 0.06, 0.06, 0.33]) / np.sqrt(counts)).all()


def test_each_slot_finds_its_own_strategy():
    """Cheap items earn on top, dear ones below: after 400 slates each slot follows what earns there."""
    rng = np.random.default_rng(8)
    policy = SlotStrategies(("price", "-price", "random"), noise=0.5, draws=64)
    state = policy.initial_state()
    for seed in range(400):
        batch = RankingBatch(np.arange(20), columns={"price": rng.random(20)})
        slate = build_slate(policy, state, batch, 2, seed=seed)
        prices = batch.columns["price"][slate.order]
        paid = rng.random(2) < np.array([1.0 - prices[0], prices[1]])
        rewards = RewardBatch(
            batch.item_ids[slate.order], paid.astype(float), slots=[0, 1], strategies=slate.strategies
        )
        state = policy.learn(state, rewards)
    final = policy.contest(state, batch, np.ones(20, bool), np.random.default_rng(0))
    prices = batch.columns["price"]
    assert final.distribution(np.ones(20, bool), 0)[prices.argmin()] > 0.9
    below = np.arange(20) != prices.argmin()
    assert final.distribution(below, 1, np.array([prices.argmin()]))[prices.argmax()] > 0.9


def test_eight_strategies_fill_ten_slots():
    rng = np.random.default_rng(1)
    columns = {name: rng.random(1_000) for name in ("first_seen", "popularity", "price", "margin")}
    batch = RankingBatch(
        np.arange(1_000), rng.standard_normal((1_000, 8)), rng.random(1_000), rng.random(1_000), columns
    )
    strategies = ("score", "newest", "popular", "uncertain", "diverse", "random", "-price", "margin")
    policy = SlotStrategies(strategies, floor=0.1)
    slates = [build_slate(policy, policy.initial_state(), batch, 10, seed=seed) for seed in range(60)]
    assert {name for slate in slates for name in slate.strategies} == {*strategies, ""}
    for slate in slates:
        assert len(set(slate.order.tolist())) == 10
        assert (slate.propensities >= slate.floor / slate.support.sum(axis=1)).all()
