"""EXP3: exponential weights on importance-weighted gains, for rewards that anything may decide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration.exponential import ExponentialWeights
from explorank.hooks.exploration.item_sums import (
    ItemPolicy,
    ItemSums,
    aged_weights,
    check_half_life,
    empty_sum,
)
from explorank.hooks.exploration.options import check_positive
from explorank.hooks.exploration.policy import RewardForm
from explorank.hooks.exploration.rewards import required_column, unit_rewards
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class Exp3State(ItemSums):
    """The estimated gain of each item that was drawn: what always showing it would have earned so far."""

    gains: FloatArray = field(default_factory=empty_sum)  # (A,) Σ w · r / propensity


@dataclass(frozen=True)
class EXP3(ItemPolicy[Exp3State]):
    """Weigh each item by the exponential of its estimated gain.

        G_i = Σ w · r / p    over the rewards r in [0, 1] of item i, drawn with propensity p
        p(i) = (1 - gamma) · exp(eta · G_i) / Σ_j exp(eta · G_j) + gamma / #{eligible}

    with the sum over the eligible j. Dividing by p makes G unbiased whatever was shown how often. With a
    `half_life`, older gains count less, so that what paid long ago does not stand in the way.

    Propensity: in closed form, conditional on the slate above the slot; an importance weight is at most
    #{eligible} / gamma. Learning needs the logged propensities, of whatever policy drew the items. A reward
    with propensity 1 had no alternative: it tells items apart in nothing and is left out, so that this policy
    learns only where slots explored.

    When: rewards follow no fixed law (they react to what is shown, fashions turn), among few items that are
    all eligible most of the time. When not: rewards do have a mean, which Thompson sampling finds much
    sooner; or items come and go, because gains add up with time, and what was often eligible looks better
    than what is new.

    Source: Auer, Cesa-Bianchi, Freund and Schapire, *The Nonstochastic Multiarmed Bandit Problem* (2002).
    It departs from the paper in that the learning rate is an option of its own, where the paper ties it to
    gamma / K, as the number K of eligible items varies; that slots are drawn one by one, each a round of the
    game; and that rewards arrive late, in batches, so that the weights lag.
    """

    name: ClassVar[str] = "exp3"
    learns_from: ClassVar[frozenset[str]] = frozenset({"propensities"})
    reward_form: ClassVar[RewardForm] = "gain"

    gamma: float = 0.1
    """The share of an explored slot that is spread evenly over the eligible; above 0, at most 1."""
    eta: float = 0.01
    """The learning rate: how much one unit of gain adds to the log-weight. Above 0.

    The paper's is gamma / K. For T rounds among K items, theory asks for about sqrt(2 ln K / (T · K))."""
    half_life: float | None = None
    """After how many further rewards, of whatever item, a gain counts half; `None` never forgets."""

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0.0 < self.gamma <= 1.0:
            raise InvalidPolicy(
                f"`gamma` of {self.name} is {self.gamma!r}; it must be above 0 and at most 1. At 0 the "
                "estimated gains have no bound, and an item that fell behind never returns. Try 0.1."
            )
        check_positive(self.name, "eta", self.eta, otherwise="gains do not move weights", example=0.01)
        check_half_life(self.name, self.half_life)

    @property
    def exploration_floor(self) -> float:
        """The option `gamma`."""
        return self.gamma

    def initial_state(self) -> Exp3State:
        """Return a state without items: all weigh the same."""
        return Exp3State()

    def contest(
        self,
        state: Exp3State,
        batch: RankingBatch,
        eligible: BoolArray,  # noqa: ARG002 - no pool is formed
        rng: np.random.Generator,  # noqa: ARG002 - the distribution has a closed form
    ) -> ExponentialWeights:
        """Return the contest of one request."""
        (gains,) = state.at(state.rows(batch.id_list))
        return ExponentialWeights(gains, 1.0 / self.eta, uniform=self.gamma)

    def learn(self, state: Exp3State, rewards: RewardBatch) -> Exp3State:
        """Return the state with each reward over its propensity added to its item's gain.

        Raises `InvalidBatch` without propensities in (0, 1], for a reward outside [0, 1], for offsets, and
        for ids of another type than the state's.
        """
        values = unit_rewards(self.name, rewards)
        propensities = required_column(self.name, rewards, "propensities").astype(np.float64)
        refused = ~((propensities > 0.0) & (propensities <= 1.0))
        if refused.any():
            row = int(np.argmax(refused))
            raise InvalidBatch(
                f"The propensity of the reward for item {rewards.item_ids.tolist()[row]!r} is "
                f"{float(propensities[row])!r}; what was shown had a probability above 0 and at most 1, and "
                f"{self.name} divides by it. Pass the numbers that the slate was logged with."
            )
        drawn = propensities < 1.0
        weights, kept = aged_weights(rewards, self.half_life)
        with np.errstate(over="ignore"):  # `plus` refuses the sum
            gains = weights * values / propensities
        return state.plus(self.name, rewards.item_ids[drawn], kept=kept, gains=gains[drawn])

    def pack(self, state: Exp3State) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the gains; the learning rate is an option of the policy, not part of the state."""
        return state.pack()

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> Exp3State:
        """Return the state; raise `CorruptState` where the arrays are not sums of distinct items."""
        return Exp3State.unpack(self.name, meta, packed)
