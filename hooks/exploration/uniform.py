"""Uniform: every eligible candidate alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from explorank.hooks.exploration.stateless import StatelessPolicy


@dataclass(frozen=True)
class Uniform(StatelessPolicy):
    """Show any eligible candidate with the same probability: p(i) = 1 / #{eligible}.

    Propensity: in closed form, conditional on the slate above the slot. A log of it supports every other
    policy, at the price of showing bad items as often as good ones: use it on a small share of traffic.

    Source: the random logging policy of Li et al., *Unbiased Offline Evaluation of Contextual-bandit-based
    News Article Recommendation Algorithms* (2011). It departs from the paper by drawing slot by slot,
    without replacement.
    """

    name: ClassVar[str] = "uniform"

    @property
    def exploration_floor(self) -> float:
        """All of the probability is spread evenly."""
        return 1.0
