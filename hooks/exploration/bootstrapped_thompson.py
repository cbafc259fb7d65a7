"""Thompson sampling over models that are trained on resampled rewards."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Final, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.exploration.linear_model import (
    LinearModel,
    overwhelmed,
    residuals,
    rough_upper_bounds,
    side_by_side,
)
from explorank.hooks.exploration.policy import Policy, unpacked_version
from explorank.hooks.exploration.pools import check_pool
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.exploration.scored_bootstrap import ScoredBootstrap, ScoredState, ScorerVotes
from explorank.hooks.exploration.scorers import (
    ColumnScorer,
    FourierScorer,
    NamedInSettings,
    Scorer,
    ScorerName,
    check_fourier,
    grams,
)
from explorank.hooks.exploration.thompson import Posterior, ThompsonContest
from explorank.hooks.types import (
    BoolArray,
    FeatureArray,
    FloatArray,
    IndexArray,
    RankingBatch,
    RewardBatch,
)

# Which replicates a reward counts for is a function of its number in the log alone, so that a state can be
# rebuilt. One 64-bit number per reward has a bit for each replicate.
_SEED: Final = 20141015
_MOST_REPLICATES: Final = 64


@dataclass(frozen=True)
class BootstrapState:
    """One ridge regression per replicate (B of them), as its normal equations and their solution."""

    version: int
    rewards: int
    """How many rewards have been learnt: the next one's number."""
    precision: FloatArray  # (B, d, d)
    information: FloatArray  # (B, d)
    coefficients: FloatArray = field(init=False)  # (B, d)
    mean: FloatArray = field(init=False)  # (d,) of the coefficients over the replicates
    factor: FloatArray = field(init=False)  # (d, B) F with F Fᵀ their covariance
    rough: FeatureArray = field(init=False, repr=False)  # (d, B + 1)

    def __post_init__(self) -> None:
        """Solve; raise `numpy.linalg.LinAlgError` where a system has no solution."""
        coefficients = np.linalg.solve(self.precision, self.information[..., None])[..., 0]
        mean = coefficients.mean(axis=0)
        object.__setattr__(self, "coefficients", coefficients)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "factor", (coefficients - mean).T / np.sqrt(len(coefficients)))
        object.__setattr__(self, "rough", side_by_side(self.factor, mean))


_State: TypeAlias = BootstrapState | ScoredState


@dataclass(frozen=True)
class BootstrappedThompson(Policy[_State]):
    """Let many models vote, each of which has seen its own resample of the rewards.

        θ_b = argmin_θ Σ_t 2 z_bt w_t (r_t - x_tᵀθ)² / noise² + prior_precision · |θ - θ⁰_b|²
        z_bt ~ Bernoulli(½),   θ⁰_b ~ N(0, I / prior_precision)

    Each reward counts twice for half of the replicates and not at all for the others. How far the
    replicates lie apart then follows what the rewards really scatter, not what a model supposes, and before
    there are any, they are as far apart as the prior.

    The models are ridge regressions, by default on the features (`linear`), or on random Fourier features of
    them (`fourier`), which follow any smooth function. With `columns`, each feature column holds the
    prediction of one member of an ensemble that was bagged elsewhere, and nothing is learnt here. In Python,
    `scorer` may be any `Scorer`.

    Which replicates a reward counts for depends on its number in the log, so that states are not `additive`:
    two learners number their rewards alike, and a reward that is to be unlearnt does not tell its number.

    Propensity: in closed form given the state, conditional on the slate above the slot: the share of the
    replicates for which the item is the best of the pool, mixed with the floor. An importance weight is at
    most pool / floor.

    When: the noise of a reward varies with the candidate, or its law is unknown; or rewards are no linear
    function of the features, or an ensemble is at hand. When not: all is as
    `LinearThompson` supposes, whose posterior is exact and costs less; or a propensity must be finer than 1 in
    64 (with `columns`, 1 in as many as there are).

    Source: Eckles and Kaptein, *Thompson Sampling with the Online Bootstrap* (2014), with the regularisation
    towards prior draws of Osband, Aslanides and Cassirer, *Randomized Prior Functions for Deep Reinforcement
    Learning* (2018). It departs from them in that all replicates vote instead of a random one choosing, that
    a floor is mixed in, and that only a pool of contenders is scored.
    """

    name: ClassVar[str] = "bootstrapped_thompson"
    learns_residuals: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True

    dim: int
    """How many features a candidate has."""
    replicates: int = 64
    """How many regressions vote, from 2 to 64; more make propensities finer."""
    prior_precision: float = 1.0
    """1 / variance of each coefficient before any reward; larger is more cautious. Above 0."""
    noise: float = 1.0
    """How much a reward counts against the prior: as one with this standard deviation. Above 0."""
    floor: float = 0.01
    """The share of an explored slot that is spread evenly over the pool; above 0, at most 1."""
    pool: int = 50
    """How many candidates contend: the best by mean + 2 standard deviations. Others cannot be shown."""
    scorer: Annotated[ScorerName | Scorer[Any], NamedInSettings()] = "linear"
    """What votes: regressions on the features (`linear`), regressions on random Fourier features of them
    (`fourier`), or the columns of an ensemble's predictions (`columns`, one vote each, without `replicates`,
    `prior_precision` and `noise`). In Python, any `Scorer`."""
    components: int = 64
    """How many Fourier features each regression has, for `fourier`. Learning slows down with the square."""
    length_scale: float = 1.0
    """For `fourier`: how far apart two items' features are when little is to be inferred from one to the
    other. Above 0."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_pool(self.name, self.floor, self.pool)
        self.model.check()
        check_fourier(self.name, self.components, self.length_scale)
        if isinstance(self.scorer, str) and self.scorer not in get_args(ScorerName):
            raise InvalidPolicy(
                f"`scorer` of {self.name} is {self.scorer!r}; there are {list(get_args(ScorerName))}. In "
                "Python, pass any object with the methods of `Scorer`."
            )
        if not 2 <= self.replicates <= _MOST_REPLICATES:
            raise InvalidPolicy(
                f"`replicates` of {self.name} is {self.replicates!r}; from 2 to {_MOST_REPLICATES} can vote, "
                "one per bit of a reward's random number. Try 64."
            )

    @property
    def model(self) -> LinearModel:
        """The regression that each replicate is."""
        return LinearModel(self.name, self.dim, self.prior_precision, self.noise, None)

    @property
    def _scored(self) -> ScoredBootstrap:
        """The replicates of a scorer other than `linear`."""
        chosen: Scorer[Any]
        match self.scorer:
            case "fourier":
                chosen = FourierScorer(
                    self.dim, self.prior_precision, self.noise, self.components, self.length_scale
                )
            case "columns":
                chosen = ColumnScorer()
            case _:
                chosen = cast("Scorer[Any]", self.scorer)
        return ScoredBootstrap(self.name, chosen, self.dim, self.replicates)

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def initial_state(self) -> _State:
        """Return the prior draws."""
        if self.scorer != "linear":
            return self._scored.initial_state()
        drawn = np.random.Generator(np.random.PCG64(_SEED)).standard_normal((self.replicates, self.dim))
        precision = np.tile(np.eye(self.dim) * self.prior_precision, (self.replicates, 1, 1))
        return BootstrapState(0, 0, precision, drawn * np.sqrt(self.prior_precision))

    def contest(
        self, state: _State, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        features = self.model.checked(batch.features)
        votes: Posterior
        if isinstance(state, ScoredState):
            votes = ScorerVotes(self._scored, state.model, features)
        else:
            votes = _Votes(state, features)
        return ThompsonContest(votes, rng, eligible, self.pool, self.floor, batch.offsets)

    def learn(self, state: _State, rewards: RewardBatch) -> _State:
        """Return the replicates given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for offsets that are not finite, and where the
        numbers are too large for a solution in float64.
        """
        if isinstance(state, ScoredState):
            counted = resampled(state.rewards, len(rewards), self.replicates)
            return self._scored.learn(state, rewards, self.model.checked(rewards.features), counted)
        features = self.model.checked(rewards.features).astype(np.float64)
        targets = residuals(rewards)
        counted = resampled(state.rewards, len(rewards), self.replicates)
        information = state.information
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the numbers named
            counted *= row_weights(rewards) / self.noise**2
            precision = state.precision + grams(counted, features)
            information = information + (counted * targets) @ features
            try:
                learnt = replace(
                    state,
                    version=state.version + 1,
                    rewards=state.rewards + len(rewards),
                    precision=precision,
                    information=information,
                )
            except np.linalg.LinAlgError as error:
                raise overwhelmed(self.name, rewards) from error
        if not np.isfinite(learnt.coefficients).all():
            raise overwhelmed(self.name, rewards)
        return learnt

    def pack(self, state: _State) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the normal equations, or what the scorer packs; the rest follows from them."""
        if isinstance(state, ScoredState):
            return self._scored.pack(state)
        meta = {"version": state.version, "rewards": state.rewards}
        return meta, {"precision": state.precision, "information": state.information}

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> _State:
        """Return the state; raise `CorruptState` where it does not fit the options or has no solution."""
        if self.scorer != "linear":
            return self._scored.unpack(meta, packed)
        version = unpacked_version(self.name, meta, packed, names=("precision", "information"))
        precision, information, rewards = packed["precision"], packed["information"], meta.get("rewards")
        needed = (self.replicates, self.dim)
        if information.shape != needed or precision.shape != (*needed, self.dim):
            raise CorruptState(
                f"A saved state of {self.name} has shapes {precision.shape} and {information.shape}, this "
                f"policy has {self.replicates} replicates of dim {self.dim}; coefficients would belong to "
                "other features. Set the options back, or start a new state."
            )
        try:
            if isinstance(rewards, int) and rewards >= 0:
                state = BootstrapState(version, rewards, precision, information)
                if np.isfinite(state.coefficients).all():
                    return state
        except np.linalg.LinAlgError:
            pass
        raise CorruptState(
            f"A saved state of {self.name} has learnt {rewards!r} rewards into equations without a finite "
            "solution. Restore an older copy, or rebuild it from the log."
        )


def resampled(first: int, count: int, replicates: int) -> FloatArray:
    """Return how often each of `count` rewards, numbered from `first`, counts: 0 or 2, (replicates, count)."""
    generator = np.random.PCG64(_SEED)
    generator.advance(first)
    numbers: NDArray[np.uint64] = generator.random_raw(count)
    bits = numbers >> np.arange(replicates, dtype=np.uint64)[:, None] & np.uint64(1)
    return bits.astype(np.float64) * 2.0


@dataclass(frozen=True, slots=True)
class _Votes:
    """The `Posterior` whose draws are the replicates."""

    state: BootstrapState
    features: FeatureArray  # (n, d)

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        return rough_upper_bounds(self.state, self.features, rows, 2.0)

    def draws(self, rows: IndexArray) -> FloatArray:
        scored: FloatArray = self.state.coefficients @ self.features.take(rows, axis=0).astype(np.float64).T
        return scored
