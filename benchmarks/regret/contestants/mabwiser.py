"""MABWiser: context-free arms, and one ridge regression per arm. It has no model that candidates share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from mabwiser.mab import MAB, LearningPolicy

from benchmarks.regret.play import Bandit, Entry, Seen
from benchmarks.regret.worker import Entries


class Player:
    """A `MAB`, which wants to be fitted before it predicts: until the first rewards, chance chooses.

    `trials` goes round the arms until each has a reward. UCB1 expects 0 of an arm without rewards and would never
    try it.
    """

    def __init__(self, policy: Any, seen: Seen, seed: int, *, trials: bool) -> None:
        self._mab = MAB(list(range(seen.arms)), policy, seed=seed)
        self._seen = seen
        self._contextual = seen.kind == "disjoint"
        self._rng = np.random.default_rng(seed)
        self._untried: list[int] = self._rng.permutation(seen.arms).tolist() if trials else []
        self._fitted = False

    def choose(self, time: int) -> int:
        """Return what `predict` does."""
        if self._untried:
            return self._untried[time % len(self._untried)]
        if not self._fitted:
            return int(self._rng.integers(self._seen.arms))
        if self._contextual:
            return int(self._mab.predict(self._seen.features[time : time + 1]))
        return int(self._mab.predict())

    def learn(self, times: Sequence[int], positions: Sequence[int], rewards: Sequence[float]) -> None:
        """Call `fit` once, then `partial_fit`."""
        fit = self._mab.partial_fit if self._fitted else self._mab.fit
        self._fitted = True
        self._untried = [arm for arm in self._untried if arm not in positions]
        contexts = self._seen.features[np.array(times)] if self._contextual else None
        fit(np.array(positions), np.array(rewards), contexts)


def player(make: Callable[[], Any], *, trials: bool = False) -> Entry:
    """Return the entry of a learning policy."""

    def entry(seen: Seen, seed: int) -> Bandit:
        return Player(make(), seen, seed, trials=trials)

    return entry


ENTRIES: Final[Entries] = {
    "arms": {
        "ThompsonSampling": {"as it comes": player(LearningPolicy.ThompsonSampling)},
        "UCB1": {
            "as it comes": player(LearningPolicy.UCB1, trials=True),
            "alpha 0.25": player(lambda: LearningPolicy.UCB1(alpha=0.25), trials=True),
        },
    },
    "disjoint": {
        "LinTS": {
            "as it comes": player(LearningPolicy.LinTS),
            "alpha 0.5": player(lambda: LearningPolicy.LinTS(alpha=0.5)),
            "alpha 0.25": player(lambda: LearningPolicy.LinTS(alpha=0.25)),
        },
        "LinUCB": {
            "as it comes": player(LearningPolicy.LinUCB),
            "alpha 0.5": player(lambda: LearningPolicy.LinUCB(alpha=0.5)),
            "alpha 0.25": player(lambda: LearningPolicy.LinUCB(alpha=0.25)),
        },
    },
}
# None of its policies forgets.
FORGETFUL: Final[Entries] = {}
