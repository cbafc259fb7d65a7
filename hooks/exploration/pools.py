"""Pools: the few candidates among which a policy with a model of the reward chooses.

A slot's distribution over a pool costs nothing for the candidates outside it, who have probability 0. The pool
is the best `pool` candidates by an optimistic value among those eligible at the first explored slot. Should
guards let in newcomers at a later slot, or leave nobody of the pool, that slot's pool is formed anew from its
eligible candidates.

The floor gives every eligible member a probability above 0, so that the support of a slot *is* its eligible
pool. A contest among the logged support alone, with the same seed, therefore has the same pool, the same draws
and the same distribution, which makes a decision replayable from its record. (A pool formed anew always holds
someone from outside the first: it either holds all that are eligible, or it is as large as the first, of which
somebody has been placed by then.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration.sampling import SlotDistribution, TieKeys, step_of, top
from explorank.hooks.types import BoolArray, FloatArray, IndexArray


class PoolDistribution(SlotDistribution, Protocol):
    """A distribution over the members of a pool."""

    def dense(self, n: int) -> FloatArray:
        """Return one probability per candidate, (n,) float64."""


class Optimist(Protocol):
    """What a pool is formed by."""

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        """Return how good each of `rows` could be, (len(rows),); rounding may be rough."""


class Index(Optimist, Protocol):
    """What an index policy knows of the candidates."""

    @property
    def exact_at_once(self) -> int:
        """Up to how many candidates `values` of all costs less than `optimistic` of all and then of a pool."""

    def values(self, rows: IndexArray) -> FloatArray:
        """Return the index of each of `rows`, (len(rows),); a pure function of the row."""


O = TypeVar("O", bound=Optimist)  # noqa: E741 - an optimist
P = TypeVar("P")


class PoolContest(ABC, Generic[O, P]):
    """One pool for all slots of a request, and what is played in it."""

    def __init__(
        self,
        posterior: O,
        rng: np.random.Generator,
        eligible: BoolArray,
        pool: int,
        floor: float,
        offsets: FloatArray | None = None,
    ) -> None:
        """Form the pool and play; `offsets` (n,), where given, are added to what the posterior says."""
        self._posterior = posterior
        self._keys = TieKeys.drawn(rng)
        self._pool = pool
        self._floor = floor
        self._offsets = offsets
        self._expected = eligible.copy()
        self._played = self._play(eligible)

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return the probability of each candidate, (n,) float64, 0 outside the pool."""
        return self.drawable(eligible).dense(len(eligible))

    def drawable(self, eligible: BoolArray) -> PoolDistribution:
        """Return the distribution over the members of the pool alone."""
        played = self._played
        present = eligible.take(self._rows(played))
        here = int(np.count_nonzero(present))
        if here == 0 or np.count_nonzero(eligible > self._expected):
            played = self._play(eligible)
            here = len(self._rows(played))
            present = np.ones(here, np.bool_)
        return self._drawable(played, present, here)

    @abstractmethod
    def _play(self, eligible: BoolArray) -> P:
        """Form the pool of those `eligible` (n,), and return what it plays with."""

    @abstractmethod
    def _rows(self, played: P) -> IndexArray:
        """Return the members of the pool, (p,)."""

    @abstractmethod
    def _drawable(self, played: P, present: BoolArray, here: int) -> PoolDistribution:
        """Return the distribution over those members that are `present` (p,); they are `here` many."""

    def _pooled(self, eligible: BoolArray) -> IndexArray:
        """Return who is in the pool, (p,), by row."""
        rows = eligible.nonzero()[0]
        if len(rows) <= self._pool:
            return rows
        optimistic = self._posterior.optimistic(rows)
        if self._offsets is not None:
            optimistic = optimistic + self._offsets[rows]
        chosen: IndexArray = rows[top(optimistic, self._keys, self._pool, rows)]
        return chosen

    def _with_offsets(self, values: FloatArray, members: IndexArray) -> FloatArray:
        return values if self._offsets is None else values + self._offsets[members]


@dataclass(frozen=True, slots=True)
class _Ranking:
    """A pool in the order of its index, falling."""

    members: IndexArray  # (p,)
    values: FloatArray  # (p,)


class IndexContest(PoolContest[Index, _Ranking]):
    """The `Contest` of index policies: the highest index of the pool wins, and the floor is shared by all of it.

    p(i) = (1 - floor) · [i is highest] / #{highest} + floor / #{eligible pool}
    """

    def _play(self, eligible: BoolArray) -> _Ranking:
        few = np.count_nonzero(eligible) <= self._posterior.exact_at_once
        members = eligible.nonzero()[0] if few else self._pooled(eligible)
        values = self._with_offsets(self._posterior.values(members), members)
        if len(members) > self._pool:
            chosen = top(values, self._keys, self._pool, members)
            members, values = members[chosen], values[chosen]
        order = (-values).argsort(kind="stable")
        return _Ranking(members[order], values[order])

    def _rows(self, played: _Ranking) -> IndexArray:
        return played.members

    def _drawable(self, played: _Ranking, present: BoolArray, here: int) -> _Champions:
        values, first = played.values, int(present.argmax())
        winners = [first]
        if first + 1 < len(values) and values[first + 1] == values[first]:
            winners = (present & (values == values[first])).nonzero()[0].tolist()
        return _Champions(played.members, present, winners, here, self._floor)


class _Champions:
    """The winners of a pool share 1 - floor evenly, all of the pool that is present share the floor."""

    __slots__ = ("_floor", "_here", "_members", "_present", "_winners")

    def __init__(
        self, members: IndexArray, present: BoolArray, winners: list[int], here: int, floor: float
    ) -> None:
        """Take the `members` (p,), who of them is `present`, and the positions of the `winners`."""
        self._members = members
        self._present = present
        self._winners = winners
        self._here = here
        self._floor = floor

    def draw(self, uniform: float) -> int:
        """Return the row that `uniform` in [0, 1) picks: the winners first, then all of the pool."""
        best = 1.0 - self._floor
        if uniform < best:
            at = self._winners[step_of(uniform / best, len(self._winners))]
        else:
            at = int(self._present.nonzero()[0][step_of((uniform - best) / self._floor, self._here)])
        return int(self._members[at])

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""
        at = int((self._members == row).argmax())
        if self._members[at] != row or not self._present[at]:
            return 0.0
        share = (1.0 - self._floor) / len(self._winners) if at in self._winners else 0.0
        return share + self._floor / self._here

    def mark(self, support: BoolArray) -> None:
        """Set True in `support` (n,) for who is present."""
        support[self._members[self._present]] = True

    def dense(self, n: int) -> FloatArray:
        """Return one probability per candidate, (n,) float64."""
        probabilities = np.zeros(n)
        probabilities[self._members] = self._present * (self._floor / self._here)
        probabilities[self._members[self._winners]] += (1.0 - self._floor) / len(self._winners)
        return probabilities


def check_pool(name: str, floor: float, pool: int) -> None:
    """Raise `InvalidPolicy` for a floor and a pool that no contest can work with."""
    if not 0.0 < floor <= 1.0:
        raise InvalidPolicy(
            f"`floor` of {name} is {floor!r}; it must be above 0 and at most 1. At 0 an item of the pool "
            "that never wins could not have been shown: its importance weight has no bound, and the log does "
            "not tell the pool. Choose a small floor, such as 0.001, to stay close to the plain policy."
        )
    if pool < 1:
        raise InvalidPolicy(f"`pool` of {name} is {pool!r}; at least 1 candidate must be in it. Try 50.")
