"""Ten million rewards over nearly collinear features: the posterior stays one, and the right one."""

import numpy as np
import pytest

from explorank.hooks.exploration import LinearThompson, RankingBatch, RewardBatch, build_slate
from explorank.hooks.exploration.linear_model import retention

DIM = 8
ROWS, CALLS = 10_000, 1_000
"""Ten million rewards: the same ten thousand, a thousand times over, so that sums are known in closed form."""
PRIOR = 1e-5
HALF_LIFE = 3_000_000.0


def design():
    """Features (m, 8) whose singular values fall from 1 to 1e-6, and rewards of unit noise."""
    rng = np.random.default_rng(12)
    rotation, _ = np.linalg.qr(rng.standard_normal((DIM, DIM)))
    features = rng.standard_normal((ROWS, DIM)) * np.logspace(0, -6, DIM) @ rotation.T
    features = features.astype(np.float32)
    return features, features @ rng.standard_normal(DIM) + rng.standard_normal(ROWS)


def directly(features, rewards, half_life):
    """Precision and mean in extended precision (a significand of 64 bits), from the sums in closed form."""
    x, r = features.astype(np.longdouble), rewards.astype(np.longdouble)
    weights, repeats = np.ones(ROWS, np.longdouble), np.longdouble(CALLS)
    if half_life is not None:
        weights = np.exp2(-np.arange(ROWS - 1, -1, -1, dtype=np.longdouble) / np.longdouble(half_life))
        kept = np.exp2(-np.longdouble(ROWS) / np.longdouble(half_life))
        repeats = (1 - kept**CALLS) / (1 - kept)
    precision = (x * weights[:, None]).T @ x * repeats + np.longdouble(PRIOR) * np.eye(DIM)
    information = (x * weights[:, None]).T @ r * repeats
    return precision, solve(precision, information)


def solve(matrix, right):
    """Gauss elimination with pivots; LAPACK has no extended precision."""
    rows = np.column_stack([matrix, right])
    for column in range(DIM):
        pivot = column + int(np.argmax(np.abs(rows[column:, column])))
        rows[[column, pivot]] = rows[[pivot, column]]
        rows[column] /= rows[column, column]
        others = np.arange(DIM) != column
        rows[others] -= rows[others, column, None] * rows[column]
    return rows[:, -1]


@pytest.mark.parametrize("half_life", [None, HALF_LIFE], ids=["remembers", "forgets"])
def test_ten_million_updates_of_a_nearly_singular_design(half_life):
    policy = LinearThompson(dim=DIM, prior_precision=PRIOR, half_life=half_life)
    features, rewards = design()
    batch = RewardBatch(np.arange(ROWS), rewards, features)
    state = policy.initial_state()
    for _ in range(CALLS):
        state = policy.learn(state, batch)
    precision, mean = directly(features, rewards, half_life)
    eigenvalues = np.linalg.eigvalsh(precision.astype(np.float64))
    assert eigenvalues[-1] / eigenvalues[0] > 1e11
    # A posterior: symmetric to the last bit, positive definite, finite.
    assert (state.precision == state.precision.T).all()
    assert np.linalg.eigvalsh(state.precision)[0] > 0.0
    assert np.isfinite(state.mean).all()
    assert np.isfinite(state.factor).all()
    # The right one: sums to rounding; and the mean within a twentieth of its standard deviation in every direction,
    # where the condition times the rounding of a thousand additions allows some hundredths.
    np.testing.assert_allclose(state.precision, precision.astype(np.float64), rtol=1e-11)
    away = state.mean - mean
    assert float(np.sqrt(away @ precision @ away)) < 0.05
    covariance = state.factor @ state.factor.T
    identity = covariance @ precision.astype(np.float64)
    np.testing.assert_allclose(identity, np.eye(DIM), atol=0.05)
    # And it serves.
    slate = build_slate(policy, state, RankingBatch(np.arange(50), features[:50]), 5, seed=1)
    assert (slate.propensities > 0.0).all()


def test_one_by_one_is_as_stable_as_in_batches():
    """10,000 single rewards, each a factorisation of its own."""
    policy = LinearThompson(dim=DIM, prior_precision=PRIOR)
    features, rewards = design()
    state = policy.initial_state()
    for row in range(ROWS):
        state = policy.learn(state, RewardBatch([row], rewards[row : row + 1], features[row : row + 1]))
    whole = policy.learn(policy.initial_state(), RewardBatch(np.arange(ROWS), rewards, features))
    np.testing.assert_allclose(state.precision, whole.precision, rtol=1e-11)
    away = state.mean - whole.mean
    assert float(np.sqrt(away @ whole.precision @ away)) < 1e-3


def test_retention_of_a_closed_form():
    """What the closed form above rests on: what is kept of the past, and of each reward."""
    np.testing.assert_allclose(retention(4.0, 4), [0.5, 2**-0.75, 2**-0.5, 2**-0.25, 1.0])
