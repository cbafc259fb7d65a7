"""Thompson sampling with one Bayesian linear model that all candidates share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from explorank.hooks.exploration.linear_model import (
    LinearDraws,
    LinearModel,
    LinearState,
    SharedLinearPolicy,
)
from explorank.hooks.exploration.thompson import ThompsonContest, check_options
from explorank.hooks.types import BoolArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class LinearThompson(SharedLinearPolicy):
    """Draw a coefficient vector from its Gaussian posterior and show the candidate it favours.

        r = xᵀθ + N(0, noise²),   θ ~ N(0, I / prior_precision)
        A = prior_precision·I + Σ w x xᵀ / noise²,   θ | data ~ N(A⁻¹ Σ w x r / noise², A⁻¹)

    One draw of θ scores all candidates jointly, so that similar candidates win or lose together. With a
    `half_life`, older rewards count less (see `LinearModel`).

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    When: candidates come and go, and their features say what they share: one reward teaches something about
    all of them. When not: no linear function of the features fits the rewards even roughly; the posterior
    then grows certain of a wrong answer (use a half-life, richer features, or `BetaThompson`).

    Source: Agrawal and Goyal, *Thompson Sampling for Contextual Bandits with Linear Payoffs* (2013). It
    departs from the paper in that the item is drawn from the winning shares of M draws instead of being the
    winner of one, that a floor is mixed in, that the posterior has its own width instead of the inflated one
    that the regret bound asks for, and that only a pool of contenders is scored.
    """

    name: ClassVar[str] = "linear_thompson"
    learns_residuals: ClassVar[bool] = True

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
    half_life: float | None = None
    """After how many further rewards one counts half, for a world that changes; `None` never forgets."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.name, self.floor, self.pool, self.draws)
        self.model.check()

    @property
    def model(self) -> LinearModel:
        """The regression that the options describe."""
        return LinearModel(self.name, self.dim, self.prior_precision, self.noise, self.half_life)

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def contest(
        self, state: LinearState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        features = self.model.checked(batch.features)
        posterior = LinearDraws.of(state, features, self.draws, rng)
        return ThompsonContest(posterior, rng, eligible, self.pool, self.floor, batch.offsets)

    def learn(self, state: LinearState, rewards: RewardBatch) -> LinearState:
        """Return the posterior given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for offsets that are not finite, and where the
        numbers are too large for a posterior in float64.
        """
        return self.model.learn(state, rewards)
