"""Exactness, judged from outside: direct solves, quadrature, closed forms, and worlds whose value is known.

Everything here goes through what users call. Seeds are fixed; each statistical test says how likely a correct
implementation would have been to fail when they were chosen, and how large an error it lets through.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import integrate, stats

from explorank.hooks.exploration import (
    BetaThompson,
    DisjointLinearThompson,
    EpsilonGreedy,
    GaussianThompson,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralLinear,
    RankingBatch,
    RewardBatch,
    SlotStrategies,
    build_slate,
    position_propensities,
    slate_log_propensity,
)
from explorank.hooks.guards import BlockList
from explorank.testing.restrictions import NotBelow, NotOnTop

FALSE_ALARM = 1e-4  # of each test, over everything that it compares


@pytest.mark.parametrize("policy_of", [LinUCB, LinearThompson])
def test_the_posterior_after_100_000_mixed_updates_is_a_direct_ridge_solve(policy_of):
    """Single rewards and batches of all sizes between them, features of scales from 0.01 to 100, to 1e-9."""
    rng = np.random.default_rng(31)
    dim, m, prior, noise = 12, 100_000, 0.3, 0.8
    features = (rng.standard_normal((m, dim)) * np.geomspace(0.01, 100.0, dim)).astype(np.float32)
    values, offsets = rng.standard_normal((2, m))
    weights, examination = 3.0 * rng.random(m), rng.random(m)
    policy = policy_of(dim=dim, prior_precision=prior, noise=noise)
    state, start = policy.initial_state(), 0
    while start < m:
        size = int(rng.choice([1, 1, 1, 2, 7, 64, 300, 1_000]))
        rows = slice(start, start + size)
        start += size
        state = policy.learn(
            state,
            RewardBatch(
                np.arange(m)[rows],
                values[rows],
                features[rows],
                offsets=offsets[rows],
                weights=weights[rows],
                examination=examination[rows],
            ),
        )
    scale = np.sqrt(weights * examination) / noise
    design = np.vstack((features.astype(float) * scale[:, None], math.sqrt(prior) * np.eye(dim)))
    target = np.concatenate(((values - offsets) * scale, np.zeros(dim)))
    mean, covariance = policy.posterior(state)
    np.testing.assert_allclose(mean, np.linalg.lstsq(design, target, rcond=None)[0], rtol=0, atol=1e-9)
    triangle = np.linalg.qr(design, mode="r")
    np.testing.assert_allclose(covariance, np.linalg.inv(triangle.T @ triangle), rtol=1e-9, atol=1e-9)


def winning_probabilities(arms):
    """Return P(arm i has the highest draw) of independent arms, by adaptive quadrature, and its error.

    ∫ f_i Π_{j≠i} F_j, piecewise between the quantiles of all arms, so that the narrowest is not missed.
    """
    levels = np.array([1e-15, 1e-9, 1e-4, 0.05, 0.5, 0.95, 1 - 1e-4, 1 - 1e-9, 1 - 1e-15])
    cuts = np.unique(np.concatenate([arm.ppf(levels) for arm in arms]))
    found, error = np.zeros(len(arms)), 0.0
    for row, arm in enumerate(arms):
        others = [other for other in arms if other is not arm]

        def wins(x, arm=arm, others=others):
            return arm.pdf(x) * math.prod(other.cdf(x) for other in others)

        low, high = arm.ppf(levels[[0, -1]])
        for start, end in itertools.pairwise(cuts[(cuts >= low) & (cuts <= high)]):
            part, bound = integrate.quad(wins, start, end, epsabs=1e-10, limit=200)
            found[row] += part
            error += bound
    return found, error


def shares_over_seeds(policy, state, batch, seeds):
    """Return the share of the draws that each candidate wins, the floor taken out, for each seed."""
    everyone = np.ones(len(batch), dtype=bool)
    distributions = np.array(
        [
            policy.contest(state, batch, everyone, np.random.Generator(np.random.PCG64(seed))).distribution(
                everyone
            )
            for seed in range(seeds)
        ]
    )
    return (distributions - policy.floor / len(batch)) / (1.0 - policy.floor)


def demand_mean(shares, expected, draws, most):
    """Over seeds, the mean share is the expected one; the error that gets through is below `most`."""
    seeds = len(shares)
    # Of means over seeds; what wins too rarely to show a spread has that of independent draws.
    spread = np.maximum(
        shares.std(axis=0, ddof=1) / math.sqrt(seeds), np.sqrt(expected * (1 - expected) / seeds / draws)
    )
    bound = stats.norm.isf(FALSE_ALARM / 2 / len(expected))
    assert (np.abs(shares.mean(axis=0) - expected) <= bound * spread + 1e-9).all()
    assert bound * spread.max() < most


@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e4, 1e6])
def test_normal_arms_of_unequal_widths_win_as_often_as_quadrature_says(ratio):
    """Four arms, the widest `ratio` times as wide as the narrowest; the stated error is 0.01."""
    policy = GaussianThompson(prior_mean=0.0, prior_precision=1e-3, noise=1.0, floor=0.02, draws=200)
    precisions = np.geomspace(1.0, ratio**2, 4)
    values = np.array([0.1, 0.4, -0.3, 0.2])
    state = policy.learn(policy.initial_state(), RewardBatch(np.arange(4), values, weights=precisions))
    mean, deviation = policy.posterior(state)
    exact, error = winning_probabilities([stats.norm(*arm) for arm in zip(mean, deviation, strict=True)])
    assert error < 1e-6
    assert exact.sum() == pytest.approx(1.0, abs=1e-6)
    demand_mean(shares_over_seeds(policy, state, RankingBatch(np.arange(4)), 500), exact, 200, most=0.01)


@pytest.mark.parametrize(
    "arms",
    [
        [(1, 1), (30_000, 970_000), (30, 970), (2, 50)],
        [(1.5, 1.5), (3, 1), (1, 3), (40, 20)],
        [(1, 1), (1, 1), (1, 1)],
        [(2_000_000, 2_000_000), (5, 5), (1_000, 1_001)],
    ],
    ids=str,
)
def test_beta_arms_win_as_often_as_quadrature_says(arms):
    """From three successes to millions; the stated error is 0.01."""
    policy = BetaThompson(prior_alpha=0.5, prior_beta=0.5, floor=0.02, draws=200)
    ids, counts = np.arange(len(arms)), np.array(arms, dtype=float) - 0.5
    rewards = RewardBatch(np.repeat(ids, 2), [1.0, 0.0] * len(arms), weights=counts.ravel())
    state = policy.learn(policy.initial_state(), rewards)
    exact, error = winning_probabilities([stats.beta(*arm) for arm in arms])
    assert error < 1e-6
    assert exact.sum() == pytest.approx(1.0, abs=1e-6)
    demand_mean(shares_over_seeds(policy, state, RankingBatch(ids), 500), exact, 200, most=0.01)


def test_an_unseen_arm_beats_a_certain_one_by_its_mean():
    """Beta(1, 1) against Beta(30000, 970000): P(U > Y) = 1 - E[Y] = 0.97, to 0.003."""
    policy = BetaThompson(floor=0.02, draws=400)
    rewards = RewardBatch(["b", "b"], [1.0, 0.0], weights=[29_999.0, 969_999.0])
    state = policy.learn(policy.initial_state(), rewards)
    shares = shares_over_seeds(policy, state, RankingBatch(["a", "b"]), 500)
    demand_mean(shares, np.array([0.97, 0.03]), 400, most=0.003)


def test_arms_with_models_of_their_own_win_as_often_as_quadrature_says():
    """Independent normals of widths 0.01 to 1, from regressions; the stated error is 0.01."""
    policy = DisjointLinearThompson(dim=2, floor=0.02, draws=200)
    x = np.array([[1.0, 0.5]] * 4, dtype=np.float32)
    rewards = RewardBatch(np.arange(4), [0.3, 0.2, 0.3, 0.1], x, weights=[0.5, 10.0, 300.0, 8_000.0])
    state = policy.learn(policy.initial_state(), rewards)
    # One reward at x, of weight w: the precision along x gains w, and |x|² = 1.25.
    variance = 1.0 / (1.0 / 1.25 + rewards.weights)
    mean = variance * rewards.weights * rewards.values
    exact, _ = winning_probabilities([stats.norm(*arm) for arm in zip(mean, np.sqrt(variance), strict=True)])
    demand_mean(shares_over_seeds(policy, state, RankingBatch(np.arange(4), x), 500), exact, 200, most=0.01)


def joint_winning_probabilities(mean, covariance):
    """Return P(candidate i is highest) of joint normals, three of them: a quadrant of two differences.

    P(D > 0) for D ~ N(m, S) in two dimensions is a bivariate normal distribution function.
    """
    found = []
    for row in range(3):
        contrast = np.delete(np.eye(3)[row] - np.eye(3), row, axis=0)
        spread = contrast @ covariance @ contrast.T
        found.append(stats.multivariate_normal(np.zeros(2), spread).cdf(contrast @ mean))
    return np.array(found)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_joint_draws_of_one_model_win_as_often_as_the_bivariate_normal_says(scale):
    """Three candidates; one feature is known `scale` times as well as the other. The stated error is 0.01."""
    policy = LinearThompson(dim=3, floor=0.02, draws=200)
    train = np.diag([1.0, scale, math.sqrt(scale)])
    rewards = RewardBatch(np.arange(3), [0.2, 0.1 * scale, 0.15 * math.sqrt(scale)], train)
    state = policy.learn(policy.initial_state(), rewards)
    x = np.array([[1.0, 0.3, 0.0], [0.2, 1.0, 0.4], [0.1, -0.3, 1.0]], dtype=np.float32)
    mean, covariance = policy.posterior(state)
    exact_x = x.astype(float)
    exact = joint_winning_probabilities(exact_x @ mean, exact_x @ covariance @ exact_x.T)
    assert exact.sum() == pytest.approx(1.0, abs=1e-6)
    demand_mean(shares_over_seeds(policy, state, RankingBatch(np.arange(3), x), 500), exact, 200, most=0.01)


X = np.array([[1.0, 0.2], [0.4, 0.5]], dtype=np.float32)


def test_two_candidates_of_a_logistic_model_win_by_the_normal_law_of_their_log_odds():
    """Φ(gᵀm / sqrt(gᵀVg)) for g the difference of the features; the stated error is 0.01."""
    policy = LogisticThompson(dim=2, floor=0.02, draws=200)
    rng = np.random.default_rng(3)
    rewards = RewardBatch(np.arange(40), rng.integers(2, size=40), rng.standard_normal((40, 2)))
    state = policy.learn(policy.initial_state(), rewards)
    mean, covariance = policy.posterior(state)
    gap = X[0].astype(float) - X[1]
    first = stats.norm.cdf(gap @ mean / math.sqrt(gap @ covariance @ gap))
    shares = shares_over_seeds(policy, state, RankingBatch(np.arange(2), X), 500)
    demand_mean(shares, np.array([first, 1 - first]), 200, most=0.01)


def test_two_candidates_of_a_last_layer_win_by_student_s_law():
    """gᵀβ is t-distributed with 2a degrees of freedom, location gᵀm, scale² (b / a) gᵀA⁻¹g."""
    policy = NeuralLinear(dim=2, prior_precision=0.5, noise=2.0, noise_shape=1.5, floor=0.02, draws=200)
    rewards = RewardBatch(np.arange(3), [1.0, 0.2, 0.9], [[1.0, 0.0], [0.3, 1.0], [0.8, 0.4]])
    state = policy.learn(policy.initial_state(), rewards)
    design, values = rewards.features.astype(float), rewards.values
    precision = 0.5 * np.eye(2) + design.T @ design
    mean = np.linalg.solve(precision, design.T @ values)
    shape = 1.5 + 3 / 2
    rate = 0.5 * 2.0**2 + (values @ values - mean @ precision @ mean) / 2
    gap = X[0].astype(float) - X[1]
    width = math.sqrt(rate / shape * (gap @ np.linalg.solve(precision, gap)))
    first = stats.t(2 * shape).cdf(gap @ mean / width)
    shares = shares_over_seeds(policy, state, RankingBatch(np.arange(2), X), 500)
    demand_mean(shares, np.array([first, 1 - first]), 200, most=0.01)


def test_two_strategies_are_followed_by_the_normal_law_of_their_means():
    policy = SlotStrategies(("score", "-score_of_others"), noise=0.5, floor=0.02, draws=200)
    rewards = RewardBatch(
        ["x", "y", "y"],
        [0.6, 0.2, 0.5],
        slots=[0, 0, 0],
        strategies=["score", "-score_of_others", "-score_of_others"],
    )
    state = policy.learn(policy.initial_state(), rewards)
    batch = RankingBatch(["a", "b"], scores=[1.0, 0.0], columns={"score_of_others": np.array([1.0, 0.0])})
    # Precisions 1 + 1 / 0.25 and 1 + 2 / 0.25.
    mean, variance = np.array([0.6 * 4 / 5, 0.7 * 4 / 9]), np.array([1 / 5, 1 / 9])
    first = stats.norm.cdf((mean[0] - mean[1]) / math.sqrt(variance.sum()))
    demand_mean(shares_over_seeds(policy, state, batch, 500), np.array([first, 1 - first]), 200, most=0.01)


# One world for all policies: five items, two slots, guards that look at the slot and at the slate above.

RUNS = 4_000


GUARDS = (BlockList(items=["d"]), NotBelow("b", "e"), NotOnTop("a"))
SLATES = [
    slate
    for slate in itertools.permutations((0, 1, 2, 4), 2)
    if slate[0] != 0 and slate != (1, 4)  # 3 is blocked, 0 is barred from the top, 4 from below 1
]


@dataclass(frozen=True)
class Runs:
    orders: np.ndarray  # (RUNS, 2)
    propensities: np.ndarray  # (RUNS, 2)
    of_all: np.ndarray  # (seeds, slates) the probability of each slate, given the seed's draws


_RUNS = {}  # by policy: four tests look at the same runs


@pytest.fixture
def runs(case):
    name = case.policy.name
    if name not in _RUNS:
        _RUNS[name] = run(case)
    return _RUNS[name]


def run(case):
    """Draw the slates, and ask for the probabilities of all: once where no seed changes them."""
    given = (case.policy, case.state, case.batch)
    orders, propensities = np.zeros((RUNS, 2), int), np.zeros((RUNS, 2))
    for seed in range(RUNS):
        slate = build_slate(*given, 2, guards=GUARDS, seed=seed)
        orders[seed], propensities[seed] = slate.order, slate.propensities
    seeds = 1 if position_propensities(*given, 2, guards=GUARDS, samples=2).exact else RUNS // 4
    of_all = np.zeros((seeds, len(SLATES)))
    for (seed, column), _ in np.ndenumerate(of_all):
        log = slate_log_propensity(*given, SLATES[column], guards=GUARDS, seed=seed)
        of_all[seed, column] = math.exp(log)
    return Runs(orders, propensities, of_all)


def test_all_slates_have_probability_one_and_each_the_product_of_its_slots(runs, case):
    np.testing.assert_allclose(runs.of_all.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    for seed in range(len(runs.of_all)):
        drawn = SLATES.index(tuple(runs.orders[seed].tolist()))
        assert runs.of_all[seed, drawn] == pytest.approx(runs.propensities[seed].prod(), rel=1e-12)


def test_over_the_seeds_every_slate_is_worth_one(runs, case):
    """The mean of 1{slate} / propensity, for every slate that could be; the error that gets through is below 0.6."""
    drawn = np.array([SLATES.index(tuple(order)) for order in runs.orders.tolist()])
    weights = np.zeros((RUNS, len(SLATES)))
    weights[range(RUNS), drawn] = 1.0 / runs.propensities.prod(axis=1)
    possible = runs.of_all.min(axis=0) > 0.0
    if case.policy.name != "greedy":
        assert possible.all()
    weights = weights[:, possible]
    error = weights.std(axis=0) / math.sqrt(RUNS)
    bound = stats.norm.isf(FALSE_ALARM / 2 / len(SLATES))
    assert (np.abs(weights.mean(axis=0) - 1.0) <= bound * error + 1e-12).all()
    assert bound * error.max() < 0.6


def test_slates_are_drawn_as_often_as_their_probability_says(runs, case):
    """By χ² where the form is closed; else, since each seed has other draws, by the sum of what was too many."""
    shown = np.array([(runs.orders == slate).all(axis=1) for slate in SLATES]).T
    assert not shown[: len(runs.of_all)][runs.of_all == 0.0].any()
    if len(runs.of_all) == 1:
        (expected,) = runs.of_all
        sure = expected > 0.0
        assert stats.chisquare(shown.sum(axis=0)[sure], RUNS * expected[sure]).pvalue > FALSE_ALARM
    else:
        too_many = (shown[: len(runs.of_all)] - runs.of_all).sum(axis=0)
        spread = np.sqrt((runs.of_all * (1.0 - runs.of_all)).sum(axis=0))
        assert (np.abs(too_many) < stats.norm.isf(FALSE_ALARM / 2 / len(SLATES)) * spread).all()


def test_inverse_propensities_recover_what_a_target_earns(runs, case):
    """Slot by slot, weights of the slots down to it (RIPS): the interval holds the value, computed by enumeration."""
    target = case.policy if case.policy.name == "greedy" else EpsilonGreedy(epsilon=0.6)
    state = target.initial_state()
    appeal, theta = np.array([0.2, 0.7, 0.4, 0.9, 0.5]), np.array([1.0, 0.5])
    marginal = position_propensities(target, state, case.batch, 2, guards=GUARDS)
    assert marginal.exact
    truth = (marginal.probabilities * appeal).sum(axis=1) @ theta
    wanted = {
        order: math.exp(slate_log_propensity(target, state, case.batch, order, guards=GUARDS))
        for order in [*SLATES, *((row,) for row in range(5))]
    }
    rng = np.random.default_rng(9)
    clicks = rng.random((RUNS, 2)) < theta * appeal[runs.orders]
    first = np.array([wanted[order[0],] for order in runs.orders.tolist()]) / runs.propensities[:, 0]
    both = np.array([wanted[tuple(order)] for order in runs.orders.tolist()]) / runs.propensities.prod(axis=1)
    earned = first * clicks[:, 0] + both * clicks[:, 1]
    error = earned.std() / math.sqrt(RUNS)
    assert abs(earned.mean() - truth) < stats.norm.isf(FALSE_ALARM / 2) * error
    assert error < 0.05
