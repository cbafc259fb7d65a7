"""Thompson sampling with one Bayesian linear model per arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.arm_beliefs import ArmBeliefs
from explorank.hooks.exploration.disjoint_model import (
    DisjointModel,
    DisjointPolicy,
    DisjointState,
)
from explorank.hooks.exploration.linear_model import LinearModel
from explorank.hooks.exploration.thompson import ThompsonContest, check_options, normal_draws
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch


@dataclass(frozen=True)
class DisjointLinearThompson(DisjointPolicy):
    """Draw what each candidate earns from its own arm's posterior and show the highest draw.

        A_i = prior_precision·I + Σ w x xᵀ / noise²,   m_i = A_i⁻¹ Σ w x r / noise²    over the rewards of i
        draw_i ~ N(x_iᵀm_i, x_iᵀ A_i⁻¹ x_i), independent of each other: no two arms share a coefficient

    Arms appear with their first reward, and `drop` removes them. With a `half_life`, an arm's older rewards
    count less.

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    When: the features describe the request (the user, the time) and each item answers to them in its own
    way, with hundreds of rewards per item. When not: items are new every day, because no arm learns from
    another (use `LinearThompson`). An arm takes 10·d² bytes.

    Source: Agrawal and Goyal, *Thompson Sampling for Contextual Bandits with Linear Payoffs* (2013), with a
    parameter per arm. It departs from the paper as `LinearThompson` does.
    """

    name: ClassVar[str] = "disjoint_linear_thompson"
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
    """After how many further rewards of its arm one counts half; `None` never forgets."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.name, self.floor, self.pool, self.draws)
        self.model.linear.check()

    @property
    def model(self) -> DisjointModel:
        """The regression of each arm that the options describe."""
        return DisjointModel(
            LinearModel(self.name, self.dim, self.prior_precision, self.noise, self.half_life)
        )

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def contest(
        self, state: DisjointState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        beliefs = self.model.beliefs(state, batch)
        posterior = _ArmDraws(beliefs, self.draws, seed=int(rng.integers(2**63)))
        return ThompsonContest(posterior, rng, eligible, self.pool, self.floor, batch.offsets)


@dataclass(frozen=True, slots=True)
class _ArmDraws:
    beliefs: ArmBeliefs
    count: int
    seed: int

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        return self.beliefs.rough_upper_bounds(rows, 2.0)

    def draws(self, rows: IndexArray) -> FloatArray:
        mean, deviation = self.beliefs.moments(rows)
        return normal_draws(mean, deviation, self.count, self.seed)
