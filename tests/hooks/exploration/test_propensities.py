"""The logged number is the true probability: tested as statistics, each with its rate of false alarm.

All seeds are fixed, so that a test either always passes or always fails; the rates say how likely a correct
implementation would have been to fail when the seeds were chosen.
"""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import integrate, stats

from explorank.hooks.exploration import (
    EXP3,
    UCB1,
    BetaThompson,
    EpsilonGreedy,
    GaussianThompson,
    Greedy,
    LinearThompson,
    PlackettLuce,
    RankingBatch,
    RewardBatch,
    Softmax,
    SquareCB,
    Uniform,
    build_slate,
    slate_log_propensity,
)
from explorank.hooks.guards import BlockList
from explorank.testing.restrictions import NotBelow, NotOnTop

SEEDS = 20_000
FALSE_ALARM = 1e-4  # of each test, over everything that it compares


GUARDS = (BlockList(items=("d",)), NotBelow("b", "e"), NotOnTop("a"))


def test_inverse_propensities_average_to_one(case):
    """Given that an item could be drawn, 1{drawn} / propensity has mean 1: for each item, at each slot."""
    slots, n = 3, len(case.batch)
    weights = np.zeros((SEEDS, slots, n))
    possible = np.zeros((SEEDS, slots, n), dtype=bool)
    for seed in range(SEEDS):
        slate = build_slate(case.policy, case.state, case.batch, slots, guards=GUARDS, seed=seed)
        assert len(slate) == slots
        possible[seed] = slate.support
        weights[seed, range(slots), slate.order] = 1.0 / slate.propensities
        if not isinstance(case.policy, Greedy):
            assert (slate.support == slate.eligible).all()

    count = possible.sum(axis=0)
    assert (count[:, 3] == 0).all()  # blocked
    assert count[0, 0] == 0  # barred from the top
    compared = count > 0
    assert compared.sum() >= (4 if isinstance(case.policy, Greedy) else 11)
    # A martingale difference over seeds: its sum is normal with the summed squares as variance.
    difference = np.where(possible, weights - 1.0, 0.0)
    spread = np.sqrt((difference**2).sum(axis=0))
    z = np.abs(difference.sum(axis=0)[compared]) / np.maximum(spread[compared], 1e-12)
    bound = stats.norm.isf(FALSE_ALARM / 2 / compared.sum())
    assert z.max() < bound
    # The stated error: at the bound, no mean is off by more than this.
    assert (bound * spread[compared] / count[compared]).max() < 0.2


def test_an_estimate_logged_beside_a_plain_draw_would_be_found_out():
    """The process that is *not* used: show another draw's winner and log p̂. The same bound rejects it."""
    policy = BetaThompson(floor=0.2, draws=16)
    state, eligible, batch = policy.initial_state(), np.ones(3, dtype=bool), RankingBatch(list("abc"))
    estimates = np.array(
        [
            policy.contest(state, batch, eligible, np.random.default_rng(seed)).distribution(eligible)
            for seed in range(SEEDS)
        ]
    )
    # Equal arms: plain Thompson sampling with the floor shows each with probability 1/3.
    shown = np.random.default_rng(SEEDS).integers(3, size=SEEDS)[:, None] == np.arange(3)
    difference = shown / estimates - 1.0
    z = difference.sum(axis=0) / np.sqrt((difference**2).sum(axis=0))
    assert z.min() > stats.norm.isf(FALSE_ALARM)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (EpsilonGreedy(epsilon=0.4), [0.1, 0.4, 0.4, 0.1]),
        (Greedy(), [0.0, 0.5, 0.5, 0.0]),
        (Uniform(), [0.25, 0.25, 0.25, 0.25]),
        # Of 1 + e + e + 1/e, four fifths, and a fifth of a quarter each.
        (Softmax(floor=0.2), 0.05 + 0.8 * np.exp([0.0, 1.0, 1.0, -1.0]) / (1 + 2 * math.e + 1 / math.e)),
        # Gaps of 1 and 2: 1 / (4 + 8) and 1 / (4 + 16); the two best share the rest of 1.
        (SquareCB(gamma=8.0), [1 / 12, 26 / 60, 26 / 60, 1 / 20]),
        (SquareCB(gamma=8.0, floor=0.6), [11 / 60, 97 / 300, 97 / 300, 17 / 100]),
        # Nothing is known of any item.
        (UCB1(floor=0.1), [0.25, 0.25, 0.25, 0.25]),
        (EXP3(), [0.25, 0.25, 0.25, 0.25]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_frequencies_match_the_closed_form(policy, expected):
    batch = RankingBatch(["a", "b", "c", "d"], scores=[0.0, 1.0, 1.0, -1.0])
    state = policy.initial_state()
    slates = [build_slate(policy, state, batch, 1, seed=seed) for seed in range(SEEDS)]
    rows = np.array([int(slate.order[0]) for slate in slates])
    for slate, row in zip(slates, rows, strict=True):
        assert slate.propensities[0] == pytest.approx(expected[row], abs=1e-15)
    counts, shares = np.bincount(rows, minlength=4), np.array(expected)
    assert (counts[shares == 0] == 0).all()
    test = stats.chisquare(counts[shares > 0], SEEDS * shares[shares > 0])
    assert test.pvalue > FALSE_ALARM


def test_frequencies_of_whole_slates_match_the_closed_form():
    """ε-greedy, 4 items, 2 slots, a guard between them: all 10 possible slates against their products."""
    policy, guard = EpsilonGreedy(epsilon=0.5), NotBelow("b", "d")
    batch = RankingBatch(["a", "b", "c", "d"], scores=[0.0, 3.0, 2.0, 1.0])
    expected = {}
    for first, second in itertools.permutations(range(4), 2):
        left = [row for row in range(4) if row != first and not (first == 1 and row == 3)]
        if second in left:
            best = max(left, key=[0.0, 3.0, 2.0, 1.0].__getitem__)
            top = 0.5 * (first == 1) + 0.5 / 4
            expected[first, second] = top * (0.5 * (second == best) + 0.5 / len(left))
    assert sum(expected.values()) == pytest.approx(1.0)
    counts = Counter()
    for seed in range(SEEDS):
        slate = build_slate(policy, policy.initial_state(), batch, 2, guards=[guard], seed=seed)
        pair = tuple(slate.order.tolist())
        counts[pair] += 1
        assert math.prod(slate.propensities) == pytest.approx(expected[pair], rel=1e-12)
    observed = [counts[pair] for pair in expected]
    assert stats.chisquare(observed, [SEEDS * share for share in expected.values()]).pvalue > FALSE_ALARM


SCORES = np.array([0.0, 2.0, 1.0, -1.0])


def _plackett_luce(order, temperature):
    """Return the probability of the ordered slate, by the formula."""
    left, probability = list(range(4)), 1.0
    for row in order:
        strengths = np.exp(SCORES[left] / temperature)
        probability *= strengths[left.index(row)] / strengths.sum()
        left.remove(row)
    return probability


def test_plackett_luce_draws_rankings_as_sorting_with_gumbel_noise_does():
    policy, batch = PlackettLuce(temperature=1.5), RankingBatch(list("abcd"), scores=SCORES)
    expected = {order: _plackett_luce(order, 1.5) for order in itertools.permutations(range(4), 3)}
    assert sum(expected.values()) == pytest.approx(1.0)
    drawn = Counter()
    for seed in range(SEEDS):
        slate = build_slate(policy, policy.initial_state(), batch, 3, seed=seed)
        order = tuple(slate.order.tolist())
        drawn[order] += 1
        assert math.prod(slate.propensities) == pytest.approx(expected[order], rel=1e-12)
    noise = np.random.default_rng(0).gumbel(size=(SEEDS, 4))
    sorted_noise = Counter(map(tuple, np.argsort(-(SCORES / 1.5 + noise))[:, :3].tolist()))
    for counts in (drawn, sorted_noise):
        observed = [counts[order] for order in expected]
        assert stats.chisquare(observed, [SEEDS * share for share in expected.values()]).pvalue > FALSE_ALARM


def _winning_share(policy, state, batch, seeds):
    """Return how often the first of two arms won, in posterior draws, and how many draws there were."""
    wins = 0
    for seed in range(seeds):
        rng = np.random.Generator(np.random.PCG64(seed))
        eligible = np.ones(2, dtype=bool)
        share = policy.contest(state, batch, eligible, rng).distribution(eligible)[0]
        wins += round((share - policy.floor / 2) / (1 - policy.floor) * policy.draws)
    return wins, seeds * policy.draws


@pytest.mark.parametrize(
    ("successes", "failures"),
    [((0, 0), (0, 0)), ((3, 1), (2, 2)), ((0, 30_000), (0, 970_000)), ((50, 5), (40, 2))],
)
def test_beta_draws_win_as_often_as_quadrature_says(successes, failures):
    policy = BetaThompson(floor=0.02, draws=250)
    ids = np.array(["a", "b"])
    state = policy.learn(
        policy.initial_state(),
        RewardBatch(np.repeat(ids, 2), [1.0, 0.0] * 2, weights=np.array([successes, failures]).T.ravel()),
    )
    first, second = (stats.beta(1 + good, 1 + bad) for good, bad in zip(successes, failures, strict=True))
    # P(first > second) = ∫ f_second(x) (1 - F_first(x)) dx, over where the second has its mass.
    low, high = second.ppf([1e-13, 1 - 1e-13])
    exact, error = integrate.quad(lambda x: second.pdf(x) * first.sf(x), low, high, limit=200)
    assert error < 1e-6
    wins, draws = _winning_share(policy, state, RankingBatch(ids), seeds=800)
    assert stats.binomtest(wins, draws, exact).pvalue > FALSE_ALARM / 4


@pytest.mark.parametrize("ratio", [1.0, 1e3])
def test_linear_draws_win_as_often_as_the_closed_form_says(ratio):
    """Two arms, θ ~ N(m, V): xᵀθ wins over yᵀθ with probability Φ((x - y)ᵀm / sqrt((x - y)ᵀV(x - y)))."""
    policy = LinearThompson(dim=2, floor=0.02, draws=250)
    train = np.array([[1.0, 0.0], [0.0, ratio], [1.0, ratio]])
    state = policy.learn(policy.initial_state(), RewardBatch(["x", "y", "z"], [1.0, 0.5, 1.0], train))
    features = np.array([[1.0, 0.2], [0.4, 0.5]])
    mean, covariance = policy.posterior(state)
    gap = (features[0] - features[1]).astype(np.float32).astype(float)
    exact = stats.norm.cdf(gap @ mean / math.sqrt(gap @ covariance @ gap))
    wins, draws = _winning_share(policy, state, RankingBatch(["a", "b"], features), seeds=1600)
    assert stats.binomtest(wins, draws, float(exact)).pvalue > FALSE_ALARM / 2


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6])
def test_normal_draws_win_as_often_as_the_closed_form_says(ratio):
    """Two arms N(m, v) and N(m', v'): the first wins with probability Φ((m - m') / sqrt(v + v'))."""
    policy = GaussianThompson(prior_mean=0.5, floor=0.02, draws=250)
    ids = np.array(["a", "b"])
    rewards = RewardBatch(ids, [0.9, 0.2], weights=[3.0, 3.0 * ratio])
    state = policy.learn(policy.initial_state(), rewards)
    # The posterior of a: precision 1 + 3, mean (0.5 + 3 · 0.9) / 4; of b with 3 · ratio for 3.
    weights = np.array([3.0, 3.0 * ratio])
    mean, variance = (0.5 + weights * [0.9, 0.2]) / (1 + weights), 1 / (1 + weights)
    exact = stats.norm.cdf((mean[0] - mean[1]) / math.sqrt(variance.sum()))
    wins, draws = _winning_share(policy, state, RankingBatch(ids), seeds=800)
    assert stats.binomtest(wins, draws, float(exact)).pvalue > FALSE_ALARM / 3


def _log_propensities_of_all_slates(case, slots, seed, **options):
    """Yield each complete slate that the process can produce, by asking for every extension."""

    def extensions(prefix):
        if len(prefix) == slots:
            return []
        candidates = [(*prefix, row) for row in range(len(case.batch)) if row not in prefix]
        logs = {
            order: slate_log_propensity(case.policy, case.state, case.batch, order, seed=seed, **options)
            for order in candidates
        }
        return [(order, log) for order, log in logs.items() if log > -math.inf]

    open_slates = [((), 0.0)]
    while open_slates:
        prefix, log = open_slates.pop()
        longer = extensions(prefix)
        if longer:
            open_slates.extend(longer)
        else:
            yield prefix, log


@pytest.mark.parametrize("explore_slots", [None, [0, 2]], ids=["all", "some"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_slates_sum_to_one_given_the_seed(case, seed, explore_slots):
    options = {"guards": GUARDS, "explore_slots": explore_slots}
    slates = dict(_log_propensities_of_all_slates(case, 4, seed, **options))
    assert math.fsum(map(math.exp, slates.values())) == pytest.approx(1.0, abs=1e-12)
    # And the slate that is drawn is one of them, at the product of its conditionals.
    slate = build_slate(case.policy, case.state, case.batch, 4, seed=seed, **options)
    assert slates[tuple(slate.order.tolist())] == pytest.approx(math.log(math.prod(slate.propensities)))


def test_impossible_slates_have_no_probability(case):
    def log(order):
        return slate_log_propensity(case.policy, case.state, case.batch, order, guards=GUARDS)

    assert log([]) == 0.0
    assert log([3]) == -math.inf  # blocked
    assert log([0]) == -math.inf  # barred from the top
    assert log([1, 1]) == -math.inf  # twice the same
    assert log([1, 4]) == -math.inf  # barred by the slate above
    assert log([1, 0, 4, 2, 3]) == -math.inf  # longer than any slate
