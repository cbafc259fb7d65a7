"""SquareCB: inverse gap weighting over predicted rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from explorank.hooks.exploration.options import check_positive, check_share
from explorank.hooks.exploration.stateless import StatelessPolicy
from explorank.hooks.types import BoolArray, FloatArray

# A gap may be anything finite; beyond this it would round a probability to 0 and an item out of the support.
_WIDEST: Final = 1e300


@dataclass(frozen=True)
class SquareCB(StatelessPolicy):
    """Show the best prediction, and any other the less often, the further it falls short.

        q(i) = 1 / (K + gamma · (s_best - s_i))    for the others,    q(best) = 1 - Σ_others q(i)
        p(i) = (1 - floor) · q(i) + floor / K      with K = #{eligible}

    Scores must be predicted rewards: a click rate, not the margin of a ranking loss.

    Propensity: in closed form, conditional on the slate above the slot; an importance weight is at most
    K + gamma · (largest gap), and at most K / floor where there is a floor.

    When: a calibrated model of the reward ranks, and exploration should shrink where it sees clear
    differences, with a bound on regret for any model class. When not: scores are on no reward's scale; or
    there are so many candidates that K, not the gaps, decides: with 1,000 of them, a tenth worse each, and a
    gamma of 10,000, nearly half of the slot goes to the others.

    Source: Abe and Long, *Associative Reinforcement Learning Using Linear Probabilistic Concepts* (1999);
    Foster and Rakhlin, *Beyond UCB: Optimal and Efficient Contextual Bandits with Regression Oracles*
    (2020). It departs from them in that the ranker stands for the regression oracle, so `learn` changes
    nothing, that gamma is fixed, that predictions which tie for the best share its probability, that slots
    are drawn one by one without replacement, and that a floor may be mixed in.
    """

    name: ClassVar[str] = "square_cb"

    gamma: float
    """How strongly a gap counts, in 1 / reward: at a gap of K / gamma an item has half an even share.

    Larger explores less. Theory lets it grow with the square root of K · (rewards so far)."""
    floor: float = 0.0
    """The share of an explored slot that is spread evenly over the eligible, from 0 to 1."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_positive(
            self.name,
            "gamma",
            self.gamma,
            otherwise="gaps count for nothing or for everything (as in `uniform` and `greedy`)",
            example=1000.0,
        )
        check_share(self.name, "floor", self.floor, example=0.01)

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def closed_form(self, scores: FloatArray) -> InverseGaps:
        """Return the inverse gap weighting of `scores`."""
        return InverseGaps(scores, self.gamma, uniform=self.floor)


@dataclass(frozen=True, slots=True)
class InverseGaps:
    """The contest: gaps are measured against the best that is eligible at the slot."""

    values: FloatArray  # (n,)
    gamma: float
    uniform: float

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return the probabilities, (n,) float64."""
        best = self.values[eligible].max()
        count = np.count_nonzero(eligible)
        with np.errstate(over="ignore"):  # what overflows is the widest gap
            # What is better than the best cannot be eligible; its gap only must not make a zero to divide by.
            gaps = np.clip(self.gamma * (best - self.values), 0.0, _WIDEST)
        distribution: FloatArray = eligible / (count + gaps)
        winners = eligible & (self.values == best)
        distribution[winners] = 0.0
        distribution[winners] = (1.0 - distribution.sum()) / np.count_nonzero(winners)
        if self.uniform:
            distribution *= 1.0 - self.uniform
            distribution += eligible * (self.uniform / count)
        return distribution
