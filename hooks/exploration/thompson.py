"""Thompson sampling with propensities that are exact: draw the item from the draws' own winning shares.

Plain Thompson sampling shows the winner of one posterior draw. The probability of that choice has no closed
form in general, and an estimate of it, logged beside the choice, biases importance weighting. Here the
randomness is split in two. M draws from the posterior are realised by the request's seed, and

    p̂(i) = (1 - floor) · #{draws that i wins among the eligible pool} / M + floor / #{eligible pool}

is a fixed distribution given them. The item is drawn *from* p̂, so p̂ is the true probability of what
happened, given the seed's draws. Over all seeds the mean of p̂ is Thompson's own probability plus the floor.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration.sampling import top
from explorank.hooks.types import BoolArray, FloatArray, IndexArray


class Posterior(Protocol):
    """What a request needs of a posterior: optimistic values to form a pool, and draws to play in it."""

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        """Return mean + 2 standard deviations of each of `rows`, (len(rows),); rounding may be rough."""

    def draws(self, rows: IndexArray) -> FloatArray:
        """Return M joint draws for `rows`, (M, len(rows)); a pure function, equal rows equal draws."""


class ThompsonContest:
    """The `Contest` of every Thompson policy: one pool and one set of draws for all slots.

    An index policy plays in it with a single draw, its index.

    The pool is the best `pool` candidates by mean + 2 sd among those eligible at the first explored slot.
    Should guards let in newcomers at a later slot, or leave nobody of the pool, that slot's pool is formed
    anew from its eligible candidates.

    The floor gives every eligible member a probability above 0, so that the support of a slot *is* its
    eligible pool. A contest among the logged support alone, with the same seed, therefore has the same pool,
    the same draws and the same distribution, which makes a decision replayable from its record. (A pool
    formed anew always holds someone from outside the first: it either holds all that are eligible, or it is
    as large as the first, of which somebody has been placed by then.)
    """

    def __init__(
        self, posterior: Posterior, keys: FloatArray, eligible: BoolArray, pool: int, floor: float
    ) -> None:
        self._posterior = posterior
        self._keys = keys
        self._pool = pool
        self._floor = floor
        self._expected = eligible.copy()
        self._members, self._values = self._play(eligible)

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return p̂ over the eligible members of the pool, (n,) float64."""
        members, values = self._members, self._values
        present = eligible[members]
        here = int(np.count_nonzero(present))
        if here == 0 or np.count_nonzero(eligible > self._expected):
            members, values = self._play(eligible)
            present, here = eligible[members], len(members)
        elif here < len(members):
            # Cheaper than to take the columns that are left; who is gone wins no draw.
            values = values.copy()
            values[:, ~present] = -np.inf
        wins = np.bincount(values.argmax(axis=1), minlength=len(members))
        distribution = np.zeros(len(eligible))
        distribution[members] = (1.0 - self._floor) / len(values) * wins + present * (self._floor / here)
        return distribution

    def _play(self, eligible: BoolArray) -> tuple[IndexArray, FloatArray]:
        rows = np.flatnonzero(eligible)
        if len(rows) > self._pool:
            rows = rows[top(self._posterior.optimistic(rows), self._keys[rows], self._pool)]
        # Equal draws (twins, unseen arms whose draws underflow) go to the first column: the seed decides
        # which that is, not the order in which candidates were retrieved.
        members = rows[np.argsort(self._keys[rows], kind="stable")]
        return members, self._posterior.draws(members)


def check_options(name: str, floor: float, pool: int, draws: int) -> None:
    """Raise `InvalidPolicy` for options that no Thompson policy can work with."""
    check_pool(name, floor, pool)
    if draws < 1:
        raise InvalidPolicy(
            f"`draws` of {name} is {draws!r}; at least 1 posterior draw decides. Try 256: fewer make "
            "propensities coarser, never wrong."
        )


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
