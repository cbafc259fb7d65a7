"""LinUCB with one Bayesian linear model that all candidates share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration.linear_model import (
    LinearModel,
    LinearState,
    SharedLinearPolicy,
    rough_upper_bounds,
    upper_bounds,
)
from explorank.hooks.exploration.pools import IndexContest, check_pool
from explorank.hooks.types import BoolArray, FeatureArray, FloatArray, IndexArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class LinUCB(SharedLinearPolicy):
    """Show the candidate whose expected reward could, within reason, be the highest.

        index_i = x_iᵀm + alpha · sqrt(x_iᵀ A⁻¹ x_i)
        A = prior_precision·I + Σ w x xᵀ / noise²,   m = A⁻¹ Σ w x r / noise²

    With a `half_life`, older rewards count less (see `LinearModel`).

    Propensity: 1 - floor + floor / #{pool} for the highest index, floor / #{pool} for the others of the
    pool, conditional on the slate above the slot; an importance weight is at most pool / floor. Equal
    indices share the first place.

    When: answers should be the same for the same state and features but for the floor, or regret needs a
    bound that holds with certainty of its width. When not: rewards are late, because until they arrive every
    request shows the same items; the log is to evaluate other policies, because nearly all of its
    randomness is the floor's; or the same candidates stand there every time, where an alpha of 1 may lock in on
    a good one and never find the best (take 2 or 3). `LinearThompson` serves better there.

    Source: Li, Chu, Langford and Schapire, *A Contextual-Bandit Approach to Personalized News Article
    Recommendation* (2010), algorithm 1 with coefficients shared by all arms. It departs from the paper in
    that a floor is mixed in, without which a log of it supports no other policy, and that the width has the
    reward's unit: with noise 1, A is the paper's.
    """

    name: ClassVar[str] = "lin_ucb"
    learns_residuals: ClassVar[bool] = True

    dim: int
    """How many features a candidate has."""
    alpha: float = 1.0
    """How many standard deviations of its expected reward a candidate is credited with; 0 is greedy."""
    prior_precision: float = 1.0
    """1 / variance of each coefficient before any reward; larger is more cautious. Above 0."""
    noise: float = 1.0
    """Standard deviation of a reward around its expectation, in the reward's unit. Above 0."""
    floor: float = 0.01
    """The share of an explored slot that is spread evenly over the pool; above 0, at most 1."""
    pool: int = 50
    """How many candidates share the floor: the best by their index. Others cannot be shown."""
    half_life: float | None = None
    """After how many further rewards one counts half, for a world that changes; `None` never forgets."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_pool(self.name, self.floor, self.pool)
        check_alpha(self.name, self.alpha)
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
    ) -> IndexContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        features = self.model.checked(batch.features)
        index = _Index(state, features, self.alpha)
        return IndexContest(index, rng, eligible, self.pool, self.floor, batch.offsets)

    def learn(self, state: LinearState, rewards: RewardBatch) -> LinearState:
        """Return the posterior given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for offsets that are not finite, and where the
        numbers are too large for a posterior in float64.
        """
        return self.model.learn(state, rewards)


def check_alpha(name: str, alpha: float) -> None:
    """Raise `InvalidPolicy` unless `alpha` is a width."""
    if not 0.0 <= alpha < np.inf:
        raise InvalidPolicy(
            f"`alpha` of {name} is {alpha!r}; it is a number of standard deviations, from 0 (greedy) on, or "
            "what is unknown would be avoided instead of tried. Try 1."
        )


@dataclass(frozen=True, slots=True)
class _Index:
    """The index of the candidates of one request."""

    state: LinearState
    features: FeatureArray  # (n, d)
    alpha: float

    @property
    def exact_at_once(self) -> int:
        return 0

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        return rough_upper_bounds(self.state, self.features, rows, self.alpha)

    def values(self, rows: IndexArray) -> FloatArray:
        return upper_bounds(self.state, self.features, rows, self.alpha)
