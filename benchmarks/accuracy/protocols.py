"""How interactions are parted in training and test. Every interaction is positive; the whole catalogue is ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.retrieval.collaborative import Interactions


@dataclass(frozen=True, slots=True)
class Split:
    """One split; test has nothing that training has."""

    train: Interactions
    """Without times, where a part of them would tell of the test's."""
    test: Interactions
    now: float | None = None
    """The moment between training and test, where there is one."""

    @property
    def users(self) -> NDArray[np.int64]:
        """The users who are asked about: in training and in test, rising."""
        return np.intersect1d(self.train.users, self.test.users)


@dataclass(frozen=True, slots=True)
class Protocol:
    """A way of splitting."""

    name: str
    says: str
    split: Callable[[Interactions, int], Split]
    random: bool
    """Whether the seed draws the split; otherwise it draws only what the models begin with."""


def by_user(share: float) -> Callable[[Interactions, int], Split]:
    """Return a split that keeps a random `share` of each user's interactions for training."""

    def split(interactions: Interactions, seed: int) -> Split:
        generator = np.random.default_rng(seed)
        order = np.lexsort((generator.random(len(interactions)), interactions.users))
        rank = _rank(interactions.users, order)
        kept = rank < np.round(share * interactions.activity[interactions.users])
        return Split(interactions.take(kept).without_times(), interactions.take(~kept).without_times())

    return split


def by_time(interactions: Interactions, seed: int) -> Split:  # noqa: ARG001 - the split is not drawn
    """Split at the moment before which 80 % of the interactions happened."""
    times = _times(interactions)
    now = float(np.sort(times)[int(0.8 * len(times))])
    return Split(interactions.take(times < now), interactions.take(times >= now), now)


def earlier(interactions: Interactions, seed: int) -> Split:
    """Split by time what `by_time` trains on, as if that were all there is: to choose by what is not judged by."""
    return by_time(by_time(interactions, seed).train, seed)


def last_out(interactions: Interactions, seed: int) -> Split:
    """Hold out each user's last interaction; among equally timed ones the seed draws. Others' later ones stay."""
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(interactions)), _times(interactions), interactions.users))
    last = _rank(interactions.users, order) == interactions.activity[interactions.users] - 1
    return Split(interactions.take(~last).without_times(), interactions.take(last).without_times())


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    one.name: one
    for one in (
        Protocol(
            "user75",
            "a random 75 % of each user's interactions, the rest is test",
            by_user(0.75),
            random=True,
        ),
        Protocol(
            "user80", "a random 80 % of each user's interactions, the rest is test", by_user(0.8), random=True
        ),
        Protocol(
            "time",
            "what happened before 80 % of all had happened; users known by then",
            by_time,
            random=False,
        ),
        Protocol(
            "time-earlier",
            "the same within the training part of `time`, to choose by what is not judged by",
            earlier,
            random=False,
        ),
        Protocol("last-out", "all but each user's last interaction", last_out, random=True),
    )
}


def _rank(users: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each interaction's place among its user's, in `order`."""
    rank = np.empty(len(users), np.int64)
    rank[order] = np.arange(len(users)) - np.searchsorted(users[order], users[order])
    return rank


def _times(interactions: Interactions) -> NDArray[np.float64]:
    times = interactions.times
    if times is None or times.min() == times.max():
        raise DataError(
            "All interactions have the same time, so no past can be told from a future. Use user75 or user80."
        )
    return times
