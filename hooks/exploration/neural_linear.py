"""Thompson sampling with a Bayesian last layer over a neural ranker's representation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.exploration.linear_model import (
    LinearDraws,
    LinearModel,
    LinearState,
    not_learnt,
    overwhelmed,
    residuals,
    rough_upper_bounds,
    vectors_for,
)
from explorank.hooks.exploration.options import check_positive
from explorank.hooks.exploration.policy import Policy
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.exploration.thompson import ThompsonContest, check_options
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class NeuralLinearState:
    """A normal-inverse-gamma over the last layer's coefficients and the noise, and what it belongs to."""

    representation: str
    belief: LinearState
    """The coefficients, in units of the noise: their covariance is noise² · precision⁻¹."""
    shape: float
    rate: float

    @property
    def version(self) -> int:
        """How many times `learn` has replaced the state."""
        return self.belief.version

    @property
    def noise(self) -> float:
        """The root of the expected variance of a reward."""
        return float(np.sqrt(self.rate / (self.shape - 1.0)))


@dataclass(frozen=True)
class NeuralLinear(Policy[NeuralLinearState]):
    """Draw the last layer of a network from its posterior and show the candidate it favours.

        r = zᵀβ + N(0, σ²),   β | σ² ~ N(0, σ² I / prior_precision),   σ² ~ InverseGamma(a₀, b₀)
        a₀ = noise_shape,   b₀ = (a₀ - 1) · noise²
        A = prior_precision·I + Σ w z zᵀ,   m = A⁻¹ Σ w z r
        a = a₀ + Σ w / 2,   b = b₀ + (Σ w r² - mᵀ A m) / 2
        σ² | data ~ InverseGamma(a, b),   β | σ², data ~ N(m, σ² A⁻¹)

    z is the representation of a candidate for this request: the activations of a network's last hidden
    layer, which arrive as feature columns. The network is trained elsewhere; this is its exact Bayesian last
    layer.

    It differs from `LinearThompson` in two ways. The noise is learnt instead of set, so that a
    representation that explains more of the rewards is explored less. And coefficients belong to one
    training of the network: `representation` names it, and a state that was learnt over another counts as
    the prior, because column 7 of the next training means something else.

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    When: a network ranks, or could, and its last layer is at hand when serving. When not: there is no
    network; `LinearThompson` over plain columns explores just as well and forgets where the world changes.

    Source: Riquelme, Tucker and Snoek, *Deep Bayesian Bandits Showdown* (2018), section 3, equation 1. It
    departs from the paper in that one last layer is shared by all candidates, whose representation depends
    on them, instead of one for each action; that after a training of the network rewards are learnt anew
    from those that come over its representation; and in what it shares with `LinearThompson`: the item is
    drawn from the winning shares of M draws, a floor is mixed in, and only a pool of contenders is scored.
    """

    name: ClassVar[str] = "neural_linear"
    learns_residuals: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True

    dim: int
    """How many columns the representation has."""
    representation: str = ""
    """The version of the network whose representation arrives; another one starts from the prior."""
    prior_precision: float = 0.25
    """noise² / variance of each coefficient before any reward; larger is more cautious. Above 0."""
    noise: float = 1.0
    """What a reward's standard deviation is expected to be before any reward, in its unit. Above 0."""
    noise_shape: float = 6.0
    """How firmly `noise` is believed: as after twice as many rewards. Above 1."""
    floor: float = 0.01
    """The share of an explored slot that is spread evenly over the pool; above 0, at most 1."""
    pool: int = 50
    """How many candidates contend: the best by mean + 2 standard deviations. Others cannot be shown."""
    draws: int = 256
    """Posterior draws per request; more make propensities finer and requests slower."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.name, self.floor, self.pool, self.draws)
        self._model.check()
        check_positive(
            self.name, "noise", self.noise, otherwise="there is no posterior to draw from", example=1.0
        )
        if not 1.0 < self.noise_shape < np.inf:
            raise InvalidPolicy(
                f"`noise_shape` of {self.name} is {self.noise_shape!r}; it must be above 1 and finite, or the "
                "variance of a reward has no expectation. Try 6."
            )
        if not 0.0 < self._prior_rate < np.inf:
            raise InvalidPolicy(
                f"`noise` of {self.name} is {self.noise!r}; its square leaves the range of float64. Scale the "
                "rewards, so that it is nearer to 1."
            )

    @property
    def _model(self) -> LinearModel:
        """The regression in units of the noise."""
        return LinearModel(self.name, self.dim, self.prior_precision, noise=1.0, half_life=None)

    @property
    def _prior_rate(self) -> float:
        """With which the variance of a reward is expected to be the square of `noise`."""
        return (self.noise_shape - 1.0) * self.noise * self.noise

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def initial_state(self) -> NeuralLinearState:
        """Return the prior."""
        return NeuralLinearState(
            self.representation, self._model.prior(), float(self.noise_shape), self._prior_rate
        )

    def contest(
        self, state: NeuralLinearState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        features = self._model.checked(batch.features)
        state = self._over_this_representation(state)
        vectors = vectors_for(self.draws, self.dim)
        deviations = np.sqrt(state.rate / rng.standard_gamma(state.shape, size=vectors))
        standard = rng.standard_normal((vectors, self.dim)) * deviations[:, None]
        posterior = _StudentDraws(LinearDraws(state.belief, features, standard, self.draws), state.noise)
        return ThompsonContest(posterior, rng, eligible, self.pool, self.floor, batch.offsets)

    def posterior(self, state: NeuralLinearState) -> tuple[FloatArray, FloatArray]:
        """Return the mean (d,) and the covariance (d, d) of the coefficients, over all sizes of the noise."""
        belief = self._over_this_representation(state).belief
        return belief.mean, state.noise**2 * belief.factor @ belief.factor.T

    def learn(self, state: NeuralLinearState, rewards: RewardBatch) -> NeuralLinearState:
        """Return the posterior given `rewards`; how they are cut into batches matters only to rounding.

        A state of another representation is taken for the prior. Raises `InvalidBatch` without (m, dim)
        features, for offsets that are not finite, and where the numbers are too large for a posterior in
        float64.
        """
        state = self._over_this_representation(state)
        before, after = state.belief, self._model.learn(state.belief, rewards)
        weights = row_weights(rewards)
        features = self._model.checked(rewards.features).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the numbers named
            # The same number as Σ w r² - mᵀ A m, as a sum of squares that no rounding makes negative.
            moved = after.mean - before.mean
            missed = residuals(rewards) - features @ after.mean
            rate = state.rate + 0.5 * float(weights @ missed**2 + moved @ before.precision @ moved)
        if not np.isfinite(rate):
            raise overwhelmed(self.name, rewards)
        shape = state.shape + 0.5 * float(weights.sum())
        return NeuralLinearState(self.representation, after, shape, rate)

    @property
    def additive(self) -> bool:
        """True: coefficients and noise have a conjugate posterior."""
        return True

    def _merge(self, state: NeuralLinearState, other: NeuralLinearState) -> NeuralLinearState:
        """Return the posterior given what both have learnt over this representation.

        A state of another representation is taken for the prior.
        """
        state, other = map(self._over_this_representation, (state, other))
        belief = self._model.merged(state.belief, other.belief)
        shape = state.shape + other.shape - self.noise_shape
        rate = state.rate + other.rate - self._prior_rate + self._apart(belief, state.belief, other.belief)
        return NeuralLinearState(self.representation, belief, shape, rate)

    def _unlearn(self, state: NeuralLinearState, rewards: RewardBatch) -> NeuralLinearState:
        """Return the posterior without `rewards`; raise `InvalidBatch` where it cannot have learnt them."""
        state = self._over_this_representation(state)
        other = self.learn(self.initial_state(), rewards)
        belief = self._model.minus(state.belief, other.belief)
        shape = state.shape - other.shape + self.noise_shape
        rate = state.rate - other.rate + self._prior_rate - self._apart(state.belief, belief, other.belief)
        rounding = 1e-9 * state.rate
        if shape < self.noise_shape - 1e-9 * state.shape or rate < self._prior_rate - rounding:
            raise not_learnt(self.name)
        return NeuralLinearState(
            self.representation, belief, max(shape, self.noise_shape), max(rate, self._prior_rate)
        )

    def _apart(self, both: LinearState, one: LinearState, other: LinearState) -> float:
        """Return what the residuals of two parts grow by where they share one mean, of `both`."""
        squares = -self.prior_precision * float(both.mean @ both.mean)
        for part in (one, other):
            moved = part.mean - both.mean
            squares += float(moved @ part.precision @ moved)
        return 0.5 * squares

    def pack(self, state: NeuralLinearState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the representation's name, and the natural parameters with shape and rate of the noise."""
        meta, packed = self._model.pack(state.belief)
        noise = np.array([state.shape, state.rate])
        return {**meta, "representation": state.representation}, {**packed, "noise": noise}

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> NeuralLinearState:
        """Return the state; raise `CorruptState` where it does not fit `dim` or has no posterior."""
        coefficients = {name: array for name, array in packed.items() if name != "noise"}
        belief = self._model.unpack(meta, coefficients)
        representation, noise = meta.get("representation"), packed.get("noise", np.zeros(0))
        if not isinstance(representation, str) or noise.shape != (2,) or not (noise > [1.0, 0.0]).all():
            raise CorruptState(
                f"A saved state of {self.name} belongs to representation {representation!r}, with a noise of "
                f"{noise.tolist()}; it needs a name, a shape above 1 and a rate above 0. Restore an older "
                "copy, or rebuild it from the log."
            )
        return NeuralLinearState(representation, belief, *noise.tolist())

    def _over_this_representation(self, state: NeuralLinearState) -> NeuralLinearState:
        """Return `state`, or the prior in its version where it was learnt over another representation."""
        if state.representation == self.representation:
            return state
        prior = self.initial_state()
        belief = LinearState(state.version, prior.belief.precision, prior.belief.information)
        return NeuralLinearState(self.representation, belief, prior.shape, prior.rate)


@dataclass(frozen=True, slots=True)
class _StudentDraws:
    """Draws of coefficients whose noise was drawn first."""

    scaled: LinearDraws
    noise: float

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        return rough_upper_bounds(self.scaled.state, self.scaled.features, rows, 2.0 * self.noise)

    def draws(self, rows: IndexArray) -> FloatArray:
        return self.scaled.draws(rows)
