"""Marginal position propensities: against all slates one by one, by hand, and against what is shown how often."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import special, stats

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration import (
    BetaThompson,
    EpsilonGreedy,
    Greedy,
    LinearThompson,
    LinUCB,
    PlackettLuce,
    PositionBased,
    RankingBatch,
    RewardBatch,
    Softmax,
    Uniform,
    build_slate,
    position_propensities,
    slate_log_propensity,
)
from explorank.hooks.guards import BlockList
from explorank.testing.restrictions import NotBelow

FALSE_ALARM = 1e-4


@dataclass(frozen=True)
class NotAfter:
    """Bars `second` from the slot right below `first`: the order of the slate above matters."""

    first: int
    second: int

    def eligible(self, request, batch, placed, slot):
        mask = np.ones(len(batch), dtype=bool)
        mask[self.second] = not len(placed) or placed[-1] != self.first
        return mask


GUARDS = (BlockList(items=["d"]), NotBelow("b", "e"), NotAfter(0, 2))


def enumerated(case, slots, seed, **options):
    """Return P(item in slot) by adding up the probabilities of all prefixes of all slates."""
    n = len(case.batch)
    total = np.zeros((slots, n))
    for length in range(1, slots + 1):
        for order in itertools.permutations(range(n), length):
            log = slate_log_propensity(case.policy, case.state, case.batch, order, seed=seed, **options)
            total[length - 1, order[-1]] += math.exp(log)
    return total


@pytest.mark.parametrize("explore_slots", [None, [0, 2]], ids=["all", "some"])
@pytest.mark.parametrize("guards", [(), GUARDS], ids=["free", "guarded"])
def test_given_the_draws_they_are_the_sums_over_all_slates(case, guards, explore_slots):
    options = {"guards": guards, "explore_slots": explore_slots}
    found = position_propensities(case.policy, case.state, case.batch, 3, given_draws_of=5, **options)
    assert found.exact
    np.testing.assert_allclose(
        found.probabilities, enumerated(case, 3, seed=5, **options), rtol=0, atol=1e-12
    )
    assert not found.standard_errors.any()
    # The guards may leave nobody for the third slot; without them every slot is filled.
    filled = found.probabilities.sum(axis=1)
    assert filled[:2] == pytest.approx(1.0)
    assert filled[2] <= 1.0 + 1e-12 if guards else filled[2] == pytest.approx(1.0)
    assert found.shown().max() <= 1.0 + 1e-12


def test_over_the_seeds_items_are_shown_that_often(case):
    """1,500 slates against the marginals, 15 z-scores per policy; the samples' own error is added in."""
    found = position_propensities(case.policy, case.state, case.batch, 3, guards=GUARDS, samples=1_500)
    # What draws nothing has a closed form; ties of scores do not matter where every slot explores.
    assert found.exact or case.policy.name not in CLOSED_FORMS
    seeds = 1_500
    shown = np.zeros((3, 5))
    for seed in range(seeds):
        slate = build_slate(case.policy, case.state, case.batch, 3, guards=GUARDS, seed=50_000 + seed)
        shown[range(len(slate)), slate.order] += 1
    expected = found.probabilities
    variance = expected * (1.0 - expected) / seeds + found.standard_errors**2
    z = np.abs(shown / seeds - expected) / np.sqrt(np.maximum(variance, 1e-18))
    assert z.max() < stats.norm.isf(FALSE_ALARM / 2 / 15)


CLOSED_FORMS = {
    "epsilon_greedy",
    "softmax",
    "plackett_luce",
    "square_cb",
    "ucb1",
    "exp3",
    "greedy",
    "uniform",
}


def test_two_slots_of_a_plackett_luce_model_by_hand():
    """P(i second) = Σ_j p_j · p_i / (1 - p_j)."""
    batch = RankingBatch(list("abc"), scores=np.log([3.0, 2.0, 1.0]))
    found = position_propensities(PlackettLuce(), PlackettLuce().initial_state(), batch, 2)
    assert found.exact
    first = [1 / 2, 1 / 3, 1 / 6]
    second = [1 / 3 * 3 / 4 + 1 / 6 * 3 / 5, 1 / 2 * 2 / 3 + 1 / 6 * 2 / 5, 1 / 2 * 1 / 3 + 1 / 3 * 1 / 4]
    np.testing.assert_allclose(found.probabilities, [first, second], rtol=1e-14)
    np.testing.assert_allclose(
        found.exposure(PositionBased((1.0, 0.5))), np.add(first, np.multiply(0.5, second)), rtol=1e-14
    )


def test_items_that_are_left_over_are_certain_to_be_shown():
    batch = RankingBatch(list("abcd"), scores=[3.0, 2.0, 1.0, 0.0])
    found = position_propensities(Uniform(), Uniform().initial_state(), batch, 9)
    assert found.probabilities.shape == (4, 4)
    np.testing.assert_allclose(found.probabilities, np.full((4, 4), 0.25))
    by_score = position_propensities(Uniform(), Uniform().initial_state(), batch, 2, explore_slots=[1])
    np.testing.assert_allclose(by_score.probabilities, [[1, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3]])


def test_a_slate_that_may_end_early_sums_to_how_far_it_gets():
    batch = RankingBatch(list("ab"))
    found = position_propensities(Uniform(), Uniform().initial_state(), batch, 2, guards=[NotBelow("a", "b")])
    np.testing.assert_allclose(found.probabilities, [[0.5, 0.5], [0.5, 0.0]])


def test_ties_of_scores_are_the_seed_s_to_break():
    """The slot by score holds either of two items; given a seed, one of them."""
    batch = RankingBatch(list("abc"), scores=[1.0, 1.0, 0.0])
    state, options = Uniform().initial_state(), {"explore_slots": [1]}
    over = position_propensities(Uniform(), state, batch, 2, samples=4_000, **options)
    assert not over.exact
    assert over.probabilities[0, :2] == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(4_000))
    given = position_propensities(Uniform(), state, batch, 2, given_draws_of=3, **options)
    assert given.exact
    assert sorted(given.probabilities[0].tolist()) == [0.0, 0.0, 1.0]


def test_ties_of_indices_are_even_over_the_seeds():
    """However a policy breaks them: by the seed, or by sharing the first place."""
    policy, batch = LinUCB(dim=1, floor=0.1), RankingBatch(list("abc"), [[1.0], [1.0], [0.5]])
    over = position_propensities(policy, policy.initial_state(), batch, 1, samples=4_000)
    shares = 0.9 * np.array([0.5, 0.5, 0.0]) + 0.1 / 3
    np.testing.assert_allclose(over.probabilities[0], shares, rtol=0, atol=5 * 0.45 / math.sqrt(4_000))
    given = position_propensities(policy, policy.initial_state(), batch, 1, given_draws_of=3)
    assert given.exact
    assert given.probabilities[0, 2] == pytest.approx(0.1 / 3)
    assert given.probabilities.sum() == pytest.approx(1.0)


def test_what_may_not_be_explored_is_shown_by_score_only():
    batch = RankingBatch(list("abc"), scores=[2.0, 1.0, 0.0])
    explorable = np.array([False, False, True])
    found = position_propensities(Uniform(), Uniform().initial_state(), batch, 2, explorable=explorable)
    assert found.exact
    assert found.probabilities.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_the_first_explored_slot_of_beta_arms_has_their_winning_probability():
    """Beta(3, 1) against Beta(1, 1): P(first wins) = E[X] = 3/4, floor 0.2; mixed by hand."""
    policy, ids = BetaThompson(floor=0.2, draws=64), np.array(["a", "b"])
    state = policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], weights=[2.0]))
    found = position_propensities(policy, state, RankingBatch(ids), 1, samples=2_000)
    assert not found.exact
    expected = 0.8 * 0.75 + 0.1
    assert abs(found.probabilities[0, 0] - expected) < 4 * found.standard_errors[0, 0]
    # 64 draws of a coin with p = 3/4, times 0.8, over 2,000 seeds; the spread is known to 1 / √4000 = 1.6 %.
    assert found.standard_errors[0, 0] == pytest.approx(
        0.8 * math.sqrt(0.75 * 0.25 / 64 / 2_000), rel=5 / math.sqrt(4_000)
    )


def test_samples_agree_with_enumeration_where_both_can_be_had(monkeypatch):
    """Softmax over seven items, four slots; the same call with no room to enumerate."""
    scores = np.random.default_rng(3).standard_normal(7)
    batch, policy = RankingBatch(np.arange(7), scores=scores), Softmax(temperature=0.5, floor=0.1)
    exact = position_propensities(policy, policy.initial_state(), batch, 4)
    monkeypatch.setattr("explorank.hooks.exploration.marginals._MOST_SLATES", 3)
    sampled = position_propensities(policy, policy.initial_state(), batch, 4, samples=1_500)
    again = position_propensities(policy, policy.initial_state(), batch, 4, samples=1_500)
    assert (exact.exact, sampled.exact) == (True, False)
    assert sampled.probabilities.tolist() == again.probabilities.tolist()
    first = 0.9 * special.softmax(scores / 0.5) + 0.1 / 7
    np.testing.assert_allclose(sampled.probabilities[0], first, rtol=1e-12)
    assert sampled.standard_errors[0].max() < 1e-12  # nothing above it to vary
    z = (sampled.probabilities[1:] - exact.probabilities[1:]) / sampled.standard_errors[1:]
    assert np.abs(z).max() < stats.norm.isf(FALSE_ALARM / 2 / z.size)


def test_slots_are_exact_as_far_down_as_slates_are_few():
    """ε-greedy over 200: 200 slates stand above the second explored slot, some 20,000 above the third."""
    scores = np.random.default_rng(5).standard_normal(200)
    policy, batch = EpsilonGreedy(epsilon=0.4), RankingBatch(np.arange(200), scores=scores)
    found = position_propensities(policy, policy.initial_state(), batch, 6, [1, 3, 5], samples=50)
    assert not found.exact
    assert not found.standard_errors[:4].any()
    assert found.standard_errors[4:].any()
    assert found.probabilities.sum(axis=1) == pytest.approx(1.0)
    first, second, third = np.argsort(-scores)[:3]
    # The best is placed on top; slot 1 draws, and slot 2 holds the best that is left.
    chance = 0.4 / 199
    assert found.probabilities[1, second] == pytest.approx(0.6 + chance)
    assert found.probabilities[2, [second, third]] == pytest.approx([0.4 - chance, 0.6 + chance])
    assert found.probabilities[:, first].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_a_pool_of_fifty_and_three_explored_slots_of_ten_are_exact_given_the_draws():
    rng = np.random.default_rng(4)
    batch = RankingBatch(np.arange(200), rng.standard_normal((200, 4)), scores=rng.standard_normal(200))
    policy = LinearThompson(dim=4, pool=50)
    found = position_propensities(policy, policy.initial_state(), batch, 10, [2, 5, 9], given_draws_of=1)
    assert found.exact
    assert found.probabilities.sum(axis=1) == pytest.approx(1.0)
    assert np.flatnonzero(found.probabilities[0]).tolist() == [int(np.argmax(batch.scores))]


def test_item_position_weights_recover_what_a_target_earns():
    """IIPS: 8,000 logged slates of a softmax, clicks by slot and item, against a greedy target's true value."""
    rng = np.random.default_rng(6)
    appeal, theta = np.array([0.5, 0.4, 0.2, 0.3]), np.array([1.0, 0.6])
    batch = RankingBatch(list("abcd"), scores=[1.0, 0.5, 0.0, 2.0])
    logging, target = Softmax(temperature=1.0, floor=0.2), EpsilonGreedy(epsilon=0.3)
    logged = position_propensities(logging, logging.initial_state(), batch, 2).probabilities
    wanted = position_propensities(target, target.initial_state(), batch, 2).probabilities
    truth = float((wanted * theta[:, None] * appeal).sum())
    estimates = np.zeros(8_000)
    for seed in range(len(estimates)):
        order = build_slate(logging, logging.initial_state(), batch, 2, seed=seed).order
        clicks = rng.random(2) < theta * appeal[order]
        estimates[seed] = (clicks * wanted[[0, 1], order] / logged[[0, 1], order]).sum()
    error = estimates.std() / math.sqrt(len(estimates))
    assert abs(estimates.mean() - truth) < stats.norm.isf(FALSE_ALARM / 2) * error
    assert error < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "`samples` is 1"),
        ({"given_draws_of": -1}, "seed is -1"),
        ({"explore_slots": [-1]}, "slots count from 0"),
    ],
)
def test_what_has_no_answer_is_refused(options, message):
    with pytest.raises(InvalidBatch, match=message):
        position_propensities(Greedy(), Greedy().initial_state(), RankingBatch(list("ab")), 1, **options)
    with pytest.raises(InvalidBatch, match="`n_slots` is -1"):
        position_propensities(Greedy(), Greedy().initial_state(), RankingBatch(list("ab")), -1)
