"""Slots filled in one go: what a slate is where nothing but the contest and the scores has a say.

`SlotProcess` goes slot by slot, because a guard may want to see the slate so far. Where none does, and the
contest is won by draws over a list of members, the same steps run here as one compiled loop. Both share the
functions that make a slot's distribution and draw from it, so that they agree to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorank.hooks.exploration.compiled import (
    FLAG,
    FLOAT,
    INTEGER,
    MASK,
    MATRIX,
    ROWS,
    VECTOR,
    WRITTEN_MASK,
    WRITTEN_MASKS,
    WRITTEN_ROWS,
    WRITTEN_VECTOR,
    inlined,
    kernel,
)
from explorank.hooks.exploration.distributions import drawn_row, mark, share_of, total
from explorank.hooks.exploration.order import first_free
from explorank.hooks.types import BoolArray, FloatArray, IndexArray


@dataclass(frozen=True, slots=True)
class Played:
    """What each of some draws says of the members of a pool, and whom it lets win when all are present.

    Each draw gives its share of 1 - floor to its winner among the members that are eligible, and all eligible
    members share the floor:

        p(i) = (1 - floor) · #{draws that i wins} / #{draws} + floor / #{eligible members}

    Where several members are the highest of a draw, the first of them wins it or, if `ties_share`, all do.
    """

    members: IndexArray  # (p,)
    values: FloatArray  # (M, p)
    winners: IndexArray  # (M,)
    floor: float
    ties_share: bool

    @classmethod
    def of(cls, members: IndexArray, values: FloatArray, floor: float, *, ties_share: bool) -> Played:
        """Return the draws with their winners."""
        values = np.ascontiguousarray(values, np.float64)
        return cls(members, values, _winners(values), floor, ties_share)

    def shares(self, eligible: BoolArray, expected: BoolArray) -> FloatArray | None:
        """Return the probability of each member, (p,), 0 for who is not `eligible` (n,).

        `None` where the members do not do for those eligible: none is, or someone is who was not `expected` (n,).
        """
        shares = np.empty(len(self.members))
        known = _share_out(
            self.members, self.values, self.winners, self.floor, self.ties_share, eligible, expected, shares
        )
        return shares if known else None


@dataclass(slots=True)
class OpenSlots:
    """The slots of a slate that is being filled, k of them, for n candidates."""

    explored: BoolArray  # (k,)
    free: BoolArray  # (n,) who may and does not stand anywhere yet; changes with each slot
    order: IndexArray  # (k,) what was written so far
    propensities: FloatArray  # (k,)
    support: BoolArray  # (k, n)
    drawn: BoolArray  # (k,) whether the slot's item was drawn
    explorable: BoolArray  # (n,) who may stand in an explored slot
    ranking: IndexArray  # the k best by score of all who may stand anywhere, or all of them; none: not known

    @classmethod
    def of(cls, possible: BoolArray, explored: list[bool]) -> OpenSlots:
        """Return slots for those `possible` (n,), all of them explorable, of whom nobody stands anywhere yet."""
        slots = len(explored)
        return cls(
            np.array(explored, np.bool_),
            possible.copy(),
            np.zeros(slots, np.int64),
            np.ones(slots),
            np.zeros((slots, len(possible)), np.bool_),
            np.zeros(slots, np.bool_),
            possible,
            np.zeros(0, np.int64),
        )

    def fill(self, start: int, played: Played, expected: BoolArray, uniforms: FloatArray) -> int:
        """Fill from slot `start` on; return which is the first that could not be filled, or k.

        It cannot where the members do not do for it, or nobody is free. `uniforms` has a number for each explored slot
        from `start` on; of those not needed, the first serve the slots after.
        """
        return _fill(
            start,
            played.members,
            played.values,
            played.winners,
            played.floor,
            played.ties_share,
            expected,
            uniforms,
            self.explored,
            self.explorable,
            self.ranking,
            self.free,
            self.order,
            self.propensities,
            self.support,
            self.drawn,
        )


@kernel((MATRIX,))
def _winners(values: FloatArray) -> IndexArray:
    """Return the position of the highest of each draw's `values` (M, p), the first of those that tie, (M,)."""
    winners = np.zeros(len(values), np.int64)
    for draw in range(len(values)):
        row = values[draw]
        for position in range(1, len(row)):
            if row[position] > row[winners[draw]]:
                winners[draw] = position
    return winners


@kernel((ROWS, MATRIX, ROWS, FLOAT, FLAG, MASK, MASK, WRITTEN_VECTOR))
def _share_out(
    members: IndexArray,
    values: FloatArray,
    winners: IndexArray,
    floor: float,
    ties_share: bool,  # noqa: FBT001 - compiled code takes its arguments by position
    eligible: BoolArray,
    expected: BoolArray,
    shares: FloatArray,
) -> bool:
    """Write each member's probability into `shares` (p,), or return False; see `Played.shares`."""
    newcomers, here = 0, 0
    for row in range(len(eligible)):
        newcomers += eligible[row] and not expected[row]
    for member in members:
        here += eligible[member]
    if newcomers or not here:
        return False
    shares[:] = 0.0
    for draw in range(len(winners)):
        winner = winners[draw]
        # Only where the winner of a draw is gone is there another; who is gone wins no draw.
        if not eligible[members[winner]]:
            winner = _first_of_those_left(members, values[draw], eligible)
        if ties_share:
            _share_between_equals(members, values[draw], eligible, values[draw, winner], shares)
        else:
            shares[winner] += 1.0
    share = (1.0 - floor) / len(winners)
    for position in range(len(members)):
        shares[position] *= share
        if eligible[members[position]]:
            shares[position] += floor / here
    return True


@inlined
def _first_of_those_left(members: IndexArray, values: FloatArray, eligible: BoolArray) -> int:
    first = -1
    for position in range(len(members)):
        if eligible[members[position]] and (first < 0 or values[position] > values[first]):
            first = position
    return first


@inlined
def _share_between_equals(
    members: IndexArray, values: FloatArray, eligible: BoolArray, highest: float, shares: FloatArray
) -> None:
    equals = 0
    for position in range(len(members)):
        equals += eligible[members[position]] and values[position] == highest
    for position in range(len(members)):
        if eligible[members[position]] and values[position] == highest:
            shares[position] += 1.0 / equals


@kernel(
    (
        INTEGER,
        ROWS,
        MATRIX,
        ROWS,
        FLOAT,
        FLAG,
        MASK,
        VECTOR,
        MASK,
        MASK,
        ROWS,
        WRITTEN_MASK,
        WRITTEN_ROWS,
        WRITTEN_VECTOR,
        WRITTEN_MASKS,
        WRITTEN_MASK,
    )
)
def _fill(
    start: int,
    members: IndexArray,
    values: FloatArray,
    winners: IndexArray,
    floor: float,
    ties_share: bool,  # noqa: FBT001 - compiled code takes its arguments by position
    expected: BoolArray,
    uniforms: FloatArray,
    explored: BoolArray,
    explorable: BoolArray,
    ranking: IndexArray,
    free: BoolArray,
    order: IndexArray,
    propensities: FloatArray,
    support: BoolArray,
    drawn: BoolArray,
) -> int:
    shares, contending = np.empty(len(members)), np.empty(len(free), np.bool_)
    used = 0
    for slot in range(start, len(order)):
        row = -1
        if explored[slot]:
            some = False
            for candidate in range(len(free)):
                contends = free[candidate] and explorable[candidate]
                contending[candidate] = contends
                some |= contends
            if some:
                if not _share_out(members, values, winners, floor, ties_share, contending, expected, shares):
                    return slot
                whole = total(shares)
                row = drawn_row(members, shares, uniforms[used] * whole)
                used += 1
                propensities[slot] = share_of(members, shares, row) / whole
                mark(members, shares, support[slot])
                drawn[slot] = True
        if row < 0:
            row = first_free(ranking, free)
            if row < 0:
                return slot
            support[slot, row] = True
        order[slot] = row
        free[row] = False
    return len(order)
