"""Greedy: the best score, always."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from explorank.hooks.exploration.stateless import StatelessPolicy


@dataclass(frozen=True)
class Greedy(StatelessPolicy):
    """Show the best score: p(i) = [i is best] / #{best}.

    Propensity: 1, or an even share among candidates whose scores are equal to the last bit. A log of it
    supports only policies that agree with it; it is the baseline, not a way to learn.

    Source: the greedy action of Sutton and Barto, *Reinforcement Learning*, 2nd ed., section 2.2. It departs
    from the book in that the ranker's score stands for the running mean of each action.
    """

    name: ClassVar[str] = "greedy"
