"""Softmax over the ranker's scores, also called Boltzmann exploration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from explorank.hooks.exploration.exponential import ExponentialWeights
from explorank.hooks.exploration.options import check_share, check_temperature
from explorank.hooks.exploration.stateless import StatelessPolicy
from explorank.hooks.types import FloatArray


@dataclass(frozen=True)
class Softmax(StatelessPolicy):
    """Show an item the more often, the better its score.

        p(i) = (1 - floor) · exp(s_i / temperature) / Σ_j exp(s_j / temperature) + floor / #{eligible}

    with the sum over the eligible j. The ratio of two items depends on the difference of their scores only.

    Propensity: in closed form, conditional on the slate above the slot; an importance weight is at most
    #{eligible} / floor, and without a floor has no bound. Without a floor a share below 1e-150 counts as 0.

    When: the ranker's scores mean something on their own scale, and near misses deserve to be shown more
    often than clear ones. When not: the scale of the scores drifts from model to model, because the
    temperature is in their unit; or ignorance is to be explored, which scores do not tell.

    Source: Sutton and Barto, *Reinforcement Learning*, 2nd ed., section 2.8. It departs from the book in
    that the ranker's scores stand for the learnt preferences, so `learn` changes nothing, and that a floor is
    mixed in. Drawn slot by slot without replacement and with no floor, it is the process of `PlackettLuce`.
    """

    name: ClassVar[str] = "softmax"

    temperature: float = 1.0
    """In the unit of the scores: a score lower by this much is shown e = 2.7 times less often. Above 0."""
    floor: float = 0.0
    """The share of an explored slot that is spread evenly over the eligible, from 0 to 1; bounds weights."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_temperature(self.name, self.temperature)
        check_share(self.name, "floor", self.floor, example=0.01)

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def closed_form(self, scores: FloatArray) -> ExponentialWeights:
        """Return the softmax of `scores`."""
        return ExponentialWeights(scores, self.temperature, uniform=self.floor)
