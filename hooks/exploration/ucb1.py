"""UCB1: the highest upper confidence bound of an item's mean reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.item_sums import ItemMeans, ItemPolicy, check_half_life
from explorank.hooks.exploration.mixture import WinnerMixture
from explorank.hooks.exploration.options import check_positive, check_share
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class UCB1(ItemPolicy[ItemMeans]):
    """Show the item whose mean reward could be the highest, within what its count leaves open.

        u_i = mean_i + alpha · sqrt(2 ln N / n_i),    N = Σ_i n_i,    u_i = +inf for an item without rewards
        p(i) = (1 - floor) · [u_i is highest] / #{highest} + floor / #{eligible}

    with n_i the rewards of item i, over the whole log. With a `half_life`, older rewards count less, in
    n_i and N as in the mean: discounted UCB (Garivier and Moulines, *On Upper-Confidence Bound
    Policies for Switching Bandit Problems*, 2011).

    Propensity: in closed form, conditional on the slate above the slot; an importance weight is at most
    #{eligible} / floor. The choice itself is deterministic: nearly all of its randomness is the floor's, so
    that a log of it says little of items it does not show.

    When: few items, many rewards, a bound on regret without any prior. When not: items come and go faster
    than each can be tried once, because every one without a reward comes first; rewards are late, because the
    same items are shown until they arrive; or the log is to evaluate other policies. Thompson sampling serves
    better there.

    Source: Auer, Cesa-Bianchi and Fischer, *Finite-time Analysis of the Multiarmed Bandit Problem* (2002).
    It departs from the paper in that a floor is mixed in, that equal indices share the first place, that N
    counts the rewards of all items, eligible here or not, that a reward may count in part (weights,
    examination), that slots are drawn one by one, and that the width may be scaled by alpha.
    """

    name: ClassVar[str] = "ucb1"

    alpha: float = 1.0
    """Scales the width, in the unit of the reward; 1 is the paper's, for rewards in [0, 1]. Above 0.

    Smaller trusts the means sooner; rewards of another range need about that range."""
    floor: float = 0.01
    """The share of an explored slot that is spread evenly over the eligible, from 0 to 1.

    At 0 the log supports only policies that agree."""
    half_life: float | None = None
    """After how many further rewards, of whatever item, one counts half; `None` never forgets."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_positive(
            self.name, "alpha", self.alpha, otherwise="items with bad luck are never retried", example=1.0
        )
        check_share(self.name, "floor", self.floor, example=0.01)
        check_half_life(self.name, self.half_life)

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def initial_state(self) -> ItemMeans:
        """Return a state without items: all are unseen."""
        return ItemMeans()

    def contest(
        self,
        state: ItemMeans,
        batch: RankingBatch,
        eligible: BoolArray,  # noqa: ARG002 - no pool is formed
        rng: np.random.Generator,  # noqa: ARG002 - the distribution has a closed form
    ) -> WinnerMixture:
        """Return the contest of one request."""
        return WinnerMixture(self.indices(state, batch.id_list), uniform=self.floor)

    def indices(self, state: ItemMeans, item_ids: Sequence[Any]) -> FloatArray:
        """Return the upper confidence bound of each item, (len(item_ids),), +inf for an unseen one."""
        counts, totals = state.at(state.rows(item_ids))
        indices = np.full(len(item_ids), np.inf)
        seen = counts > 0.0
        # Weights may leave less than one reward in all, whose logarithm is no width.
        evidence = 2.0 * np.log(max(state.counts.sum(), 1.0))
        with np.errstate(over="ignore"):  # a count next to 0 is an unseen item
            width = self.alpha * np.sqrt(evidence / counts[seen])
            indices[seen] = totals[seen] / counts[seen] + width
        return indices

    def learn(self, state: ItemMeans, rewards: RewardBatch) -> ItemMeans:
        """Return the state with each reward (less its offset) added to its item's count and total.

        Raises `InvalidBatch` for ids of another type than the state's, and where a sum is no longer finite.
        """
        return state.after(self.name, rewards, self.half_life)

    def pack(self, state: ItemMeans) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the counts and totals."""
        return state.pack()

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> ItemMeans:
        """Return the state; raise `CorruptState` where the arrays are not sums of distinct items."""
        return ItemMeans.unpack(self.name, meta, packed)
