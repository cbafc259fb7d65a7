"""Folding: what outcomes teach a policy, and what is left of a state without them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

import numpy as np

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration.examination import PositionBased, allowing_for
from explorank.hooks.exploration.policy import Policy, State
from explorank.hooks.feedback.outcomes import Outcome, RewardRules
from explorank.hooks.types import RewardBatch

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True)
class Folding(Generic[S]):
    """Hands outcomes to a policy in batches that it can take."""

    policy: Policy[S]
    rules: RewardRules
    warm_start: bool = False
    """Whether the policy learns the reward less what was expected of the item."""

    def fold(self, state: S, outcomes: Sequence[Outcome]) -> tuple[S, Counter[str]]:
        """Return the state after those outcomes that the policy takes, and how many were folded and refused."""
        counts: Counter[str] = Counter()
        for rows in _alike(outcomes):
            state, taken = self._learn(state, rows)
            counts += Counter(folded=taken, refused=len(rows) - taken)
        return state, counts

    @property
    def reversible(self) -> bool:
        """Whether outcomes can be taken out of a state again."""
        return self.policy.additive and not self._one_by_one

    def unfold(self, state: S, outcomes: Sequence[Outcome]) -> tuple[S, Counter[str]] | None:
        """Return the state before `outcomes`, and how many of them had been folded and refused.

        `None` where the policy finds that it cannot have learnt them, so that only a rebuild gives the state.
        """
        counts: Counter[str] = Counter()
        for rows in _alike(sorted(outcomes, key=_feature_width)):
            try:
                state, taken = self._unlearn(state, rows)
            except InvalidBatch as error:
                logger.warning("A user is forgotten by a rebuild of %r: %s", self.policy.name, error)
                return None
            counts += Counter(folded=taken, refused=len(rows) - taken)
        return state, counts

    def _learn(self, state: S, outcomes: Sequence[Outcome]) -> tuple[S, int]:
        """Return the state after those outcomes that the policy takes, and how many they are."""
        if len(outcomes) > 1 and self._one_by_one:
            taken = 0
            for outcome in outcomes:
                state, one = self._learn(state, [outcome])
                taken += one
            return state, taken
        try:
            return self.policy.learn(state, self._batch(state, outcomes)), len(outcomes)
        except InvalidBatch as error:
            if len(outcomes) == 1:
                outcome = outcomes[0]
                logger.warning(
                    "Policy %r refused the reward of slot %d of decision %r: %s",
                    self.policy.name,
                    outcome.slot,
                    outcome.decision_id,
                    error,
                )
                return state, 0
        # Halving isolates one bad row among n in about 2 log2(n) calls.
        middle = len(outcomes) // 2
        state, first = self._learn(state, outcomes[:middle])
        state, second = self._learn(state, outcomes[middle:])
        return state, first + second

    @property
    def _one_by_one(self) -> bool:
        """Whether what a reward counts for depends on the state that it meets."""
        return isinstance(self.rules.examination, PositionBased) and self.policy.reward_form == "share"

    def _batch(self, state: S, outcomes: Sequence[Outcome]) -> RewardBatch:
        """Return the outcomes as the policy learns from them in `state`."""
        batch = _batch(outcomes, with_offsets=self.warm_start)
        if isinstance(self.rules.examination, PositionBased):
            rewarded = np.array([outcome.rewarded for outcome in outcomes])
            return allowing_for(
                self.rules.examination, self.policy, state, batch, rewarded, self.rules.default_reward
            )
        return batch

    def _unlearn(self, state: S, outcomes: Sequence[Outcome]) -> tuple[S, int]:
        """Return the state before those outcomes that the policy took, and how many they are."""
        batch = self._batch(state, outcomes)
        try:
            self.policy.learn(self.policy.initial_state(), batch)
        except InvalidBatch:
            if len(outcomes) == 1:
                return state, 0
            middle = len(outcomes) // 2
            state, first = self._unlearn(state, outcomes[:middle])
            state, second = self._unlearn(state, outcomes[middle:])
            return state, first + second
        return self.policy.unlearn(state, batch), len(outcomes)


def _alike(outcomes: Sequence[Outcome]) -> Iterator[list[Outcome]]:
    """Yield neighbours whose features are equally many; the policy refuses the widths, or the lack, it cannot take."""
    for _, group in groupby(outcomes, key=_feature_width):  # a batch has one feature matrix
        yield list(group)


def _feature_width(outcome: Outcome) -> int:
    return -1 if outcome.features is None else len(outcome.features)


def _batch(outcomes: Sequence[Outcome], *, with_offsets: bool) -> RewardBatch:
    featured = [outcome.features for outcome in outcomes if outcome.features is not None]
    return RewardBatch(
        item_ids=np.array([outcome.item_id for outcome in outcomes]),
        values=np.array([outcome.value for outcome in outcomes]),
        features=np.stack(featured) if len(featured) == len(outcomes) else None,
        decision_ids=np.array([outcome.decision_id for outcome in outcomes]),
        slots=np.array([outcome.slot for outcome in outcomes], dtype=np.int64),
        propensities=np.array([outcome.propensity for outcome in outcomes]),
        offsets=np.array([outcome.offset for outcome in outcomes], np.float64) if with_offsets else None,
        strategies=np.array([outcome.strategy for outcome in outcomes], dtype=np.str_),
        times=np.array([outcome.time for outcome in outcomes]),
        representations=np.array([outcome.representation for outcome in outcomes], dtype=np.str_),
    )
