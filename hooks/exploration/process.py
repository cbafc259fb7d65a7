"""The random process that fills a slate, slot by slot: one definition for serving, scoring and replay.

What is random follows from one seed, in three streams that do not meet: the keys that break ties in scores, the
generator from which the policy's contest draws when the first explored slot is reached, and one uniform number
per explored slot (two where the policy sees the slate; the second is for the strategy behind the choice).
Nothing depends on how many slots were asked for, so that a prefix of a slate has the same process.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol, cast

import numpy as np

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration.compiled import MASK, ROWS, kernel
from explorank.hooks.exploration.distributions import Distribution, SlotDistribution
from explorank.hooks.exploration.filling import OpenSlots
from explorank.hooks.exploration.order import BestByScore
from explorank.hooks.exploration.policy import Contest, FillingContest, Policy, SlateContest
from explorank.hooks.exploration.randomness import Uniforms, generator, tie_seed
from explorank.hooks.types import (
    OFFSETS,
    BoolArray,
    FloatArray,
    IndexArray,
    RankingBatch,
    Slate,
    SlotMethod,
)

_METHODS: Final[tuple[SlotMethod, SlotMethod]] = ("score", "explore")
_AT_MOST: Final = 1.0 + 1e-9  # a certain item's shares may add up to a little more


class Eligibility(Protocol):
    """Who may stand in a slot, given the slate above it."""

    @property
    def possible(self) -> BoolArray:
        """Who may stand in any slot at all, (n,) bool."""

    @property
    def varies(self) -> bool:
        """Whether slots differ in more than that what is placed is gone; if not, `at` is not asked."""

    @property
    def explorable(self) -> BoolArray | None:
        """Whom of those eligible an explored slot chooses from, (n,), `None`: all; asked if nothing varies."""

    def at(self, slot: int, placed: IndexArray, free: BoolArray) -> BoolArray:
        """Return who of those `free` (n,), possible and not `placed`, is eligible, (n,) bool."""

    def contending(self, slot: int, eligible: BoolArray) -> BoolArray | None:
        """Return the part of `eligible` that a policy chooses from where the slot explores; a copy.

        `None` says that the slot does not explore after all, and holds the best by score.
        """


class SlotProcess:
    """The realised process of one request: a policy, its state, a batch and a seed."""

    def __init__(
        self,
        policy: Policy[Any],
        state: Any,
        batch: RankingBatch,
        eligibility: Eligibility,
        explored: Collection[int],
        seed: int,
    ) -> None:
        if seed < 0:
            raise InvalidBatch(f"The seed is {seed}; seeds count from 0. Derive it from the decision id.")
        self._policy: Final = policy
        self._state: Final = state
        self._batch: Final = batch
        self._eligibility: Final = eligibility
        self._explored: Final = explored
        self._seed: Final = seed
        self._contest: Contest | None = None
        self._uniforms: Final = Uniforms(seed)
        self._best: BestByScore | None = None

    def run(self, n_slots: int) -> Slate:
        """Return the slate; it is shorter than `n_slots` where a slot has nobody eligible."""
        policy, eligibility = self._policy, self._eligibility
        n, length = len(self._batch), min(n_slots, len(self._batch))
        varies = eligibility.varies
        slots = OpenSlots.of(eligibility.possible, [slot in self._explored for slot in range(length)])
        free = slots.free
        # Guards and contests see the slate above the slot, and must not rewrite it.
        above = slots.order.view()
        above.flags.writeable = False
        allowed_at: list[BoolArray] = []
        strategies: list[str] = []
        slot = 0
        if not varies and not slots.explored.any():
            slot = length = self._by_score(slots)
            strategies = [""] * slot
        while slot < length:
            allowed = eligibility.at(slot, above[:slot], free) if varies else free
            contending = self._contending(slot, allowed)
            if contending is None:
                row = self._best_of(allowed, length)
                if not allowed[row]:
                    break
                slots.support[slot, row] = True
                strategies.append("")
            elif not contending[contending.argmax()]:
                break
            elif not varies and (filled := self._fill(slots, slot, contending)) > slot:
                slot = filled
                continue
            else:
                row = self._draw(slots, slot, contending, above[:slot])
                if policy.sees_slate:
                    strategies.append(self._strategy(row, contending, slot, above[:slot]))
            if varies:
                allowed_at.append(allowed)
            slots.order[slot] = row
            free[row] = False
            slot += 1
        order = slots.order[:slot]
        if varies:
            eligible = np.array(allowed_at, np.bool_).reshape(slot, n)
        else:
            eligible = _not_yet_placed(eligibility.possible, order)
        return Slate(
            order=order,
            propensities=slots.propensities[:slot],
            method=tuple(map(_METHODS.__getitem__, slots.drawn[:slot].tolist())),
            policy=policy.name,
            policy_version=self._state.version,
            eligible=eligible,
            support=slots.support[:slot],
            seed=self._seed,
            floor=policy.exploration_floor,
            strategies=tuple(strategies) if policy.sees_slate else (),
            reads=self._read(),
        )

    def _by_score(self, slots: OpenSlots) -> int:
        """Let all slots hold the best by score, as far as there are any; return how many were filled."""
        best = self._ranking(len(slots.order)).head[: len(slots.order)]
        slots.order[: len(best)] = best
        slots.support[np.arange(len(best)), best] = True
        return len(best)

    def _draw(self, slots: OpenSlots, slot: int, contending: BoolArray, placed: IndexArray) -> int:
        """Draw a slot's item, and note how probable it was and what else could have been drawn."""
        distribution = self._distribution(contending, slot, placed)
        row = distribution.draw(self._uniforms.next())
        propensity = distribution.propensity(row)
        if not contending[row] or not 0.0 < propensity <= _AT_MOST:
            name, allowed = self._policy.name, bool(contending[row])
            raise _drawn_otherwise(name, self._batch, row, propensity, allowed=allowed)
        slots.propensities[slot] = propensity
        distribution.mark(slots.support[slot])
        slots.drawn[slot] = True
        return row

    def _fill(self, slots: OpenSlots, start: int, contending: BoolArray) -> int:
        """Let the contest fill slots from `start` on, if it can; return the first that it did not fill."""
        contest = self._contest_among(contending)
        if not hasattr(contest, "fill"):
            return start
        length, explorable = len(slots.order), self._eligibility.explorable
        if explorable is not None:
            slots.explorable = explorable
        if np.count_nonzero(slots.explored) < length:
            slots.ranking = self._ranking(length).head
        uniforms = self._uniforms.ahead(length - start)
        filled = cast("FillingContest", contest).fill(slots, start, uniforms)
        self._uniforms.use(int(np.count_nonzero(slots.drawn[start:filled])))
        return filled

    def conditionals(self, order: Sequence[int] | IndexArray) -> FloatArray:
        """Return the probability of each slot's item given the slots above it, (k,); 0 ends the slate."""
        eligibility = self._eligibility
        rows = _rows(order, len(self._batch))
        above = rows.view()
        above.flags.writeable = False
        free = eligibility.possible.copy()
        probabilities = np.zeros(len(rows))
        for slot, row in enumerate(rows.tolist()):
            placed = above[:slot]
            allowed = eligibility.at(slot, placed, free) if eligibility.varies else free
            contending = self._contending(slot, allowed)
            if not (allowed if contending is None else contending)[row]:
                break
            if contending is None:
                probabilities[slot] = float(self._best_of(allowed, len(rows)) == row)
            else:
                probabilities[slot] = self._distribution(contending, slot, placed).propensity(row)
            if probabilities[slot] == 0.0:
                break
            free[row] = False
        return probabilities

    def conditional(self, placed: Sequence[int] | IndexArray) -> FloatArray | None:
        """Return the distribution of the slot below the slate `placed`, (n,); `None` where it ends there.

        Given the seed, as `conditionals` is. Whoever asks must have asked from the top down, since the first
        explored slot that is asked for makes the contest.
        """
        eligibility = self._eligibility
        above = _rows(placed, len(self._batch)).view()
        above.flags.writeable = False
        slot = len(above)
        free = eligibility.possible.copy()
        free[above] = False
        allowed = eligibility.at(slot, above, free) if eligibility.varies else free
        contending = self._contending(slot, allowed)
        if not np.count_nonzero(allowed if contending is None else contending):
            return None
        if contending is None:
            certain = np.zeros(len(self._batch))
            certain[self._best_of(allowed, slot + 1)] = 1.0
            return certain
        drawn = self._over_all(contending, slot, above)
        distribution: FloatArray = drawn.probabilities / drawn.cumulative[-1]
        return distribution

    def _contending(self, slot: int, eligible: BoolArray) -> BoolArray | None:
        """Return who an explored slot chooses from, `None` where the slot holds the best by score."""
        return self._eligibility.contending(slot, eligible) if slot in self._explored else None

    def _distribution(self, choosing: BoolArray, slot: int, placed: IndexArray) -> SlotDistribution:
        """Return what a slot's item is drawn from, in the cheapest form that the contest has."""
        drawable = getattr(self._contest_among(choosing), "drawable", None)
        # It knows nothing of the slate above.
        if drawable is None or self._policy.sees_slate:
            return self._over_all(choosing, slot, placed)
        return cast("SlotDistribution", drawable(choosing))

    def _over_all(self, choosing: BoolArray, slot: int, placed: IndexArray) -> Distribution:
        """Return what a slot's item is drawn from, with a number for every candidate."""
        contest = self._contest_among(choosing)
        if self._policy.sees_slate:
            answer = cast("SlateContest", contest).distribution(choosing, slot, placed)
        else:
            answer = contest.distribution(choosing)
        return Distribution.of(answer, choosing, self._policy.name)

    def _contest_among(self, choosing: BoolArray) -> Contest:
        if self._contest is None:
            rng = generator(self._seed)
            self._contest = self._policy.contest(self._state, self._batch, choosing, rng)
        return self._contest

    def _strategy(self, row: int, choosing: BoolArray, slot: int, placed: IndexArray) -> str:
        return cast("SlateContest", self._contest).strategy(
            row, self._uniforms.next(), choosing, slot, placed
        )

    def _best_of(self, free: BoolArray, depth: int) -> int:
        return self._ranking(depth).among(free)

    def _ranking(self, depth: int) -> BestByScore:
        if self._best is None:
            scores, ties = self._batch.score_values, tie_seed(self._seed)
            self._best = BestByScore(scores, ties, self._eligibility.possible, depth)
        return self._best

    def _read(self) -> tuple[str, ...]:
        """Return what the policy read of the batch beside scores and needed features."""
        if self._contest is None:
            return ()
        if self._policy.learns_residuals and self._batch.offsets is not None:
            return (*self._policy.reads, OFFSETS)
        return self._policy.reads


def _drawn_otherwise(
    policy: str, batch: RankingBatch, row: int, propensity: float, *, allowed: bool
) -> InvalidPolicy:
    item = batch.id_list[row]
    if not allowed:
        return InvalidPolicy(
            f"Policy {policy!r} drew item {item!r}, which the guards removed; a blocked item must never be shown. "
            "Let its `drawable` choose among the eligible alone, or leave it out: `distribution` is enough."
        )
    return InvalidPolicy(
        f"Policy {policy!r} drew item {item!r} and gives it a probability of {propensity!r}; nobody could weigh "
        "with that. Let its `drawable` say what its `distribution` says, or leave it out."
    )


@kernel((MASK, ROWS))
def _not_yet_placed(possible: BoolArray, order: IndexArray) -> BoolArray:
    """Return who was free at each slot of `order` (k,), of those `possible` (n,) in the first, (k, n)."""
    free = np.empty((len(order), len(possible)), np.bool_)
    for slot in range(len(order)):
        if slot:
            free[slot] = free[slot - 1]
            free[slot, order[slot - 1]] = False
        else:
            free[slot] = possible
    return free


def _rows(order: Sequence[int] | IndexArray, n: int) -> IndexArray:
    rows = np.asarray(order, dtype=np.int64)
    if rows.ndim != 1 or ((rows < 0) | (rows >= n)).any():
        raise InvalidBatch(
            f"The order {rows.tolist()} does not name rows of {n} candidates; they count from 0 to {n - 1}. "
            "Pass indices into the batch, not item ids."
        )
    return rows
