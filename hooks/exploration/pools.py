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
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration.distributions import Shares
from explorank.hooks.exploration.filling import OpenSlots, Played
from explorank.hooks.exploration.order import best
from explorank.hooks.exploration.randomness import drawn_tie_seed
from explorank.hooks.types import BoolArray, FloatArray, IndexArray


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


class PoolContest(ABC, Generic[O]):
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
        self._ties = drawn_tie_seed(rng)
        self._pool = pool
        self._floor = floor
        self._offsets = offsets
        self._expected = eligible.copy()
        self._played = self._play(eligible)

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return the probability of each candidate, (n,) float64, 0 outside the pool."""
        return self.drawable(eligible).dense(len(eligible))

    def drawable(self, eligible: BoolArray) -> Shares:
        """Return the distribution over the members of the pool alone."""
        played = self._played
        shares = played.shares(eligible, self._expected)
        if shares is None:
            played = self._play(eligible)
            shares = played.shares(eligible, eligible)
            assert shares is not None  # noqa: S101 - the pool was formed of them
        return Shares(played.members, shares)

    def fill(self, slots: OpenSlots, start: int, uniforms: FloatArray) -> int:
        """Fill slots from `start` on, as far as the pool does for them."""
        return slots.fill(start, self._played, self._expected, uniforms)

    @abstractmethod
    def _play(self, eligible: BoolArray) -> Played:
        """Form the pool of those `eligible` (n,), and play."""

    def _pooled(self, eligible: BoolArray) -> IndexArray:
        """Return who is in the pool, (p,), by row."""
        rows = eligible.nonzero()[0]
        if len(rows) <= self._pool:
            return rows
        optimistic = self._posterior.optimistic(rows)
        if self._offsets is not None:
            optimistic = optimistic + self._offsets[rows]
        precision = np.float32 if optimistic.dtype == np.float32 else np.float64
        optimistic = np.ascontiguousarray(optimistic, precision)
        chosen: IndexArray = rows[best(optimistic, rows, self._pool, self._ties)]
        return chosen

    def _with_offsets(self, values: FloatArray, members: IndexArray) -> FloatArray:
        return values if self._offsets is None else values + self._offsets[members]


class IndexContest(PoolContest[Index]):
    """The `Contest` of index policies: the highest index of the pool wins, and the floor is shared by all of it.

    p(i) = (1 - floor) · [i is highest] / #{highest} + floor / #{eligible pool}
    """

    def _play(self, eligible: BoolArray) -> Played:
        few = np.count_nonzero(eligible) <= self._posterior.exact_at_once
        members = eligible.nonzero()[0] if few else self._pooled(eligible)
        values = self._with_offsets(self._posterior.values(members), members)
        # In an order of their own, so that a pool formed of its members alone draws the same.
        order = best(values, members, self._pool, self._ties)
        return Played.of(members[order], values[order][None], self._floor, ties_share=True)


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
