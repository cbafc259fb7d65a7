"""LinUCB with one Bayesian linear model per arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.arm_beliefs import ArmBeliefs
from explorank.hooks.exploration.disjoint_model import (
    DisjointModel,
    DisjointPolicy,
    DisjointState,
)
from explorank.hooks.exploration.lin_ucb import check_alpha
from explorank.hooks.exploration.linear_model import LinearModel
from explorank.hooks.exploration.pools import IndexContest, check_pool
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch


@dataclass(frozen=True)
class DisjointLinUCB(DisjointPolicy):
    """Show the candidate whose expected reward could, by its own arm, be the highest.

        index_i = x_iᵀm_i + alpha · sqrt(x_iᵀ A_i⁻¹ x_i)
        A_i = prior_precision·I + Σ w x xᵀ / noise²,   m_i = A_i⁻¹ Σ w x r / noise²    over the rewards of i

    Arms appear with their first reward, and `drop` removes them. With a `half_life`, an arm's older rewards
    count less.

    Propensity: 1 - floor + floor / #{pool} for the highest index, floor / #{pool} for the others of the
    pool, conditional on the slate above the slot; an importance weight is at most pool / floor. Equal
    indices share the first place.

    When: the features describe the request (the user, the time) and each item answers to them in its own
    way, with hundreds of rewards per item. When not: items are new every day, because no arm learns from
    another (use `LinUCB`); rewards are late, or the log is to evaluate other policies (use
    `DisjointLinearThompson`). An arm takes 10·d² bytes.

    Source: Li, Chu, Langford and Schapire, *A Contextual-Bandit Approach to Personalized News Article
    Recommendation* (2010), algorithm 1. It departs from the paper in that a floor is mixed in, without which
    a log of it supports no other policy, and that the width has the reward's unit: with noise 1, A is the
    paper's.
    """

    name: ClassVar[str] = "disjoint_lin_ucb"
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
    """After how many further rewards of its arm one counts half; `None` never forgets."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_pool(self.name, self.floor, self.pool)
        check_alpha(self.name, self.alpha)
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
    ) -> IndexContest:
        """Return the contest of one request; raise `InvalidBatch` without (n, dim) features."""
        index = _Index(self.model.beliefs(state, batch), self.alpha)
        return IndexContest(index, rng, eligible, self.pool, self.floor, batch.offsets)


# Where candidates share their features, so many exact indices are one product of what lies in the cache.
_EXACT_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class _Index:
    """The index of the candidates of one request."""

    beliefs: ArmBeliefs
    alpha: float

    @property
    def exact_at_once(self) -> int:
        return _EXACT_AT_ONCE if self.beliefs.one_context else 0

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        return self.beliefs.rough_upper_bounds(rows, self.alpha)

    def values(self, rows: IndexArray) -> FloatArray:
        return self.beliefs.upper_bounds(rows, self.alpha)
