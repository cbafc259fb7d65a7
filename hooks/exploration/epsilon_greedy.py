"""ε-greedy over the ranker's scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from explorank.hooks.exploration.options import check_share
from explorank.hooks.exploration.stateless import StatelessPolicy


@dataclass(frozen=True)
class EpsilonGreedy(StatelessPolicy):
    """Show the best score, but with probability ε any eligible candidate.

        p(i) = (1 - ε) · [i is best] / #{best} + ε / #{eligible}

    Propensity: in closed form, conditional on the slate above the slot; an importance weight is at most
    #{eligible} / ε.

    Source: Sutton and Barto, *Reinforcement Learning*, 2nd ed., section 2.2. It departs from the book in
    that the ranker's score stands for the running mean of each action: what rewards teach enters through
    the next ranker, so `learn` changes nothing. It is drawn slot by slot, and ties share the greedy part
    evenly, so that the seed breaks them.
    """

    name: ClassVar[str] = "epsilon_greedy"

    epsilon: float = 0.1
    """The share of an explored slot given to chance, from 0 (greedy) to 1 (uniform)."""

    def __post_init__(self) -> None:
        """Check ε."""
        check_share(self.name, "epsilon", self.epsilon, example=0.1)

    @property
    def exploration_floor(self) -> float:
        """ε itself."""
        return self.epsilon
