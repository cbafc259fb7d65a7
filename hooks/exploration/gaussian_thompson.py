"""Thompson sampling with one normal posterior per item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration.item_sums import ItemMeans, ItemPolicy, check_half_life
from explorank.hooks.exploration.options import check_finite, check_positive
from explorank.hooks.exploration.thompson import ThompsonContest, check_options, normal_draws
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class GaussianThompson(ItemPolicy[ItemMeans]):
    """Draw each item's mean reward from its normal posterior and show the highest draw.

        r = μ_i + N(0, noise²),    μ_i ~ N(prior_mean, 1 / prior_precision)
        λ_i = prior_precision + n_i / noise²,    n_i = Σ w
        μ_i | data ~ N((prior_precision · prior_mean + Σ w r / noise²) / λ_i, 1 / λ_i)

    With a `half_life`, older rewards count less, and an item that earns none any more returns to the prior.

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    When: rewards have a scale of their own (revenue, minutes, ratings, residuals of a ranker), and items
    return often enough to be learnt one by one. When not: clicks (`BetaThompson` knows their variance), heavy
    tails (clip them first: one sale of a yacht moves a mean), or items that live shorter than it takes to
    learn them (`LinearThompson` carries over what their features tell).

    Source: Agrawal and Goyal, *Further Optimal Regret Bounds for Thompson Sampling* (2013), algorithm 2;
    Russo et al., *A Tutorial on Thompson Sampling* (2018). It departs from them in that the item is drawn
    from the winning shares of M draws instead of being the winner of one, that a floor is mixed in, that only
    a pool of contenders is drawn for, and that prior and noise are set instead of being standard normal.
    """

    name: ClassVar[str] = "gaussian_thompson"
    learns_residuals: ClassVar[bool] = True

    prior_mean: float = 0.0
    """The mean reward that an item is credited with before its first, in the reward's unit.

    At or above what good items earn, new ones are tried eagerly; low, they wait."""
    prior_precision: float = 1.0
    """1 / variance of the mean reward among items, before any reward; larger trusts `prior_mean` longer."""
    noise: float = 1.0
    """Standard deviation of a reward around its item's mean, in the reward's unit. Above 0."""
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
        check_finite(self.name, "prior_mean", self.prior_mean)
        check_half_life(self.name, self.half_life)
        for option, value in (("prior_precision", self.prior_precision), ("noise", self.noise)):
            check_positive(
                self.name, option, value, otherwise="there is no posterior to draw from", example=1.0
            )
        if not 0.0 < self._prior_weight < np.inf:
            raise InvalidPolicy(
                f"`noise` of {self.name} is {self.noise!r} with a `prior_precision` of {self.prior_precision!r}; "
                "squared and multiplied they leave the range of float64, and an unseen item has no posterior. "
                "Scale the rewards, so that both are nearer to 1."
            )

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def initial_state(self) -> ItemMeans:
        """Return a state without items: every one has the prior until its first reward."""
        return ItemMeans()

    def contest(
        self, state: ItemMeans, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request."""
        mean, deviation = self._normal(*state.at(state.rows(batch.id_list)))
        posterior = _NormalPosterior(mean, deviation, self.draws, seed=int(rng.integers(2**63)))
        return ThompsonContest(posterior, rng, eligible, self.pool, self.floor, batch.offsets)

    def posterior(self, state: ItemMeans) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of what each item in `state.item_ids` is worth, both (A,)."""
        return self._normal(state.counts, state.totals)

    def _normal(self, counts: FloatArray, totals: FloatArray) -> tuple[FloatArray, FloatArray]:
        weight = self._prior_weight + counts
        mean: FloatArray = self._prior_weight / weight * self.prior_mean + totals / weight
        deviation: FloatArray = self.noise / np.sqrt(weight)
        return mean, deviation

    @property
    def _prior_weight(self) -> float:
        """How many rewards the prior counts for."""
        return self.prior_precision * self.noise * self.noise

    def learn(self, state: ItemMeans, rewards: RewardBatch) -> ItemMeans:
        """Return the state with each reward (less its offset) added to its item's count and total.

        Raises `InvalidBatch` for ids of another type than the state's, and where a sum is no longer finite.
        """
        return state.after(self.name, rewards, self.half_life)

    def pack(self, state: ItemMeans) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the counts and totals; prior and noise are options of the policy, not part of the state."""
        return state.pack()

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> ItemMeans:
        """Return the state; raise `CorruptState` where the arrays are not sums of distinct items."""
        return ItemMeans.unpack(self.name, meta, packed)


@dataclass(frozen=True, slots=True)
class _NormalPosterior:
    mean: FloatArray  # (n,)
    deviation: FloatArray  # (n,)
    count: int
    seed: int

    def optimistic(self, rows: IndexArray) -> FloatArray:
        upper: FloatArray = self.mean[rows] + 2.0 * self.deviation[rows]
        return upper

    def draws(self, rows: IndexArray) -> FloatArray:
        return normal_draws(self.mean[rows], self.deviation[rows], self.count, self.seed)
