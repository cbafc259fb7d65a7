"""One Gaussian over the coefficients that all candidates share, and how rewards narrow it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidBatch, InvalidPolicy
from explorank.hooks.exploration.compiled import (
    FEATURES,
    FLOAT,
    INTEGER,
    MATRIX,
    ROWS,
    SINGLE_MATRIX,
    VECTOR,
    WRITTEN_SINGLES,
    WRITTEN_VECTOR,
    inlined,
    kernel,
)
from explorank.hooks.exploration.options import check_positive
from explorank.hooks.exploration.policy import Policy, unpacked_version
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.exploration.thompson import mirrored
from explorank.hooks.types import FeatureArray, FloatArray, IndexArray, RewardBatch

# Candidates whose products are made at once; those of 32 features then fit into the second-level cache.
_BLOCK: Final = 2_048
_NO_POSTERIOR: Final = "there is no posterior to draw from"


@dataclass(frozen=True)
class LinearState:
    """A Gaussian by its natural parameters, and what sampling needs of them, computed once per `learn`."""

    version: int
    precision: FloatArray  # (d, d) inverse covariance
    information: FloatArray  # (d,) precision · mean
    mean: FloatArray = field(init=False)  # (d,) precision⁻¹ information
    factor: FloatArray = field(init=False)  # (d, d) F with F Fᵀ = precision⁻¹
    rough: FeatureArray = field(init=False, repr=False)  # (d, d + 1)

    def __post_init__(self) -> None:
        """Factorise; raise `numpy.linalg.LinAlgError` where the precision is not positive definite."""
        lower = np.linalg.cholesky(self.precision)
        factor = np.ascontiguousarray(np.linalg.solve(lower.T, np.eye(len(lower))))
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "mean", factor @ (factor.T @ self.information))
        object.__setattr__(self, "rough", side_by_side(factor, self.mean))


@dataclass(frozen=True, slots=True)
class CoefficientModel:
    """The prior N(0, I / prior_precision) over `dim` coefficients, for the policy called `policy`."""

    policy: str
    dim: int
    prior_precision: float

    def check(self) -> None:
        """Raise `InvalidPolicy` for options without a prior."""
        if self.dim < 1:
            raise InvalidPolicy(
                f"`dim` of {self.policy} is {self.dim!r}; a linear model needs at least one feature. Set it "
                "to the number of feature columns."
            )
        check_positive(
            self.policy, "prior_precision", self.prior_precision, otherwise=_NO_POSTERIOR, example=1.0
        )

    def prior(self) -> LinearState:
        """Return the state before any reward."""
        return LinearState(0, np.eye(self.dim) * self.prior_precision, np.zeros(self.dim))

    def checked(self, features: FeatureArray | None) -> FeatureArray:
        """Return `features`; raise `InvalidBatch` where they have not `dim` columns."""
        if features is None or features.shape[1] != self.dim:
            found = "none" if features is None else f"{features.shape[1]}"
            raise InvalidBatch(
                f"{self.policy} has dim {self.dim} and was given {found} feature columns; every coefficient "
                "belongs to one column. Pass the columns that the policy was set up for, or correct `dim`."
            )
        return features

    def state(
        self, version: int, precision: FloatArray, information: FloatArray, rewards: RewardBatch
    ) -> LinearState:
        """Return the state learnt from `rewards`; raise `InvalidBatch` where it has no posterior."""
        # The products are symmetric only up to rounding, which many updates would let grow.
        learnt = _posterior(version, (precision + precision.T) / 2.0, information)
        if learnt is None:
            raise overwhelmed(self.policy, rewards)
        return learnt

    def pack(self, state: LinearState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the natural parameters; the rest follows from them."""
        return {"version": state.version}, {"precision": state.precision, "information": state.information}

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> LinearState:
        """Return the state; raise `CorruptState` where it does not fit `dim` or has no posterior."""
        version = unpacked_version(self.policy, meta, packed, names=("precision", "information"))
        precision, information = packed["precision"], packed["information"]
        if precision.shape != (self.dim, self.dim) or information.shape != (self.dim,):
            raise CorruptState(
                f"A saved state of {self.policy} has shapes {precision.shape} and {information.shape}, this "
                f"policy has dim {self.dim}; coefficients would belong to other features. Set `dim` back, "
                "or start a new state."
            )
        state = _posterior(version, precision, information)
        if state is None:
            raise CorruptState(
                f"A saved state of {self.policy} has a precision that is not positive definite; there is no "
                "posterior to draw from. Restore an older copy, or rebuild it from the log."
            )
        return state


@dataclass(frozen=True, slots=True)
class LinearModel(CoefficientModel):
    """Bayesian linear regression with known noise, a conjugate model: the posterior is exact.

        r - offset = xᵀθ + N(0, noise²),   θ ~ N(0, I / prior_precision)
        A = prior_precision·I + Σ w k x xᵀ / noise²,   θ | data ~ N(A⁻¹ Σ w k x (r - offset) / noise², A⁻¹)

    with k = ½^(age / half_life) what is kept of a reward; its age is the number of rewards learnt after it.
    Without a half-life, k = 1. The prior does not age, so a direction that nothing is learnt about any more
    returns to it (the regularisation of Russac, Vernade and Cappé, *Weighted Linear Bandits for
    Non-Stationary Environments*, 2019).
    """

    noise: float
    half_life: float | None

    def check(self) -> None:
        """Raise `InvalidPolicy` for options without a posterior."""
        # Named, because a dataclass with slots is a new class, which an argumentless super() does not know.
        CoefficientModel.check(self)
        check_positive(self.policy, "noise", self.noise, otherwise=_NO_POSTERIOR, example=1.0)
        if self.half_life is not None:
            check_positive(
                self.policy, "half_life", self.half_life, otherwise="nothing is remembered", example=10_000.0
            )

    def learn(self, state: LinearState, rewards: RewardBatch) -> LinearState:
        """Return the posterior given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for offsets that are not finite, and where the
        numbers are too large for a posterior in float64.
        """
        features = self.checked(rewards.features).astype(np.float64)
        targets = residuals(rewards)
        precision, information = state.precision, state.information
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the numbers named
            weights = row_weights(rewards) / self.noise**2
            if self.half_life is not None:
                ageing = retention(self.half_life, len(rewards))
                weights = weights * ageing[1:]
                prior = self.prior_precision * np.eye(self.dim)
                precision = prior + ageing[0] * (precision - prior)
                information = ageing[0] * information
            weighted = features * weights[:, None]
            precision = precision + weighted.T @ features
            information = information + weighted.T @ targets
            return self.state(state.version + 1, precision, information, rewards)

    def merged(self, state: LinearState, other: LinearState) -> LinearState:
        """Return the posterior given what both have learnt; the version is the sum of both.

        Raises `InvalidBatch` where the sum has no posterior in float64.
        """
        precision = state.precision + (other.precision - self.prior_precision * np.eye(self.dim))
        version = state.version + other.version
        merged = _posterior(version, precision, state.information + other.information)
        if merged is None:
            raise InvalidBatch(
                f"Two states of {self.policy} have no common posterior in float64; their numbers are too far "
                "apart. Standardise features and rewards, and rebuild both from the log."
            )
        return merged

    def minus(self, state: LinearState, other: LinearState) -> LinearState:
        """Return the next version: the posterior without what `other` has learnt.

        Raises `InvalidBatch` where `other` has learnt more than is there.
        """
        precision = state.precision - (other.precision - self.prior_precision * np.eye(self.dim))
        left = np.linalg.eigvalsh(precision)[0]
        # Nothing is less certain than the prior; rounding is relative to the largest numbers involved.
        if left >= self.prior_precision - 1e-9 * np.abs(state.precision).max():
            remaining = _posterior(state.version + 1, precision, state.information - other.information)
            if remaining is not None:
                return remaining
        raise not_learnt(self.policy)


class SharedLinearPolicy(Policy[LinearState]):
    """The base of policies whose state is one Gaussian over the coefficients of all candidates."""

    needs_features: ClassVar[bool] = True

    @property
    @abstractmethod
    def model(self) -> CoefficientModel:
        """The prior, by the policy's options."""

    def initial_state(self) -> LinearState:
        """Return the prior."""
        return self.model.prior()

    def posterior(self, state: LinearState) -> tuple[FloatArray, FloatArray]:
        """Return the mean (d,) and the covariance (d, d) of the coefficients."""
        return state.mean, state.factor @ state.factor.T

    @property
    def additive(self) -> bool:
        """Whether the posterior is a conjugate one that forgets nothing."""
        return isinstance(self.model, LinearModel) and self.model.half_life is None

    def _merge(self, state: LinearState, other: LinearState) -> LinearState:
        """Return the posterior given what both have learnt."""
        return cast("LinearModel", self.model).merged(state, other)

    def _unlearn(self, state: LinearState, rewards: RewardBatch) -> LinearState:
        """Return the posterior without `rewards`."""
        return cast("LinearModel", self.model).minus(state, self.learn(self.initial_state(), rewards))

    def pack(self, state: LinearState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the natural parameters; the rest follows from them."""
        return self.model.pack(state)

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> LinearState:
        """Return the state; raise `CorruptState` where it does not fit `dim` or has no posterior."""
        return self.model.unpack(meta, packed)


def residuals(rewards: RewardBatch) -> FloatArray:
    """Return what is left to learn, (m,): each reward without what was expected of it."""
    return rewards.values if rewards.offsets is None else rewards.values - rewards.offsets


def retention(half_life: float, m: int) -> FloatArray:
    """Return what is kept of the past and of each of `m` rewards once all are learnt, (1 + m,)."""
    ages = np.concatenate(([m], np.arange(m - 1, -1, -1)))
    kept: FloatArray = np.exp2(-ages / half_life)
    return kept


def not_learnt(policy: str) -> InvalidBatch:
    """Return the error for rewards that cannot be taken out of a state."""
    return InvalidBatch(
        f"{policy} was told to unlearn rewards that it cannot have learnt: without them the state would be less "
        "certain than its prior. Unlearn rewards once, as they were learnt; the state is unchanged."
    )


def overwhelmed(policy: str, rewards: RewardBatch) -> InvalidBatch:
    """Return the error for rewards after which there is no posterior in float64."""
    features = np.zeros(0) if rewards.features is None else rewards.features
    return InvalidBatch(
        f"{policy} has no posterior after these {len(rewards)} rewards: features up to "
        f"{np.abs(features).max(initial=0.0):.3g} and targets up to "
        f"{np.abs(residuals(rewards)).max(initial=0.0):.3g} overwhelm float64 (or an offset is not finite). "
        "Standardise features and rewards; the state is unchanged."
    )


def _posterior(version: int, precision: FloatArray, information: FloatArray) -> LinearState | None:
    """Return the state, or `None` where the numbers have no posterior in float64."""
    try:
        state = LinearState(version, precision, information)
    except np.linalg.LinAlgError:
        return None
    return state if np.isfinite(state.mean).all() and np.isfinite(state.factor).all() else None


class Belief(Protocol):
    """A mean and a width of the coefficients, whatever they come from."""

    @property
    def mean(self) -> FloatArray:
        """The expected coefficients, (d,)."""

    @property
    def factor(self) -> FloatArray:
        """Any F (d, k) with F Fᵀ the covariance of the coefficients."""

    @property
    def rough(self) -> FeatureArray:
        """Factor and mean side by side in single precision, (d, k + 1), for one product with the features."""


def side_by_side(factor: FloatArray, mean: FloatArray) -> FeatureArray:
    """Return [factor | mean] in single precision; numbers beyond its range are infinite."""
    with np.errstate(over="ignore"):
        return np.column_stack((factor, mean)).astype(np.float32)


def upper_bounds(belief: Belief, features: FeatureArray, rows: IndexArray, deviations: float) -> FloatArray:
    """Return mean + `deviations` standard deviations of the expected reward of `rows`, (len(rows),).

    A pure function of each row, to the last bit.
    """
    upper = np.empty(len(rows))
    _write_upper_bounds(features, rows, belief.factor, belief.mean, deviations, upper)
    return upper


@kernel((FEATURES, ROWS, MATRIX, VECTOR, FLOAT, WRITTEN_VECTOR))
def _write_upper_bounds(
    features: FeatureArray,
    rows: IndexArray,
    factor: FloatArray,
    mean: FloatArray,
    deviations: float,
    upper: FloatArray,
) -> None:
    width = factor.shape[1]
    spread = np.empty(width)
    for position in range(len(rows)):
        expected = _spread(features[rows[position]], factor, mean, spread)
        variance = 0.0
        for column in range(width):
            variance += spread[column] * spread[column]
        upper[position] = expected + deviations * np.sqrt(variance)


@inlined
def _spread(features: FeatureArray, factor: FloatArray, mean: FloatArray, spread: FloatArray) -> float:
    """Write x F into `spread` (k,) and return x · mean."""
    dim, width = factor.shape
    spread[:] = 0.0
    expected = 0.0
    for row in range(dim):
        feature = np.float64(features[row])
        expected += feature * mean[row]
        for column in range(width):
            spread[column] += feature * factor[row, column]
    return expected


def rough_upper_bounds(
    belief: Belief, features: FeatureArray, rows: IndexArray, deviations: float
) -> NDArray[np.floating[Any]]:
    """Return `upper_bounds` in single precision where it suffices: to say who contends."""
    if 2 * len(rows) < len(features):
        upper, finite = _rough(belief, features.take(rows, axis=0), deviations)
    else:
        # To compute what is not asked for is cheaper than to copy what is.
        upper, finite = _rough(belief, features, deviations)
        if len(rows) < len(features):
            upper = upper[rows]
    return upper if finite else upper_bounds(belief, features, rows, deviations)


def _rough(belief: Belief, features: FeatureArray, deviations: float) -> tuple[FeatureArray, bool]:
    """Return the upper bound of each row of `features`, (n,) float32, and whether all are finite."""
    n, width = len(features), belief.rough.shape[1]
    upper, finite = np.empty(n, np.float32), True
    for start in range(0, n, _BLOCK):
        rows = features[start : start + _BLOCK]
        # Unlike `matmul`, it does not ask whether a number overflowed, which is asked below.
        product = np.dot(rows, belief.rough, out=scratch(len(rows), width))
        finite &= _deviate(product, deviations, upper[start : start + _BLOCK])
    return upper, finite


# In single precision for candidates that contend or not: in which order sums are added up does not matter.
@kernel((SINGLE_MATRIX, FLOAT, WRITTEN_SINGLES), reorder=True)
def _deviate(product: FeatureArray, deviations: float, upper: FeatureArray) -> bool:
    """Write last column + `deviations` · length of the others of `product` (n, k + 1); say if all are finite."""
    rows, width = product.shape
    scale = np.float32(deviations)
    total = np.float32(0.0)
    for row in range(rows):
        square = np.float32(0.0)
        for column in range(width - 1):
            square += product[row, column] * product[row, column]
        upper[row] = product[row, width - 1] + scale * np.sqrt(square)
        total += upper[row]
    return bool(np.isfinite(total))


class _Scratch(threading.local):
    """Memory that a thread's requests use one after the other: fresh pages cost more than the arithmetic."""

    numbers: FeatureArray = np.empty(0, np.float32)


_SCRATCH: Final = _Scratch()


def scratch(rows: int, columns: int) -> FeatureArray:
    """Return an array (rows, columns) of whatever, to be read before this thread asks again."""
    size = rows * columns
    if len(_SCRATCH.numbers) < size:
        _SCRATCH.numbers = np.empty(size, np.float32)
    return _SCRATCH.numbers[:size].reshape(rows, columns)


def vectors_for(draws: int, dim: int) -> int:
    """Return how many normal vectors make so many `draws` of `dim` coefficients; see `LinearDraws`."""
    return mirrored(draws, 4 if dim > 1 else 2)


@dataclass(frozen=True, slots=True)
class LinearDraws:
    """The `Posterior` of joint draws: each of M coefficient vectors scores every candidate.

    Each normal vector z = (u, v), cut in two halves, gives four of them: mean + F (±u, ±v). All have the law of
    the first, so that the shares are Thompson's on average over the seeds; and they spread no more about it than
    those of independent draws do (in trials with 32 coefficients 10 to 20 % less), at a quarter of the cost. A
    single coefficient cannot be cut, and gives two.
    """

    state: LinearState
    features: FeatureArray  # (n, d)
    standard: FloatArray  # (vectors_for(M, d), d) normal draws z
    count: int

    @classmethod
    def of(
        cls, state: LinearState, features: FeatureArray, count: int, rng: np.random.Generator
    ) -> LinearDraws:
        """Return `count` draws of the coefficients."""
        return cls(
            state,
            features,
            rng.standard_normal((vectors_for(count, len(state.mean)), len(state.mean))),
            count,
        )

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        """Return mean + 2 standard deviations of each of `rows`, (len(rows),)."""
        return rough_upper_bounds(self.state, self.features, rows, 2.0)

    def draws(self, rows: IndexArray) -> FloatArray:
        """Return what each draw expects of `rows`, (M, len(rows))."""
        state = self.state
        return _joint_draws(self.features, rows, state.factor, state.mean, self.standard, self.count)


@kernel((FEATURES, ROWS, MATRIX, VECTOR, MATRIX, INTEGER))
def _joint_draws(
    features: FeatureArray,
    rows: IndexArray,
    factor: FloatArray,
    mean: FloatArray,
    standard: FloatArray,
    count: int,
) -> FloatArray:
    # A pool is smaller than the number of draws: x (mean + F z) costs less as x mean + (x F) z.
    dim, members = len(mean), len(rows)
    expected, spread = np.empty(members), np.empty((dim, members))
    one = np.empty(dim)
    for member in range(members):
        expected[member] = _spread(features[rows[member]], factor, mean, one)
        spread[:, member] = one
    half = dim // 2
    copies = 4 if half else 2
    draws = np.empty((count, members))
    left, right = np.empty(members), np.empty(members)
    for draw in range(count):
        vector, copy = divmod(draw, copies)
        if copy == 0:
            _combine(standard[vector, :half], spread[:half], left)
            _combine(standard[vector, half:], spread[half:], right)
        turned = 1.0 if copy < 2 else -1.0
        mirrored = 1.0 if copy % 2 == 0 else -1.0
        row = draws[draw]
        for member in range(members):
            row[member] = expected[member] + mirrored * (right[member] + turned * left[member])
    return draws


@inlined
def _combine(scales: FloatArray, rows: FloatArray, combined: FloatArray) -> None:
    """Write scales (k,) times rows (k, p) into `combined` (p,)."""
    combined[:] = 0.0
    for row in range(len(scales)):
        scale = scales[row]
        for column in range(len(combined)):
            combined[column] += scale * rows[row, column]
