"""What rewards say of liking, read the same way by the live interest, by training and by tables of the past."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Self

from explorank.hooks.types import Reward
from explorank.settings import Settings


def is_liked(total: float) -> bool:
    """Return whether an item is liked whose rewards are worth `total` together.

    What earned as much dislike as liking is not, nor is what earned nothing: it was seen.
    """
    return total > 0.0


@dataclass(frozen=True, slots=True)
class Liking:
    """What each reward is worth, and which items are liked by all that came for them."""

    weights: Mapping[str, float]
    """What one unit of each kind is worth; a kind below 0 says dislike, one that is missing or 0 says nothing."""
    rejections: Set[str] = frozenset()
    """The kinds that mean "not for me", whatever their weight: one of them outweighs all others."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return how an installation reads its rewards."""
        return cls(settings.feedback.weights, frozenset(settings.exploration.stability.rejections))

    def worth(self, reward: Reward) -> float:
        """Return what a reward adds to its item; minus infinity for a rejection."""
        if reward.kind in self.rejections:
            return -math.inf
        return reward.value * self.weights.get(reward.kind, 0.0)

    def liked(self, rewards: Iterable[Reward]) -> dict[str, float]:
        """Return the items that `rewards` add up to liking, each with the time of its latest reward above 0."""
        totals: dict[str, float] = {}
        times: dict[str, float] = {}
        for reward in rewards:
            item, worth = reward.item_id, self.worth(reward)
            totals[item] = totals.get(item, 0.0) + worth
            if worth > 0.0:
                times[item] = max(reward.time, times.get(item, reward.time))
        return {item: time for item, time in times.items() if is_liked(totals[item])}
