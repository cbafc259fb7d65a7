"""What the stage lends to its plugins when it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from explorank.artefacts import Watched
from explorank.hooks.exploration import Policy
from explorank.hooks.guards import Guard
from explorank.hooks.registry import Registry
from explorank.rankers import Ranker
from explorank.retrieval import Catalogue
from explorank.reward_feed import RewardFeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Handed to `ranking_startup`; everything here is safe to read from any thread."""

    registry: Registry
    """The components by kind and name, for plugins that build some of their own from options."""
    catalogue: Watched[Catalogue]
    """The newest verified catalogue: item vectors, popularity and the index."""
    ranker: Watched[Ranker]
    """The newest verified ranker."""
    policy: Policy[Any]
    """The configured exploration policy."""
    state: Callable[[], Any]
    """Returns the newest snapshot of what the policy has learnt."""
    guards: tuple[Guard, ...]
    """The configured guards, in order."""
    on_guard_error: Callable[[str, Exception], None]
    """Tells the stage that a guard failed while a slate was built."""
    rewards_elsewhere: RewardFeed
    """The rewards that other processes of the installation took, for what a plugin holds once per process."""
    clock: Callable[[], float]
    """Now, in seconds since the Unix epoch; stands still where `features.as_of` is set."""
