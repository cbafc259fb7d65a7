"""What systems found in some situations over several seeds, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.summary import half_width, mean_of_seeds
from explorank.pipeline.metrics import Interval, bootstrap
from explorank.retrieval.collaborative import Interactions

Figures: TypeAlias = dict[tuple[str, str], list[NDArray[np.float64]]]
"""By situation and system, for each seed the recall of every user (u,), NaN for those not asked about."""


@dataclass(frozen=True, slots=True)
class Found:
    """One system's recall in one situation."""

    situation: str
    system: str
    recall: Interval
    by_seed: Sequence[float]
    users: int
    beyond: Mapping[str, Interval]
    """The difference to each other system of the situation."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        interval = [self.recall.low, self.recall.high]
        return {
            "situation": self.situation, "system": self.system, "recall": self.recall.mean,
            "interval_over_users": interval, "users": self.users, "by_seed": list(self.by_seed),
            "half_width_over_seeds": half_width(self.by_seed),
            "beyond": {name: [one.mean, one.low, one.high] for name, one in self.beyond.items()},
        }  # fmt: skip


def first_of(
    interactions: Interactions, users: NDArray[np.int64], count: int
) -> tuple[Interactions, Interactions]:
    """Return the first `count` interactions of each of `users`, which come in order of time, and the rest."""
    own = np.isin(interactions.users, users)
    place = np.arange(len(interactions)) - np.searchsorted(interactions.users, interactions.users)
    return interactions.take(own & (place < count)), interactions.take(own & (place >= count))


def summed(figures: Figures) -> Iterator[Found]:
    """Yield what each system found in each situation, each user's seeds averaged; intervals are over users."""
    by_user = {key: mean_of_seeds(by_seed) for key, by_seed in figures.items()}
    for (situation, system), means in by_user.items():
        yield Found(
            situation,
            system,
            bootstrap(means, seed=0),
            [float(np.nanmean(recall)) for recall in figures[situation, system]],
            int(np.isfinite(means).sum()),
            {
                name: bootstrap(means - others, seed=0)
                for (where, name), others in by_user.items()
                if where == situation and name != system
            },
        )
