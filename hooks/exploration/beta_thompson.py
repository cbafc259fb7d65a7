"""Thompson sampling with one Beta posterior per item."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.item_sums import (
    ItemPolicy,
    ItemSums,
    aged_weights,
    check_half_life,
    empty_sum,
)
from explorank.hooks.exploration.options import check_positive
from explorank.hooks.exploration.policy import RewardForm
from explorank.hooks.exploration.randomness import generator
from explorank.hooks.exploration.rewards import unit_rewards
from explorank.hooks.exploration.thompson import ThompsonContest, check_options
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class BetaState(ItemSums):
    """How much of a success and how much of a failure each item's rewards add up to."""

    successes: FloatArray = field(default_factory=empty_sum)  # (A,) Σ w · r
    failures: FloatArray = field(default_factory=empty_sum)  # (A,) Σ w · (1 - r)


@dataclass(frozen=True)
class BetaThompson(ItemPolicy[BetaState]):
    """Draw each item's success rate from its Beta posterior and show the highest draw.

        θ_i ~ Beta(prior_alpha + Σ w·r, prior_beta + Σ w·(1 - r))    over the rewards r in [0, 1] of item i

    With a `half_life`, older rewards count less, and an item that earns none any more returns to the prior
    (discounted Thompson sampling: Raj and Kalyani, *Taming Non-stationary Bandits*, 2017).

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    Source: Thompson (1933); Chapelle and Li, *An Empirical Evaluation of Thompson Sampling* (2011). It
    departs from them in that the item is drawn from the winning shares of M draws instead of being the
    winner of one, that a floor is mixed in, and that a reward between 0 and 1 counts as that share of a
    success, instead of being rounded by a coin (Agrawal and Goyal, 2012): the mean is the same, and learning
    stays a function of the log.
    """

    name: ClassVar[str] = "beta_thompson"
    reward_form: ClassVar[RewardForm] = "share"

    prior_alpha: float = 1.0
    """Successes that an item is credited with before its first reward; above 0."""
    prior_beta: float = 1.0
    """Failures that an item is charged with before its first reward; above 0."""
    floor: float = 0.01
    """The share of an explored slot that is spread evenly over the pool; above 0, at most 1."""
    pool: int = 50
    """How many candidates contend: the best by mean + 2 standard deviations. Others cannot be shown."""
    draws: int = 256
    """Posterior draws per request; more make propensities finer and requests slower."""
    half_life: float | None = None
    """After how many further rewards, of whatever item, one counts half; `None` never forgets."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.name, self.floor, self.pool, self.draws)
        for option, value in (("prior_alpha", self.prior_alpha), ("prior_beta", self.prior_beta)):
            check_positive(
                self.name, option, value, otherwise="an unseen item has no distribution", example=1.0
            )
        check_half_life(self.name, self.half_life)

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def initial_state(self) -> BetaState:
        """Return a state without arms: every item has the prior until its first reward."""
        return BetaState()

    def contest(
        self, state: BetaState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request."""
        successes, failures = state.at(state.rows(batch.id_list))
        alpha, beta = successes + self.prior_alpha, failures + self.prior_beta
        posterior = _BetaPosterior(alpha, beta, self.draws, seed=int(rng.integers(2**63)))
        return ThompsonContest(posterior, rng, eligible, self.pool, self.floor)

    def learn(self, state: BetaState, rewards: RewardBatch) -> BetaState:
        """Return the state with each reward added to its item's sums.

        Raises `InvalidBatch` for a reward outside [0, 1], for offsets, and for ids of another type than
        the state's.
        """
        values = unit_rewards(self.name, rewards)
        weights, kept = aged_weights(rewards, self.half_life)
        return state.plus(
            self.name,
            rewards.item_ids,
            kept=kept,
            successes=weights * values,
            failures=weights * (1.0 - values),
        )

    def expected(self, state: BetaState, rewards: RewardBatch) -> FloatArray:
        """Return the mean of each row's item, (m,)."""
        successes, failures = state.at(state.rows(rewards.item_ids.tolist()))
        alpha, beta = successes + self.prior_alpha, failures + self.prior_beta
        return alpha / (alpha + beta)

    def posterior(self, state: BetaState) -> tuple[FloatArray, FloatArray]:
        """Return alpha and beta of each item in `state.item_ids`, both (A,)."""
        return state.successes + self.prior_alpha, state.failures + self.prior_beta

    def pack(self, state: BetaState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the sums; the prior is an option of the policy, not part of the state."""
        return state.pack()

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> BetaState:
        """Return the state; raise `CorruptState` where the arrays are not sums of distinct items."""
        return BetaState.unpack(self.name, meta, packed)


@dataclass(frozen=True, slots=True)
class _BetaPosterior:
    alpha: FloatArray  # (n,)
    beta: FloatArray  # (n,)
    count: int
    seed: int

    def optimistic(self, rows: IndexArray) -> FloatArray:
        alpha, beta = self.alpha[rows], self.beta[rows]
        total = alpha + beta
        mean = alpha / total
        upper: FloatArray = mean + 2.0 * np.sqrt(mean * (beta / total) / (total + 1.0))
        return upper

    def draws(self, rows: IndexArray) -> FloatArray:
        return generator(self.seed).beta(self.alpha[rows], self.beta[rows], size=(self.count, len(rows)))
