"""UCB1: indices that can be worked out by hand, and who is shown by them."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import UCB1, RankingBatch, RewardBatch, build_slate


def test_the_indices_by_hand():
    """Four rewards in all: 2/3 of 3 for a, 1/2 of 1 for b, none for c."""
    policy = UCB1()
    state = policy.learn(policy.initial_state(), RewardBatch(list("aaba"), [1.0, 0.0, 0.5, 1.0]))
    assert state.counts.tolist() == [3.0, 1.0]
    expected = [0.5 + math.sqrt(2 * math.log(4)), math.inf, 2 / 3 + math.sqrt(2 * math.log(4) / 3)]
    assert policy.indices(state, np.array(list("bca"))) == pytest.approx(expected)
    narrow = UCB1(alpha=0.25)
    expected = [
        0.5 + 0.25 * math.sqrt(2 * math.log(4)),
        math.inf,
        2 / 3 + 0.25 * math.sqrt(2 * math.log(4) / 3),
    ]
    assert narrow.indices(state, np.array(list("bca"))) == pytest.approx(expected)


def test_weights_examination_and_offsets_count():
    policy = UCB1()
    rewards = RewardBatch(
        list("aab"),
        [1.0, 3.0, 0.2],
        weights=[2.0, 1.0, 0.5],
        examination=[0.5, 1.0, 0.5],
        offsets=[0.0, 1.0, 0.2],
    )
    state = policy.learn(policy.initial_state(), rewards)
    assert state.counts.tolist() == [2.0, 0.25]
    assert state.totals.tolist() == [3.0, 0.0]
    # 2.25 rewards in all.
    assert policy.indices(state, np.array(["a"])) == pytest.approx([1.5 + math.sqrt(math.log(2.25))])


def test_less_than_one_reward_in_all_has_no_width():
    policy = UCB1()
    rewards = RewardBatch(list("ab"), [1.0, 1.0], weights=[0.25, 0.0])
    state = policy.learn(policy.initial_state(), rewards)
    # What was never looked at is as good as unseen.
    assert policy.indices(state, np.array(["a", "b"])).tolist() == [1.0, math.inf]
    faint = policy.learn(policy.initial_state(), RewardBatch(list("ab"), [1.0, 1.0], weights=[5e-324, 9.0]))
    assert policy.indices(faint, np.array(["a"])).tolist() == [math.inf]


def test_the_highest_index_is_shown_but_for_the_floor():
    policy = UCB1(floor=0.2)
    rewards = RewardBatch(list("abc"), [0.9, 0.5, 0.1], weights=[10.0, 10.0, 10.0])
    state = policy.learn(policy.initial_state(), rewards)
    batch = RankingBatch(list("bca"))
    for seed in range(20):
        slate = build_slate(policy, state, batch, 3, seed=seed)
        first = int(slate.order[0])
        assert slate.propensities[0] == pytest.approx(0.8 + 0.2 / 3 if first == 2 else 0.2 / 3)
        left = [row for row in (2, 0, 1) if row != first]
        best = left[0] == slate.order[1]
        assert slate.propensities[1] == pytest.approx(0.8 + 0.2 / 2 if best else 0.2 / 2)


def test_unseen_items_come_first_and_the_seed_breaks_their_tie():
    policy = UCB1(floor=0.05)
    state = policy.learn(policy.initial_state(), RewardBatch(["known"], [1.0]))
    batch = RankingBatch(["new", "known", "newer"])
    seeds = 20_000
    counts = Counter(int(build_slate(policy, state, batch, 1, seed=seed).order[0]) for seed in range(seeds))
    expected = seeds * np.array([0.475 + 0.05 / 3, 0.05 / 3, 0.475 + 0.05 / 3])
    assert stats.chisquare([counts[row] for row in range(3)], expected).pvalue > 1e-4


def test_every_item_is_tried_once_before_any_twice():
    policy, ids = UCB1(floor=0.0), np.array([f"i{row}" for row in range(12)])
    state, shown = policy.initial_state(), []
    for seed in range(12):
        item = ids[build_slate(policy, state, RankingBatch(ids), 1, seed=seed).order[0]]
        shown.append(item)
        state = policy.learn(state, RewardBatch([item], [1.0 - seed / 12]))
    assert sorted(shown) == sorted(ids.tolist())


def test_regret_stays_below_the_bound_of_the_paper():
    """Theorem 1: at most 8 Σ ln T / Δ + (1 + π²/3) Σ Δ on average; five runs, each below it."""
    means, rounds, policy = np.array([0.8, 0.2, 0.1]), 600, UCB1(floor=0.0)
    gaps = 0.8 - means[1:]
    bound = 8 * (math.log(rounds) / gaps).sum() + (1 + math.pi**2 / 3) * gaps.sum()
    batch, regrets = RankingBatch(np.arange(3)), []
    for run in range(5):
        rng, state, regret = np.random.default_rng(run), policy.initial_state(), 0.0
        for step in range(rounds):
            row = int(build_slate(policy, state, batch, 1, seed=rounds * run + step).order[0])
            state = policy.learn(state, RewardBatch([row], [float(rng.random() < means[row])]))
            regret += 0.8 - means[row]
        regrets.append(regret)
    assert max(regrets) < bound
    # Never learning costs 0.43 a round.
    assert max(regrets) < 0.25 * rounds * (0.8 - means.mean())


def test_numbers_that_are_no_reward_are_refused():
    policy = UCB1()
    with pytest.raises(InvalidBatch, match="offset"):
        policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], offsets=[math.nan]))


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0}, {"alpha": math.inf}, {"floor": -0.1}, {"floor": math.nan}], ids=str
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of ucb1"):
        UCB1(**options)
