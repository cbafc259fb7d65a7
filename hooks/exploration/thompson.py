"""Thompson sampling with propensities that are exact: draw the item from the draws' own winning shares.

Plain Thompson sampling shows the winner of one posterior draw. The probability of that choice has no closed
form in general, and an estimate of it, logged beside the choice, biases importance weighting. Here the
randomness is split in two. M draws from the posterior are realised by the request's seed, and

    p̂(i) = (1 - floor) · #{draws that i wins among the eligible pool} / M + floor / #{eligible pool}

is a fixed distribution given them. The item is drawn *from* p̂, so p̂ is the true probability of what
happened, given the seed's draws. Over all seeds the mean of p̂ is Thompson's own probability plus the floor.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration.filling import Played
from explorank.hooks.exploration.order import in_key_order
from explorank.hooks.exploration.pools import Optimist, PoolContest, check_pool
from explorank.hooks.exploration.randomness import generator
from explorank.hooks.types import BoolArray, FloatArray, IndexArray


class Posterior(Optimist, Protocol):
    """What a request needs of a posterior: optimistic values to form a pool, and draws to play in it."""

    def draws(self, rows: IndexArray) -> FloatArray:
        """Return M joint draws for `rows`, (M, len(rows)); a pure function, equal rows equal draws."""


class ThompsonContest(PoolContest[Posterior]):
    """The `Contest` of every Thompson policy: one pool and one set of draws for all slots."""

    def _play(self, eligible: BoolArray) -> Played:
        # Equal draws (twins, unseen arms whose draws underflow) go to the first column: the seed decides
        # which that is, not the order in which candidates were retrieved.
        members = in_key_order(self._pooled(eligible), self._ties)
        values = self._with_offsets(self._posterior.draws(members), members)
        return Played.of(members, values, self._floor, ties_share=False)


def mirrored(count: int, copies: int) -> int:
    """Return how many normal draws make `count` with `copies` of each; of the last some may be left over."""
    return -(-count // copies)


def paired(mean: FloatArray, spread: FloatArray, count: int) -> FloatArray:
    """Return `count` draws, (count, p): the `mean` (p,) plus each of `spread` (pairs, p), then minus.

    A normal draw and its mirror image have the same law, so that the shares of both are Thompson's on
    average over the seeds, at half the cost of drawing. What the one overrates the other underrates.
    """
    draws = np.empty((count, len(mean)))
    pairs = len(spread)
    np.add(mean, spread, out=draws[:pairs])
    np.subtract(mean, spread[: count - pairs], out=draws[pairs:])
    return draws


def normal_draws(mean: FloatArray, deviation: FloatArray, count: int, seed: int) -> FloatArray:
    """Return `count` independent normal draws for each candidate, in antithetic pairs, (count, p)."""
    spread = generator(seed).standard_normal((mirrored(count, 2), len(mean)))
    spread *= deviation
    return paired(mean, spread, count)


def check_options(name: str, floor: float, pool: int, draws: int) -> None:
    """Raise `InvalidPolicy` for options that no Thompson policy can work with."""
    check_pool(name, floor, pool)
    if draws < 1:
        raise InvalidPolicy(
            f"`draws` of {name} is {draws!r}; at least 1 posterior draw decides. Try 256: fewer make "
            "propensities coarser, never wrong."
        )
