"""Slates with true propensities: guards say who is eligible, the policy how likely, the seed draws."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration.policy import Policy
from explorank.hooks.exploration.process import SlotProcess
from explorank.hooks.guards.guard import (
    Guard,
    OnGuardError,
    guard_mask,
    is_static,
    static_mask,
    with_snapshots,
)
from explorank.hooks.types import BoolArray, IndexArray, RankingBatch, RankingRequest, Slate


def build_slate(
    policy: Policy[Any],
    state: Any,
    batch: RankingBatch,
    n_slots: int,
    explore_slots: Iterable[int] | None = None,
    guards: Sequence[Guard] = (),
    request: RankingRequest | None = None,
    seed: int = 0,
    *,
    explorable: BoolArray | None = None,
    on_guard_error: OnGuardError | None = None,
) -> Slate:
    """Return a slate of at most `n_slots`, drawn slot by slot, with the probability of each choice.

    At each slot the eligible candidates are those that every guard allows given the request and the slate so
    far. A slot in `explore_slots` (`None`: every slot; slots count from 0, those beyond `n_slots` are
    ignored) draws its item from the policy's distribution over them; any other holds the eligible item with
    the best score, ties broken by the seed, with propensity 1. The slate ends at the first slot for which
    nobody is eligible. The same arguments give the same slate.

    `explorable` (n,) bool narrows what an explored slot chooses from, beside the guards; the others are shown
    by score only. An explored slot for which no explorable candidate is left is filled by score.

    A guard that fails allows nothing, or everything where it says `fails = "open"`; `on_guard_error` is told
    its name and the exception. `request.exclude` is honoured like a guard.

    Raises `InvalidBatch` for negative slots or seeds and for a batch without what the policy needs, and
    `InvalidPolicy` where the policy's answer is not a distribution over the eligible candidates.
    """
    given = (policy, state, batch, n_slots, explore_slots, guards, request, seed)
    return slot_process(*given, explorable=explorable, on_guard_error=on_guard_error).run(n_slots)


def slate_log_propensity(
    policy: Policy[Any],
    state: Any,
    batch: RankingBatch,
    order: Sequence[int] | IndexArray,
    explore_slots: Iterable[int] | None = None,
    guards: Sequence[Guard] = (),
    request: RankingRequest | None = None,
    seed: int = 0,
    *,
    explorable: BoolArray | None = None,
    on_guard_error: OnGuardError | None = None,
) -> float:
    """Return the log-probability that `build_slate` with this seed's draws fills its first slots so.

    `order` (k,) holds rows of the batch. The answer is the sum of the slots' conditional log-probabilities,
    -inf where the process could not have produced them. Given the seed's draws, the probabilities of all
    slates sum to 1.
    """
    given = (policy, state, batch, len(order), explore_slots, guards, request, seed)
    process = slot_process(*given, explorable=explorable, on_guard_error=on_guard_error)
    with np.errstate(divide="ignore"):
        return float(np.log(process.conditionals(order)).sum())


def slot_process(
    policy: Policy[Any],
    state: Any,
    batch: RankingBatch,
    n_slots: int,
    explore_slots: Iterable[int] | None = None,
    guards: Sequence[Guard] = (),
    request: RankingRequest | None = None,
    seed: int = 0,
    *,
    explorable: BoolArray | None = None,
    on_guard_error: OnGuardError | None = None,
) -> SlotProcess:
    """Return the random process that `build_slate` runs when given the same."""
    if n_slots < 0:
        raise InvalidBatch(f"`n_slots` is {n_slots}; a slate has 0 slots or more.")
    explored = _explored(explore_slots, n_slots)
    eligibility = _Guarded(guards, request, batch, n_slots, explorable, on_guard_error)
    return SlotProcess(policy, state, batch, eligibility, explored, seed)


class _Guarded:
    """Eligibility by guards: the static ones asked once, the others at every slot."""

    def __init__(
        self,
        guards: Sequence[Guard],
        request: RankingRequest | None,
        batch: RankingBatch,
        n_slots: int,
        explorable: BoolArray | None,
        on_error: OnGuardError | None,
    ) -> None:
        n = len(batch)
        if explorable is not None and (explorable.shape != (n,) or explorable.dtype != np.bool_):
            raise InvalidBatch(
                f"`explorable` is {explorable.dtype} of shape {explorable.shape} for {n} candidates; it must be "
                f"bool of shape ({n},), one entry per candidate."
            )
        self.explorable = explorable
        self._batch = batch
        self._on_error = on_error
        self._dynamic: Sequence[Guard] = ()
        if not guards and (request is None or not request.exclude):
            self.possible = np.ones(n, np.bool_)
        else:
            asked = RankingRequest(decision_id="", slots=n_slots) if request is None else request
            self._request = with_snapshots(guards, asked, on_error)
            self.possible = static_mask(guards, self._request, batch, on_error)
            self._dynamic = [guard for guard in guards if not is_static(guard)]
        self.varies = bool(self._dynamic)

    def at(self, slot: int, placed: IndexArray, free: BoolArray) -> BoolArray:
        eligible = free.copy()
        for guard in self._dynamic:
            eligible &= guard_mask(guard, self._request, self._batch, placed, slot, self._on_error)
        return eligible

    def contending(self, slot: int, eligible: BoolArray) -> BoolArray | None:  # noqa: ARG002 - all slots alike
        # A contest may keep what it is given; what is free changes with the next slot.
        contending: BoolArray = eligible.copy()
        if self.explorable is None:
            return contending
        contending &= self.explorable
        return contending if np.count_nonzero(contending) else None


def _explored(explore_slots: Iterable[int] | None, n_slots: int) -> Collection[int]:
    if explore_slots is None:
        return range(n_slots)
    explored = frozenset(explore_slots)
    if min(explored, default=0) < 0:
        raise InvalidBatch(f"`explore_slots` holds {min(explored)}; slots count from 0 at the top.")
    return explored
