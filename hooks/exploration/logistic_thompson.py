"""Thompson sampling with one Bayesian logistic regression that all candidates share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from explorank.hooks.exploration.linear_model import (
    CoefficientModel,
    LinearDraws,
    LinearState,
    SharedLinearPolicy,
    overwhelmed,
)
from explorank.hooks.exploration.policy import RewardForm
from explorank.hooks.exploration.rewards import row_weights, unit_rewards
from explorank.hooks.exploration.thompson import ThompsonContest, check_options
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch

# Rewards between two inversions of the precision; in between, the covariance follows by rank-one steps.
_CHUNK: Final = 64
# Newton's method needs about five; many more are bisections where the sigmoid is as good as a step.
_MOST_STEPS: Final = 200


@dataclass(frozen=True)
class LogisticThompson(SharedLinearPolicy):
    """Draw a coefficient vector from its Gaussian posterior and show the candidate with the best odds.

        P(success) = S(xᵀθ),   S(z) = 1 / (1 + exp(-z)),   θ ~ N(0, I / prior_precision)

    Each reward r in [0, 1] moves the Gaussian N(m, A⁻¹) by a Laplace step, that is Newton's method until it
    has converged, and then the curvature there:

        m ← argmin_θ ½ (θ - m)ᵀA(θ - m) - w·(r log S(xᵀθ) + (1 - r) log S(-xᵀθ))
        A ← A + w S(xᵀm) S(-xᵀm) x xᵀ

    The minimum lies on the line m + c A⁻¹x, so that a step solves for one number, c.

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    When: clicks and other successes that depend on features, rare ones above all, whose noise no constant
    describes. When not: rewards on another scale, or residuals, which `LinearThompson` takes; or more than
    about 50,000 rewards per second, because each is a step of its own.

    Source: Chapelle and Li, *An Empirical Evaluation of Thompson Sampling* (2011), algorithm 3. It departs
    from the paper in that A is a full matrix instead of its diagonal, that a step is made for each reward
    instead of each batch, so that the posterior does not depend on how a log is cut into batches, that the
    item is drawn from the winning shares of M draws, that a floor is mixed in, and that only a pool of
    contenders is scored. The order of rewards matters, a little: what is approximated is not exchangeable.
    """

    name: ClassVar[str] = "logistic_thompson"
    reward_form: ClassVar[RewardForm] = "share"

    dim: int
    """How many features a candidate has."""
    prior_precision: float = 1.0
    """1 / variance of each coefficient before any reward; larger is more cautious. Above 0."""
    floor: float = 0.01
    """The share of an explored slot that is spread evenly over the pool; above 0, at most 1."""
    pool: int = 50
    """How many candidates contend: the best by mean + 2 standard deviations of the log-odds."""
    draws: int = 256
    """Posterior draws per request; more make propensities finer and requests slower."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.name, self.floor, self.pool, self.draws)
        self.model.check()

    @property
    def model(self) -> CoefficientModel:
        """The prior that the options describe."""
        return CoefficientModel(self.name, self.dim, self.prior_precision)

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def contest(
        self, state: LinearState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        features = self.model.checked(batch.features)
        keys = rng.random(len(batch))
        posterior = LinearDraws.of(state, features, self.draws, rng)
        return ThompsonContest(posterior, keys, eligible, self.pool, self.floor)

    def expected(self, state: LinearState, rewards: RewardBatch) -> FloatArray:
        """Return the probability of a success at the posterior's mode, (m,)."""
        log_odds = self.model.checked(rewards.features).astype(np.float64) @ state.mean
        decay = np.exp(-np.abs(log_odds))
        likely: FloatArray = np.where(log_odds >= 0.0, 1.0, decay) / (1.0 + decay)
        return likely

    def learn(self, state: LinearState, rewards: RewardBatch) -> LinearState:
        """Return the posterior given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for a reward outside [0, 1], for offsets, and where
        the numbers are too large for a posterior in float64.
        """
        values = unit_rewards(self.name, rewards)
        features = self.model.checked(rewards.features).astype(np.float64)
        weights = row_weights(rewards)
        mean, precision = state.mean, state.precision
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the numbers named
            try:
                for start in range(0, len(rewards), _CHUNK):
                    rows = slice(start, start + _CHUNK)
                    mean, precision = _moved(mean, precision, features[rows], weights[rows], values[rows])
            except np.linalg.LinAlgError as error:
                raise overwhelmed(self.name, rewards) from error
            return self.model.state(state.version + 1, precision, precision @ mean, rewards)


def _moved(
    mean: FloatArray, precision: FloatArray, features: FloatArray, weights: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean and precision after one Laplace step for each reward, in order."""
    covariance = np.linalg.inv(precision)
    curvatures = np.empty(len(values))
    for row, (weight, value) in enumerate(zip(weights.tolist(), values.tolist(), strict=True)):
        direction = covariance @ features[row]
        spread = float(features[row] @ direction)
        step, curvature = laplace_step(float(features[row] @ mean), spread, weight, value)
        mean = mean + step * direction
        covariance -= np.multiply.outer(direction, direction * (curvature / (1.0 + curvature * spread)))
        curvatures[row] = curvature
    return mean, precision + (features * curvatures[:, None]).T @ features


def laplace_step(log_odds: float, spread: float, weight: float, value: float) -> tuple[float, float]:
    """Return the step c along A⁻¹x to the posterior's mode, and the curvature there.

    `log_odds` is xᵀm and `spread` xᵀA⁻¹x. The step is the root of c - w·(r - S(xᵀm + c·xᵀA⁻¹x)), which rises
    by at least 1 and has its root between w·(r - 1) and w·r: Newton's method, with bisection where it would
    leave what is left of that interval.
    """
    low, high, step = weight * (value - 1.0), weight * value, 0.0
    for _ in range(_MOST_STEPS):
        share = _sigmoid(log_odds + step * spread)
        excess = step - weight * (value - share)
        if excess == 0.0:
            break
        if excess > 0.0:
            high = step
        else:
            low = step
        following = step - excess / (1.0 + weight * spread * share * (1.0 - share))
        if not low < following < high:
            following = (low + high) / 2.0
        if abs(following - step) <= 1e-15 * abs(following):
            break
        step = following
    share = _sigmoid(log_odds + step * spread)
    return step, weight * share * (1.0 - share)


def _sigmoid(log_odds: float) -> float:
    decay = math.exp(-abs(log_odds))
    return (1.0 if log_odds >= 0.0 else decay) / (1.0 + decay)
