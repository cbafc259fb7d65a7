"""Thompson sampling with one Bayesian linear model that all candidates share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidBatch, InvalidPolicy
from explorank.hooks.exploration.policy import Policy, unpacked_version
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.exploration.thompson import ThompsonContest, check_options
from explorank.hooks.types import (
    BoolArray,
    FeatureArray,
    FloatArray,
    IndexArray,
    RankingBatch,
    RewardBatch,
)

# Numbers per block of features: below the size from which the allocator maps fresh pages for every array,
# which costs more than the arithmetic.
_BLOCK: Final = 12_000


@dataclass(frozen=True)
class LinearState:
    """The sufficient statistics, and what sampling needs of them, computed once per `learn`."""

    version: int
    precision: FloatArray  # (d, d) inverse covariance: prior_precision·I + Σ w x xᵀ / noise²
    information: FloatArray  # (d,) Σ w x (r - offset) / noise²
    mean: FloatArray = field(init=False)  # (d,) precision⁻¹ information
    factor: FloatArray = field(init=False)  # (d, d) F with F Fᵀ = precision⁻¹

    def __post_init__(self) -> None:
        """Factorise; raise `numpy.linalg.LinAlgError` where the precision is not positive definite."""
        lower = np.linalg.cholesky(self.precision)
        factor = np.linalg.solve(lower.T, np.eye(len(lower)))
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "mean", factor @ (factor.T @ self.information))


@dataclass(frozen=True)
class LinearThompson(Policy[LinearState]):
    """Draw a coefficient vector from its Gaussian posterior and show the candidate it favours.

        r = xᵀθ + N(0, noise²),   θ ~ N(0, I / prior_precision)
        A = prior_precision·I + Σ w x xᵀ / noise²,   θ | data ~ N(A⁻¹ Σ w x r / noise², A⁻¹)

    One draw of θ scores all candidates jointly, so that similar candidates win or lose together.

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    Source: Agrawal and Goyal, *Thompson Sampling for Contextual Bandits with Linear Payoffs* (2013). It
    departs from the paper in that the item is drawn from the winning shares of M draws instead of being the
    winner of one, that a floor is mixed in, that the posterior has its own width instead of the inflated one
    that the regret bound asks for, and that only a pool of contenders is scored.
    """

    name: ClassVar[str] = "linear_thompson"
    needs_features: ClassVar[bool] = True

    dim: int
    """How many features a candidate has."""
    prior_precision: float = 1.0
    """1 / variance of each coefficient before any reward; larger is more cautious. Above 0."""
    noise: float = 1.0
    """Standard deviation of a reward around its expectation, in the reward's unit. Above 0."""
    floor: float = 0.01
    """The share of an explored slot that is spread evenly over the pool; above 0, at most 1."""
    pool: int = 50
    """How many candidates contend: the best by mean + 2 standard deviations. Others cannot be shown."""
    draws: int = 256
    """Posterior draws per request; more make propensities finer and requests slower."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.name, self.floor, self.pool, self.draws)
        if self.dim < 1:
            raise InvalidPolicy(
                f"`dim` of {self.name} is {self.dim!r}; a linear model needs at least one feature. Set it to "
                "the number of feature columns."
            )
        for option, value in (("prior_precision", self.prior_precision), ("noise", self.noise)):
            if not 0.0 < value < np.inf:
                raise InvalidPolicy(
                    f"`{option}` of {self.name} is {value!r}; it must be positive and finite, or there is no "
                    "posterior to draw from. Try 1."
                )

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def initial_state(self) -> LinearState:
        """Return the prior."""
        return LinearState(0, np.eye(self.dim) * self.prior_precision, np.zeros(self.dim))

    def contest(
        self, state: LinearState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        features = self._checked(batch.features)
        keys = rng.random(len(batch))
        coefficients = state.mean + rng.standard_normal((self.draws, self.dim)) @ state.factor.T
        posterior = _LinearPosterior(state, features, coefficients)
        return ThompsonContest(posterior, keys, eligible, self.pool, self.floor)

    def learn(self, state: LinearState, rewards: RewardBatch) -> LinearState:
        """Return the posterior given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for offsets that are not finite, and where the
        numbers are too large for a posterior in float64.
        """
        features = self._checked(rewards.features).astype(np.float64)
        targets = rewards.values if rewards.offsets is None else rewards.values - rewards.offsets
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the numbers named
            weighted = features * (row_weights(rewards) / self.noise**2)[:, None]
            precision = state.precision + weighted.T @ features
            information = state.information + weighted.T @ targets
            # The product is symmetric only up to rounding, which many updates would let grow.
            learnt = _posterior(state.version + 1, (precision + precision.T) / 2.0, information)
        if learnt is None:
            raise InvalidBatch(
                f"{self.name} has no posterior after these {len(rewards)} rewards: features up to "
                f"{np.abs(features).max(initial=0.0):.3g} and targets up to "
                f"{np.abs(targets).max(initial=0.0):.3g} overwhelm float64 (or an offset is not finite). "
                "Standardise features and rewards; the state is unchanged."
            )
        return learnt

    def posterior(self, state: LinearState) -> tuple[FloatArray, FloatArray]:
        """Return the mean (d,) and the covariance (d, d) of the coefficients."""
        return state.mean, state.factor @ state.factor.T

    def pack(self, state: LinearState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the sufficient statistics; the rest follows from them."""
        return {"version": state.version}, {"precision": state.precision, "information": state.information}

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> LinearState:
        """Return the state; raise `CorruptState` where it does not fit `dim` or has no posterior."""
        version = unpacked_version(self.name, meta, packed, names=("precision", "information"))
        precision, information = packed["precision"], packed["information"]
        if precision.shape != (self.dim, self.dim) or information.shape != (self.dim,):
            raise CorruptState(
                f"A saved state of {self.name} has shapes {precision.shape} and {information.shape}, this "
                f"policy has dim {self.dim}; coefficients would belong to other features. Set `dim` back, "
                "or start a new state."
            )
        state = _posterior(version, precision, information)
        if state is None:
            raise CorruptState(
                f"A saved state of {self.name} has a precision that is not positive definite; there is no "
                "posterior to draw from. Restore an older copy, or rebuild it from the log."
            )
        return state

    def _checked(self, features: FeatureArray | None) -> FeatureArray:
        if features is None or features.shape[1] != self.dim:
            found = "none" if features is None else f"{features.shape[1]}"
            raise InvalidBatch(
                f"{self.name} has dim {self.dim} and was given {found} feature columns; every coefficient "
                "belongs to one column. Pass the columns that the policy was set up for, or correct `dim`."
            )
        return features


def _posterior(version: int, precision: FloatArray, information: FloatArray) -> LinearState | None:
    """Return the state, or `None` where the numbers have no posterior in float64."""
    try:
        state = LinearState(version, precision, information)
    except np.linalg.LinAlgError:
        return None
    return state if np.isfinite(state.mean).all() and np.isfinite(state.factor).all() else None


@dataclass(frozen=True, slots=True)
class _LinearPosterior:
    state: LinearState
    features: FeatureArray  # (n, d)
    coefficients: FloatArray  # (M, d)

    def optimistic(self, rows: IndexArray) -> FloatArray:
        upper = np.empty(len(rows))
        block = max(1, _BLOCK // self.features.shape[1])
        for start in range(0, len(rows), block):
            features = self.features.take(rows[start : start + block], axis=0).astype(np.float64)
            spread = features @ self.state.factor
            deviation = np.sqrt(np.vecdot(spread, spread))
            upper[start : start + block] = features @ self.state.mean + 2.0 * deviation
        return upper

    def draws(self, rows: IndexArray) -> FloatArray:
        scored: FloatArray = self.coefficients @ self.features.take(rows, axis=0).astype(np.float64).T
        return scored
