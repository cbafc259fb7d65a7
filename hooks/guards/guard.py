"""What a guard is, and how the answer of one is taken: checked, and safe when it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, is_
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.guards.membership import among
from explorank.hooks.types import BoolArray, IndexArray, RankingBatch, RankingRequest

_WHAT_GUARDS_READ: Final = attrgetter(
    "decision_id", "slots", "user_id", "surface", "time", "context", "exclude", "similar_to", "guard_state"
)

OnGuardError: TypeAlias = Callable[[str, Exception], None]
"""Called with a guard's name and what went wrong with it."""


class Guard(Protocol):
    """Says who may stand in a slot, before the draw; nothing reorders after it.

    A guard may also have these, each optional:

    `name: str`
        How it is called in reports and in `request.guard_state`; the class's name where it is absent.
    `static: bool`
        True promises that its answer depends on neither `placed` nor `slot`. It is then asked once per
        request, possibly before scoring, with a batch of ids alone.
    `fails: "closed" | "open"`
        What holds when it raises or answers in the wrong shape: nothing is eligible (`closed`, the
        default) or everything is (`open`).
    `snapshot(request) -> Any`
        Called once per request; its result is `request.guard_state[name]` for all slots.
    """

    def eligible(
        self, request: RankingRequest, batch: RankingBatch, placed: IndexArray, slot: int
    ) -> BoolArray:
        """Return who may stand in `slot`, (n,) bool; `placed` holds the rows of the slots above it."""


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """Stands in `request.guard_state` where a guard's snapshot raised: the guard counts as failed."""

    error: Exception


def guard_name(guard: Guard) -> str:
    """Return the guard's name: its attribute `name`, or its class's name."""
    return str(getattr(guard, "name", type(guard).__name__))


def is_static(guard: Guard) -> bool:
    """Return whether the guard promises that neither `placed` nor `slot` matters to it."""
    return bool(getattr(guard, "static", False))


def with_snapshots(
    guards: Sequence[Guard], request: RankingRequest, on_error: OnGuardError | None = None
) -> RankingRequest:
    """Return the request with the snapshot of each guard that takes one and is not there yet.

    Raises `InvalidPolicy` where two of them share a name, since one would read the other's state.
    """
    taking = [guard for guard in guards if hasattr(guard, "snapshot")]
    if not taking:
        return request
    names = [guard_name(guard) for guard in taking]
    if len(set(names)) == len(names) and request.guard_state.keys() >= set(names):
        return request
    if len(set(names)) < len(names):
        raise InvalidPolicy(
            f"Guards with snapshots are named {names}; two of one name would read each other's state. Give "
            "each a `name` of its own."
        )
    state = dict(request.guard_state)
    for name, guard in zip(names, taking, strict=True):
        if name in state:
            continue
        try:
            state[name] = guard.snapshot(request)
        except Exception as error:  # whatever it was, `fails` says what holds now
            state[name] = SnapshotFailed(error)
            _report(on_error, name, error)
    return replace(request, guard_state=MappingProxyType(state))


def guard_mask(
    guard: Guard,
    request: RankingRequest,
    batch: RankingBatch,
    placed: IndexArray,
    slot: int,
    on_error: OnGuardError | None = None,
) -> BoolArray:
    """Return the guard's answer, (n,) bool, or what its `fails` says where it has none."""
    name = guard_name(guard)
    if not isinstance(request.guard_state.get(name), SnapshotFailed):
        try:
            return _checked(name, guard.eligible(request, batch, placed, slot), len(batch))
        except Exception as error:  # whatever it was, `fails` says what holds now
            _report(on_error, name, error)
    fails_open = getattr(guard, "fails", "closed") == "open"
    return np.full(len(batch), fails_open)


def static_mask(
    guards: Sequence[Guard],
    request: RankingRequest,
    batch: RankingBatch,
    on_error: OnGuardError | None = None,
) -> BoolArray:
    """Return who may stand in any slot at all: `request.exclude` and every static guard, (n,) bool.

    Each guard answers once for a request and its candidates, however many steps ask; `on_error` is told then.
    """
    asked = (*guards, *_WHAT_GUARDS_READ(request))
    if batch.settled is not None and _the_same(batch.settled[0], asked):
        return batch.settled[1].copy()
    mask = ~among(batch, request.exclude)
    nothing_placed = np.zeros(0, np.int64)
    for guard in guards:
        if is_static(guard):
            mask &= guard_mask(guard, request, batch, nothing_placed, 0, on_error)
    object.__setattr__(batch, "settled", (asked, mask.copy()))
    return mask


def _the_same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    # Identity is enough, and cheap: the parts of a request are never changed, only replaced.
    return len(one) == len(other) and all(map(is_, one, other))


def _checked(name: str, answer: Any, n: int) -> BoolArray:
    mask = np.asarray(answer)
    if mask.shape != (n,) or mask.dtype != np.bool_:
        raise InvalidPolicy(
            f"Guard {name!r} answered with {mask.dtype} of shape {mask.shape} for {n} candidates; it must be "
            f"bool of shape ({n},), or nobody knows whom it means. Return one boolean per candidate."
        )
    return mask


def _report(on_error: OnGuardError | None, name: str, error: Exception) -> None:
    if on_error is not None:
        on_error(name, error)
