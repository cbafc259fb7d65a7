"""contextualbandits: one linear model per arm, in a context. It has no model that candidates share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from contextualbandits.online import LinTS, LinUCB

from benchmarks.regret.play import Bandit, Entry, Seen
from benchmarks.regret.worker import Entries


class Player:
    """A policy, which wants to be fitted before it predicts: until the first rewards, chance chooses."""

    def __init__(self, policy: Any, seen: Seen, seed: int) -> None:
        self._policy = policy
        self._seen = seen
        self._rng = np.random.default_rng(seed)
        self._fitted = False

    def choose(self, time: int) -> int:
        """Return what `predict` does."""
        if not self._fitted:
            return int(self._rng.integers(self._seen.arms))
        return int(self._policy.predict(self._seen.features[time : time + 1])[0])

    def learn(self, times: Sequence[int], positions: Sequence[int], rewards: Sequence[float]) -> None:
        """Call `partial_fit`."""
        self._fitted = True
        self._policy.partial_fit(self._seen.features[np.array(times)], np.array(positions), np.array(rewards))


def player(policy: Callable[..., Any], **options: Any) -> Entry:
    """Return a policy's entry; the worlds' contexts have their constant already, and seeds start at 1 there."""

    def entry(seen: Seen, seed: int) -> Bandit:
        made = policy(nchoices=seen.arms, fit_intercept=False, random_state=seed + 1, **options)
        return Player(made, seen, seed)

    return entry


ENTRIES: Final[Entries] = {
    "disjoint": {
        "LinUCB": {
            "as it comes": player(LinUCB),
            "alpha 0.5": player(LinUCB, alpha=0.5),
            "alpha 0.25": player(LinUCB, alpha=0.25),
        },
        # `sm`, because the default solves each arm anew with each reward.
        "LinTS": {
            "as it comes": player(LinTS, method="sm"),
            "v_sq 0.25": player(LinTS, method="sm", v_sq=0.25),
            "v_sq 0.0625": player(LinTS, method="sm", v_sq=0.0625),
        },
    },
}
# None of these policies forgets.
FORGETFUL: Final[Entries] = {}
