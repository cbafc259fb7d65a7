"""The random process that fills a slate, slot by slot: one definition for serving, scoring and replay.

One generator per request, seeded, is consumed in a fixed order: a tie-breaking key per candidate, whatever
the policy's contest draws when the first explored slot is reached, then one uniform number per explored
slot, and where the policy sees the slate a second one, for the strategy behind the choice. Nothing depends
on how many slots were asked for, so that a prefix of a slate has the same process.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol, cast

import numpy as np

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration.policy import Contest, Policy, SlateContest
from explorank.hooks.exploration.sampling import Distribution, ranked
from explorank.hooks.types import (
    BoolArray,
    FloatArray,
    IndexArray,
    RankingBatch,
    Slate,
    SlotMethod,
)


class Eligibility(Protocol):
    """Who may stand in a slot, given the slate above it."""

    def at(self, slot: int, placed: IndexArray) -> BoolArray:
        """Return who is eligible, (n,) bool, those already `placed` left out; the caller owns it."""

    def contending(self, slot: int, eligible: BoolArray) -> BoolArray | None:
        """Return the part of `eligible` that a policy chooses from where the slot explores.

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
        # Named, because the default bit generator may change with numpy, and replay must not.
        self._rng: Final = np.random.Generator(np.random.PCG64(seed))
        self._keys: Final = self._rng.random(len(batch))
        self._contest: Contest | None = None
        self._ranked: IndexArray | None = None

    def run(self, n_slots: int) -> Slate:
        """Return the slate; it is shorter than `n_slots` where a slot has nobody eligible."""
        n = len(self._batch)
        length = min(n_slots, n)
        order = np.zeros(length, np.int64)
        propensities = np.ones(length)
        eligible = np.zeros((length, n), np.bool_)
        support = np.zeros((length, n), np.bool_)
        methods: list[SlotMethod] = []
        strategies: list[str] = []
        for slot in range(length):
            placed = _frozen(order[:slot])
            allowed = self._eligibility.at(slot, placed)
            explores, choosing = self._choosing(slot, allowed)
            if not np.count_nonzero(choosing):
                break
            if explores:
                distribution = self._distribution(choosing, slot, placed)
                row = distribution.draw(self._rng.random())
                propensities[slot] = distribution.propensity(row)
                support[slot] = distribution.support
                methods.append("explore")
                strategies.append(self._strategy(row, choosing, slot, placed))
            else:
                row = self._best(choosing)
                support[slot, row] = True
                methods.append("score")
                strategies.append("")
            eligible[slot] = allowed
            order[slot] = row
        filled = len(methods)
        return Slate(
            order=order[:filled],
            propensities=propensities[:filled],
            method=tuple(methods),
            policy=self._policy.name,
            policy_version=self._state.version,
            eligible=eligible[:filled],
            support=support[:filled],
            seed=self._seed,
            floor=self._policy.exploration_floor,
            strategies=tuple(strategies) if self._policy.sees_slate else (),
            reads=() if self._contest is None else self._policy.reads,
        )

    def conditionals(self, order: Sequence[int] | IndexArray) -> FloatArray:
        """Return the probability of each slot's item given the slots above it, (k,); 0 ends the slate."""
        rows = _rows(order, len(self._batch))
        probabilities = np.zeros(len(rows))
        for slot, row in enumerate(rows.tolist()):
            placed = _frozen(rows[:slot])
            explores, choosing = self._choosing(slot, self._eligibility.at(slot, placed))
            if not choosing[row]:
                break
            if explores:
                probabilities[slot] = self._distribution(choosing, slot, placed).propensity(row)
            else:
                probabilities[slot] = float(self._best(choosing) == row)
            if probabilities[slot] == 0.0:
                break
        return probabilities

    def _choosing(self, slot: int, eligible: BoolArray) -> tuple[bool, BoolArray]:
        """Return whether the slot explores, and who it chooses from."""
        contending = self._eligibility.contending(slot, eligible) if slot in self._explored else None
        return (False, eligible) if contending is None else (True, contending)

    def _distribution(self, choosing: BoolArray, slot: int, placed: IndexArray) -> Distribution:
        if self._contest is None:
            self._contest = self._policy.contest(self._state, self._batch, choosing, self._rng)
        if self._policy.sees_slate:
            answer = cast("SlateContest", self._contest).distribution(choosing, slot, placed)
        else:
            answer = self._contest.distribution(choosing)
        return Distribution.of(answer, choosing, self._policy.name)

    def _strategy(self, row: int, choosing: BoolArray, slot: int, placed: IndexArray) -> str:
        if not self._policy.sees_slate:
            return ""
        return cast("SlateContest", self._contest).strategy(row, self._rng.random(), choosing, slot, placed)

    def _best(self, eligible: BoolArray) -> int:
        if self._ranked is None:
            self._ranked = ranked(self._batch.score_values, self._keys)
        return int(self._ranked[eligible[self._ranked].argmax()])


def _rows(order: Sequence[int] | IndexArray, n: int) -> IndexArray:
    rows = np.asarray(order, dtype=np.int64)
    if rows.ndim != 1 or ((rows < 0) | (rows >= n)).any():
        raise InvalidBatch(
            f"The order {rows.tolist()} does not name rows of {n} candidates; they count from 0 to {n - 1}. "
            "Pass indices into the batch, not item ids."
        )
    return rows


def _frozen(placed: IndexArray) -> IndexArray:
    placed.flags.writeable = False  # a guard must not rewrite the slate; this is a view of its own
    return placed
