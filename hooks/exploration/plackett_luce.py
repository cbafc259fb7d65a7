"""Plackett-Luce: a whole slate as a random ranking by score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from explorank.hooks.exploration.exponential import ExponentialWeights
from explorank.hooks.exploration.options import check_temperature
from explorank.hooks.exploration.stateless import StatelessPolicy
from explorank.hooks.types import FloatArray


@dataclass(frozen=True)
class PlackettLuce(StatelessPolicy):
    """Rank all candidates at random, better scores likelier first, and show the head of the ranking.

        P(i_1, …, i_k) = Π_s exp(s_{i_s} / temperature) / Σ_j exp(s_j / temperature)

    with the sum over the candidates that slot s could still hold. It is the distribution of the first k of
    s_i / temperature + Gumbel noise, sorted, wherever all slots explore and guards don't depend on the slate.
    Where they do, or where some slots hold the best score, it is the formula that is drawn, slot by slot; no
    ranking is made and then repaired.

    Propensity: in closed form; of a slot, conditional on the slate above it, and of the slate, by
    `slate_log_propensity`. Importance weights have no bound. A slot's share below 1e-150 counts as 0.

    When: whole slates are to be evaluated or learnt from, because losses and estimators for ranking assume
    this model. When not: weights must be bounded. `Softmax` without a floor is this very process, named for
    its slots; take `Softmax` with a floor, then.

    Source: Luce, *Individual Choice Behavior* (1959); Plackett, *The Analysis of Permutations* (1975); for
    the noise, Yellott (1977). It departs from them in that only the head of the ranking is drawn.
    """

    name: ClassVar[str] = "plackett_luce"

    temperature: float = 1.0
    """In the unit of the scores: of two items, one lower by this much comes first 1 time in 3.7. Above 0."""

    def __post_init__(self) -> None:
        """Check the temperature."""
        check_temperature(self.name, self.temperature)

    def closed_form(self, scores: FloatArray) -> ExponentialWeights:
        """Return the softmax of `scores`, one factor of the product for each slot."""
        return ExponentialWeights(scores, self.temperature, uniform=0.0)
