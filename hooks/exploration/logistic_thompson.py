"""Thompson sampling with one Bayesian logistic regression that all candidates share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState
from explorank.hooks.exploration.linear_model import (
    CoefficientModel,
    LinearDraws,
    LinearState,
    overwhelmed,
)
from explorank.hooks.exploration.logistic import laplace, sigmoid
from explorank.hooks.exploration.policy import Policy, RewardForm, unpacked_version
from explorank.hooks.exploration.rewards import row_weights, unit_rewards
from explorank.hooks.exploration.thompson import ThompsonContest, check_options
from explorank.hooks.types import BoolArray, FeatureArray, FloatArray, RankingBatch, RewardBatch

# Rewards that are approximated together. Their boundaries follow from how many came before, not from batches.
_CHUNK: Final = 128


@dataclass(frozen=True)
class LogisticState:
    """A Gaussian, the rewards since it was settled, and the Gaussian that both amount to."""

    belief: LinearState
    """What is believed now; its version is the state's."""
    precision: FloatArray  # (d, d) before the open rewards
    mean: FloatArray  # (d,) before the open rewards
    features: FeatureArray  # (p, d) of the open rewards, fewer than 128
    values: FloatArray  # (p,)
    weights: FloatArray  # (p,)

    @property
    def version(self) -> int:
        """How many times `learn` has replaced the state."""
        return self.belief.version


@dataclass(frozen=True)
class LogisticThompson(Policy[LogisticState]):
    """Draw a coefficient vector from its Gaussian posterior and show the candidate with the best odds.

        P(success) = S(xᵀθ),   S(z) = 1 / (1 + exp(-z)),   θ ~ N(0, I / prior_precision)

    Rewards r in [0, 1] move the Gaussian N(m, A⁻¹) by Laplace's approximation, 128 of them at a time: to the
    mode of all of them, by Newton's method, and to the curvature there:

        m ← argmin_θ ½ (θ - m)ᵀA(θ - m) - Σ w·(r log S(xᵀθ) + (1 - r) log S(-xᵀθ))
        A ← A + Σ w S(xᵀm) S(-xᵀm) x xᵀ

    The rewards since the last 128 are kept, and approximated anew whenever one comes. The posterior therefore
    depends on the order of rewards, a little, and not at all on how a log is cut into batches.

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    When: clicks and other successes that depend on features, rare ones above all, whose noise no constant
    describes. When not: rewards on another scale, or residuals, which `LinearThompson` takes.

    Source: Chapelle and Li, *An Empirical Evaluation of Thompson Sampling* (2011), algorithm 3. It departs
    from the paper in that A is a full matrix instead of its diagonal, that a batch is always the same 128
    rewards, that the item is drawn from the winning shares of M draws, that a floor is mixed in, and that only
    a pool of contenders is scored.
    """

    name: ClassVar[str] = "logistic_thompson"
    needs_features: ClassVar[bool] = True
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
        self, state: LogisticState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        features = self.model.checked(batch.features)
        posterior = LinearDraws.of(state.belief, features, self.draws, rng)
        return ThompsonContest(posterior, rng, eligible, self.pool, self.floor)

    def initial_state(self) -> LogisticState:
        """Return the prior."""
        prior = self.model.prior()
        none = np.zeros(0)
        return LogisticState(
            prior, prior.precision, prior.mean, np.zeros((0, self.dim), np.float32), none, none
        )

    def posterior(self, state: LogisticState) -> tuple[FloatArray, FloatArray]:
        """Return the mean (d,) and the covariance (d, d) of the coefficients."""
        return state.belief.mean, state.belief.factor @ state.belief.factor.T

    def expected(self, state: LogisticState, rewards: RewardBatch) -> FloatArray:
        """Return the probability of a success at the posterior's mode, (m,)."""
        likely: FloatArray = sigmoid(
            self.model.checked(rewards.features).astype(np.float64) @ state.belief.mean
        )
        return likely

    def learn(self, state: LogisticState, rewards: RewardBatch) -> LogisticState:
        """Return the posterior given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for a reward outside [0, 1], for offsets, and where
        the numbers are too large for a posterior in float64.
        """
        features = np.concatenate((state.features, self.model.checked(rewards.features)))
        values = np.concatenate((state.values, unit_rewards(self.name, rewards)))
        weights = np.concatenate((state.weights, row_weights(rewards)))
        mean, precision = state.mean, state.precision
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the numbers named
            try:
                start = 0
                while len(values) - start >= _CHUNK:
                    rows = slice(start, start + _CHUNK)
                    mean, precision = laplace(mean, precision, features[rows], values[rows], weights[rows])
                    start += _CHUNK
                learnt = self._state(
                    state.version + 1, precision, mean, features[start:], values[start:], weights[start:]
                )
            except np.linalg.LinAlgError as error:
                raise overwhelmed(self.name, rewards) from error
        if learnt is None:
            raise overwhelmed(self.name, rewards)
        return learnt

    def _state(
        self,
        version: int,
        precision: FloatArray,
        mean: FloatArray,
        features: FeatureArray,
        values: FloatArray,
        weights: FloatArray,
    ) -> LogisticState | None:
        """Return the state, or `None` where it has no posterior in float64."""
        mode, curvature = laplace(mean, precision, features, values, weights)
        belief = LinearState(version, curvature, curvature @ mode)
        if not (np.isfinite(belief.mean).all() and np.isfinite(belief.factor).all()):
            return None
        return LogisticState(belief, precision, mean, features.copy(), values.copy(), weights.copy())

    def pack(self, state: LogisticState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the settled Gaussian and the open rewards; the rest follows from them."""
        return {"version": state.version}, {
            "precision": state.precision,
            "mean": state.mean,
            "features": state.features,
            "values": state.values,
            "weights": state.weights,
        }

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> LogisticState:
        """Return the state; raise `CorruptState` where it does not fit `dim` or has no posterior."""
        names = ("precision", "mean", "features", "values", "weights")
        version = unpacked_version(self.name, meta, packed, names=names)
        precision, mean, features, values, weights = (packed[name] for name in names)
        shapes = [array.shape for array in (precision, mean, features, values, weights)]
        rows = len(values)
        needed = [(self.dim, self.dim), (self.dim,), (rows, self.dim), (rows,), (rows,)]
        if shapes != needed or rows >= _CHUNK:
            raise CorruptState(
                f"A saved state of {self.name} has arrays of shapes {shapes}; with dim {self.dim} they must be "
                f"{needed}, with fewer than {_CHUNK} open rewards, or coefficients would belong to other "
                "features. Set `dim` back, or start a new state."
            )
        try:
            state = self._state(version, precision, mean, features, values, weights)
        except np.linalg.LinAlgError:
            state = None
        if state is None:
            raise CorruptState(
                f"A saved state of {self.name} has no posterior to draw from: its precision is not positive "
                "definite, or a number is not finite. Restore an older copy, or rebuild it from the log."
            )
        return state
