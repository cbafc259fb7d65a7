"""The Laplace step against a direct search for the mode, and the posterior against that of all rewards."""

import math

import numpy as np
import pytest
from scipy import optimize, special

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import (
    LogisticThompson,
    RankingBatch,
    RewardBatch,
    slate_log_propensity,
)
from explorank.hooks.exploration.logistic import laplace


def make(m, dim, seed=0):
    """Return features, and successes drawn from the logistic model itself."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((m, dim)).astype(np.float32)
    truth = rng.standard_normal(dim)
    return features, (rng.random(m) < special.expit(features @ truth)).astype(float)


def mode_and_hessian(mean, precision, features, weights, values):
    """Return the minimum of the negative log-posterior, searched for directly, and its curvature."""
    x = features.astype(float)

    def gradient(theta):
        return precision @ (theta - mean) + x.T @ (weights * (special.expit(x @ theta) - values))

    def hessian(theta):
        share = special.expit(x @ theta)
        return precision + (x * (weights * share * (1 - share))[:, None]).T @ x

    def loss(theta):
        gap, z = theta - mean, x @ theta
        return gap @ precision @ gap / 2 + weights @ (np.logaddexp(0, z) - values * z)

    found = optimize.minimize(
        loss, mean, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-12}
    )
    return found.x, hessian(found.x)


def settled(precision, mean):
    """Return a packed state without open rewards."""
    none = np.zeros(0)
    features = np.zeros((0, len(mean)), np.float32)
    return {"precision": precision, "mean": mean, "features": features, "values": none, "weights": none}


def test_the_first_step_by_hand():
    """One feature 1, prior N(0, 1), a success: θ = 1 - S(θ) has the root 0.4010581..."""
    policy = LogisticThompson(dim=1)
    state = policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], [[1.0]]))
    mean, covariance = policy.posterior(state)
    root = mean.item()
    assert root == pytest.approx(0.40105813754)
    assert root == pytest.approx(1.0 - 1.0 / (1.0 + math.exp(-root)), abs=1e-15)
    assert covariance.item() == pytest.approx(1.0 / (1.0 + root * (1.0 - root)))


@pytest.mark.parametrize("weight", [1e-6, 1.0, 50.0, 1e6])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_step_finds_the_mode(weight, value):
    rng = np.random.default_rng(1)
    root = rng.standard_normal((4, 4))
    precision, mean, x = root @ root.T + 0.1 * np.eye(4), rng.standard_normal(4), rng.standard_normal((1, 4))
    x = x.astype(np.float32)
    policy = LogisticThompson(dim=4)
    prior = policy.unpack({"version": 0}, settled(precision, mean))
    state = policy.learn(prior, RewardBatch(["a"], [value], x, weights=[weight]))
    direct, hessian = mode_and_hessian(mean, precision, x, np.array([weight]), np.array([value]))
    np.testing.assert_allclose(state.belief.mean, direct, atol=1e-7, rtol=0)
    np.testing.assert_allclose(state.belief.precision, hessian, rtol=1e-5)


@pytest.mark.parametrize("distance", [-800.0, -30.0, 0.0, 4.0, 800.0])
@pytest.mark.parametrize("precision", [1e-12, 1e-6, 1.0, 1e12])
@pytest.mark.parametrize("weight", [0.0, 1e-9, 1.0, 1e9])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_newton_converges_from_anywhere(distance, precision, weight, value):
    """With one feature 1, the mode is the root of precision · (θ - m) = w · (r - S(θ))."""
    theta, curvature = laplace(
        np.array([distance]),
        np.array([[precision]]),
        np.ones((1, 1), np.float32),
        np.array([value]),
        np.array([weight]),
    )
    root = theta.item()
    share, rest = special.expit(root), special.expit(-root)
    slope = precision + weight * share * rest
    # The root's own rounding moves the balance by the slope times it.
    rounding = 1e-13 * slope * (abs(root) + abs(distance)) + 1e-300
    pull = weight * (value * rest - (1.0 - value) * share)
    assert precision * (root - distance) == pytest.approx(pull, abs=rounding, rel=1e-6)
    assert curvature.item() == pytest.approx(slope, rel=1e-9)


def test_a_chunk_is_settled_at_the_mode_of_its_rewards():
    features, values = make(128, 4)
    policy = LogisticThompson(dim=4)
    state = policy.learn(policy.initial_state(), RewardBatch(np.arange(128), values, features))
    direct, hessian = mode_and_hessian(np.zeros(4), np.eye(4), features, np.ones(128), values)
    assert len(state.values) == 0
    np.testing.assert_allclose(state.mean, direct, atol=1e-8)
    np.testing.assert_allclose(state.precision, hessian, rtol=1e-6)


def test_how_rewards_are_cut_into_batches_matters_only_to_rounding():
    policy = LogisticThompson(dim=5)
    features, values = make(700, 5)
    weights = np.random.default_rng(2).random(700)
    whole = policy.learn(
        policy.initial_state(), RewardBatch(np.arange(700), values, features, weights=weights)
    )
    state = policy.initial_state()
    for rows in np.split(np.arange(700), [1, 2, 3, 70, 200, 201, 333]):
        before = policy.dumps(state)
        following = policy.learn(
            state, RewardBatch(rows, values[rows], features[rows], weights=weights[rows])
        )
        assert policy.dumps(state) == before
        state = following
    assert state.version == 8
    np.testing.assert_allclose(state.belief.mean, whole.belief.mean, rtol=1e-9)
    np.testing.assert_allclose(state.belief.precision, whole.belief.precision, rtol=1e-9)


def test_many_rewards_come_close_to_the_mode_of_them_all():
    """What the approximation costs: half of what a posterior draw strays (√6 deviations), widths within 10 %."""
    features, values = make(5000, 6)
    policy = LogisticThompson(dim=6)
    state = policy.learn(policy.initial_state(), RewardBatch(np.arange(5000), values, features))
    direct, hessian = mode_and_hessian(np.zeros(6), np.eye(6), features, np.ones(5000), values)
    gap = state.belief.mean - direct
    assert math.sqrt(gap @ hessian @ gap) < math.sqrt(6) / 2
    widths = np.sqrt(np.diag(np.linalg.inv(state.belief.precision)) / np.diag(np.linalg.inv(hessian)))
    np.testing.assert_allclose(widths, 1.0, atol=0.1)


def test_a_weight_of_zero_teaches_nothing():
    policy = LogisticThompson(dim=2)
    state = policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], [[1.0, 2.0]], weights=[0.0]))
    assert state.belief.mean.tolist() == [0.0, 0.0]
    assert state.belief.precision.tolist() == np.eye(2).tolist()
    assert policy.learn(state, RewardBatch([], [], np.zeros((0, 2)))).version == 2


def test_what_was_learnt_is_what_is_shown():
    policy = LogisticThompson(dim=2, floor=0.1)
    rng = np.random.default_rng(3)
    features = rng.standard_normal((3000, 2))
    clicks = (features @ np.array([1.0, -1.0]) > 0.0).astype(float)
    state = policy.learn(policy.initial_state(), RewardBatch(np.arange(3000), clicks, features))
    batch = RankingBatch(list("abc"), [[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    likely = slate_log_propensity(policy, state, batch, [1], seed=6)
    assert np.exp(likely) == pytest.approx(0.9 + 0.1 / 3)


@pytest.mark.parametrize(
    ("rewards", "complaint"),
    [
        (RewardBatch(["a", "b"], [1.0, 1.5], np.ones((2, 1))), "item 'b' is 1.5"),
        (RewardBatch(["a"], [-0.1], np.ones((1, 1))), "item 'a' is -0.1"),
        (RewardBatch(["a"], [1.0], np.ones((1, 1)), offsets=[0.2]), "offsets"),
        (RewardBatch(["a"], [1.0], np.ones((1, 1)), weights=[-1.0]), "`weights`.*-1.0"),
        (RewardBatch(["a"], [1.0]), "dim 1"),
        (RewardBatch(["a", "b"], [1.0, 0.0], [[3e38], [3e38]], weights=[1e308, 1e308]), "no posterior"),
    ],
)
def test_rewards_without_a_meaning_are_refused(rewards, complaint):
    policy = LogisticThompson(dim=1)
    state = policy.initial_state()
    with pytest.raises(InvalidBatch, match=complaint):
        policy.learn(state, rewards)


@pytest.mark.parametrize(
    "options", [{"dim": 0}, {"prior_precision": 0.0}, {"floor": 0.0}, {"pool": 0}, {"draws": 0}], ids=str
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of logistic_thompson"):
        LogisticThompson(**{"dim": 2, **options})
