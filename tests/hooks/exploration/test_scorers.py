"""BootstrappedThompson over scorers: the same sums another way, worlds that no line fits, and votes from outside."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from explorank.hooks.errors import CorruptState, InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import BootstrappedThompson, RankingBatch, RewardBatch, build_slate
from explorank.hooks.exploration.bootstrapped_thompson import resampled
from explorank.hooks.exploration.scorers import FourierScorer, RidgeScorer


def rewards_of(m, dim, seed=0):
    rng = np.random.default_rng(seed)
    return RewardBatch(
        np.arange(m),
        rng.standard_normal(m),
        rng.standard_normal((m, dim)),
        weights=rng.random(m) * 3,
        offsets=rng.standard_normal(m),
    )


def test_ridges_as_a_scorer_are_the_linear_replicates():
    """Two implementations of one model; the prior draws, which are seeded apart, are taken over."""
    options = {"dim": 5, "replicates": 6, "prior_precision": 0.7, "noise": 1.9}
    linear = BootstrappedThompson(**options)
    scored = BootstrappedThompson(**options, scorer=RidgeScorer(5, prior_precision=0.7, noise=1.9))
    rewards = rewards_of(500, 5)
    start = scored.initial_state()
    prior = 0.7 * start.model.coefficients
    difference = prior - linear.initial_state().information
    direct = linear.learn(linear.initial_state(), rewards)
    moved = np.linalg.solve(direct.precision, (direct.information + difference)[..., None])[..., 0]
    learnt = scored.learn(start, rewards)
    assert (learnt.version, learnt.rewards) == (1, 500)
    np.testing.assert_allclose(learnt.model.coefficients, moved, rtol=0, atol=1e-10)


def test_every_fourier_replicate_equals_a_direct_ridge_solve_on_its_resample():
    policy = BootstrappedThompson(
        dim=3, replicates=4, scorer="fourier", components=10, length_scale=0.8, noise=0.5, prior_precision=2.0
    )
    scorer = FourierScorer(3, prior_precision=2.0, noise=0.5, components=10, length_scale=0.8)
    rewards = rewards_of(400, 3, seed=1)
    state = start = policy.initial_state()
    for rows in np.split(np.arange(400), [1, 2, 90, 91, 300]):
        parts = {
            name: getattr(rewards, name)[rows]
            for name in ("item_ids", "values", "features", "weights", "offsets")
        }
        state = policy.learn(state, RewardBatch(**parts))
    lifted = scorer.lift(rewards.features.astype(float))
    for replicate, counted in enumerate(resampled(0, 400, 4)):
        scale = np.sqrt(counted * rewards.weights) / 0.5
        design = np.vstack((lifted * scale[:, None], math.sqrt(2.0) * np.eye(10)))
        drawn = math.sqrt(2.0) * start.model.coefficients[replicate]
        target = np.concatenate(((rewards.values - rewards.offsets) * scale, drawn))
        direct = np.linalg.lstsq(design, target, rcond=None)[0]
        np.testing.assert_allclose(state.model.coefficients[replicate], direct, rtol=0, atol=1e-9)


def test_fourier_features_have_the_inner_products_of_the_kernel():
    """exp(-|x - y|² / (2 ℓ²)) to 1 / √components: bound 5 of that, over 28 pairs, with 20,000 components."""
    scorer = FourierScorer(3, 1.0, 1.0, components=20_000, length_scale=1.7)
    x = np.random.default_rng(2).standard_normal((8, 3))
    lifted = scorer.lift(x)
    kernel = np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / (2.0 * 1.7**2))
    assert np.abs(lifted @ lifted.T - kernel).max() < 5 / math.sqrt(20_000)


def test_before_any_reward_fourier_replicates_vary_by_the_prior_everywhere():
    policy = BootstrappedThompson(dim=2, scorer="fourier", prior_precision=4.0, components=200)
    x = np.array([[0.0, 0.0], [3.0, -1.0], [40.0, 7.0]])
    predicted = policy._scored.scorer.predict(policy.initial_state().model, x)
    # 64 draws know a standard deviation to 1 / √128 = 9 %, the features |φ|² to 1 / √400 = 5 %; bound 4 of both.
    assert predicted.std(axis=0) == pytest.approx(0.5, rel=0.4)


def test_columns_are_the_votes():
    policy = BootstrappedThompson(dim=5, scorer="columns", floor=0.2)
    votes = [[1.0, 0.0, 9.0, 1.0, 0.0], [0.5, 2.0, 3.0, 2.0, 0.0], [0.0, 1.0, 4.0, 0.0, 0.5]]
    batch = RankingBatch(list("abc"), votes)
    state = policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], np.ones((1, 5))))
    contest = policy.contest(state, batch, np.ones(3, dtype=bool), np.random.default_rng(0))
    # Of five members, a wins two (the first and the third), b two, c the last.
    shares = contest.distribution(np.ones(3, dtype=bool))
    assert shares == pytest.approx(np.array([2, 2, 1]) / 5 * 0.8 + 0.2 / 3)
    left = contest.distribution(np.array([False, True, True]))
    assert left == pytest.approx(np.array([0, 3, 2]) / 5 * 0.8 + np.array([0, 0.1, 0.1]))


@dataclass(frozen=True)
class Tables:
    """A third party's scorer: the mean reward by the sign of the first feature, for each replicate."""

    answer: float | None = None

    def initial(self, replicates):
        spread = np.linspace(-1.0, 1.0, replicates)
        return np.stack((np.ones((replicates, 2)), np.stack((spread, spread[::-1]), axis=1)))

    def learn(self, model, features, targets, counts):
        cell = (features[:, 0] > 0) == np.arange(2)[:, None]
        return model + np.stack((counts @ cell.T, (counts * targets) @ cell.T))

    def predict(self, model, features):
        means = model[1] / model[0]
        predicted = means[:, (features[:, 0] > 0).astype(int)]
        return predicted if self.answer is None else predicted + self.answer

    def pack(self, model):
        return {"sums": model}

    def unpack(self, packed, replicates):
        if packed["sums"].shape != (2, replicates, 2):
            raise ValueError(packed["sums"].shape)
        return packed["sums"]


def test_any_scorer_may_vote(tmp_path):
    policy = BootstrappedThompson(dim=1, replicates=8, scorer=Tables(), floor=0.1)
    batch = RankingBatch(["down", "up"], [[-1.0], [1.0]])
    before = build_slate(policy, policy.initial_state(), batch, 2, seed=1)
    assert before.propensities[0] == pytest.approx(0.5)  # half of the spread prefers either
    rewards = RewardBatch(["up", "down"] * 30, [1.0, 0.0] * 30, [[1.0], [-1.0]] * 30)
    state = policy.learn(policy.initial_state(), rewards)
    policy.save(state, tmp_path / "state")
    for known in (state, policy.load(tmp_path / "state")):
        after = build_slate(policy, known, batch, 1, seed=2)
        assert (after.order.tolist(), after.propensities.tolist()) == ([1], [pytest.approx(0.95)])
    with pytest.raises(CorruptState, match="replicates"):
        replace(policy, replicates=9).load(tmp_path / "state")
    with pytest.raises(CorruptState, match="FourierScorer"):
        replace(policy, scorer="fourier").load(tmp_path / "state")


def test_a_scorer_that_predicts_no_numbers_is_refused():
    policy = BootstrappedThompson(dim=1, replicates=8, scorer=Tables(answer=math.nan))
    with pytest.raises(InvalidPolicy, match="not finite"):
        build_slate(policy, policy.initial_state(), RankingBatch(["a"], [[1.0]]), 1)


def test_a_state_of_other_fourier_features_is_refused():
    policy = BootstrappedThompson(dim=2, scorer="fourier", components=4, length_scale=1.0)
    saved = policy.dumps(policy.initial_state())
    for changes in ({"components": 5}, {"length_scale": 2.0}, {"dim": 3}, {"scorer": "columns"}):
        with pytest.raises(CorruptState, match=r"bootstrapped_thompson|saved regressions"):
            replace(policy, **changes).loads(saved)
    with pytest.raises(CorruptState):
        BootstrappedThompson(dim=2).loads(saved)
    with pytest.raises(CorruptState):
        policy.loads(BootstrappedThompson(dim=2).dumps(BootstrappedThompson(dim=2).initial_state()))


@pytest.mark.parametrize(
    ("values", "columns"),
    [
        ([1e308, 1e308], {}),
        ([1.0, 1.0], {"offsets": [0.0, math.nan]}),
        ([1.0, 1.0], {"weights": [1e308, 1e308]}),
    ],
)
def test_rewards_without_a_solution_are_refused(values, columns):
    policy = BootstrappedThompson(dim=1, noise=0.1, scorer="fourier")
    with pytest.raises(InvalidBatch, match="no posterior"):
        policy.learn(policy.initial_state(), RewardBatch(["a", "b"], values, np.ones((2, 1)), **columns))


def regret(policy, seed, rounds=300, batch=5):
    """Return what the policy loses a round against always knowing best, in a world that no line fits.

    Each round brings ten candidates at x ~ U(-2, 2)²; a reward is exp(-|x - (1, -1)|²) + exp(-|x - (-1, 1)|²)
    with noise of 0.1: two hills, on a plane that is level on average.
    """
    rng = np.random.default_rng(seed)
    state, lost = policy.initial_state(), 0.0
    for first in range(0, rounds, batch):
        xs, values = [], []
        for turn in range(first, first + batch):
            x = rng.uniform(-2.0, 2.0, (10, 2))
            mean = sum(np.exp(-((x - hill) ** 2).sum(axis=1)) for hill in ((1.0, -1.0), (-1.0, 1.0)))
            chosen = build_slate(policy, state, RankingBatch(np.arange(10), x), 1, seed=turn).order[0]
            xs.append(x[chosen])
            values.append(mean[chosen] + 0.1 * rng.standard_normal())
            lost += mean.max() - mean[chosen]
        state = policy.learn(state, RewardBatch(np.arange(batch), values, xs))
    return lost / rounds


def test_fourier_features_learn_a_world_that_no_line_fits():
    """12 worlds of 300 rounds, paired: the loss is less than half of the linear one's, beyond 5 standard errors."""
    options = {"dim": 2, "replicates": 32, "noise": 0.2, "floor": 0.01}
    linear = BootstrappedThompson(**options)
    fourier = BootstrappedThompson(**options, scorer="fourier", components=40, length_scale=1.0)
    losses = np.array([[regret(policy, seed) for policy in (linear, fourier)] for seed in range(12)])
    gained = 0.5 * losses[:, 0] - losses[:, 1]
    assert gained.mean() > 5 * gained.std(ddof=1) / math.sqrt(len(gained))
