"""What a policy is: a distribution over candidates, given a state that only learning replaces.

A policy is a frozen dataclass of its parameters. Its state is an immutable value: readers hold a snapshot,
`learn` returns the next one. `contest` runs once per request and holds whatever all slots share (posterior
draws, say); the `Contest` then answers for each slot, given who is still eligible.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.exploration.distributions import SlotDistribution
from explorank.hooks.exploration.filling import OpenSlots
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch, RewardBatch

RewardForm: TypeAlias = Literal["value", "share", "gain"]
"""What a policy makes of a reward: a `value` on any scale, the `share` of a success, a `gain` that adds up."""

NOBODY: Final[IndexArray] = np.zeros(0, np.int64)
"""The slate above the top slot."""


class State(Protocol):
    """A policy's immutable knowledge; `version` rises by one with every `learn`."""

    @property
    def version(self) -> int:
        """How many times `learn` has replaced the state."""


S = TypeVar("S", bound=State)


class Contest(Protocol):
    """One request's view of a policy: its realised randomness, shared by all slots.

    Whatever is random is drawn when the contest is made, so that `distribution` is a function.
    """

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return the probability of each candidate, (n,) float64, for the slot at hand.

        Zero where `eligible` (n,) is False; sums to 1; `eligible` has at least one True. This *is* the
        distribution the item is drawn from, so its entries are exact propensities. A pure function: the
        same mask gives the same answer.
        """


class DrawableContest(Contest, Protocol):
    """A contest that can also answer in a form that is cheaper to draw from than one number per candidate.

    It is optional. The numbers are those of `distribution`, which the conformance suite holds it to.
    """

    def drawable(self, eligible: BoolArray) -> SlotDistribution:
        """Return what `distribution` says, for the same mask."""


class FillingContest(DrawableContest, Protocol):
    """A drawable contest that can fill slot after slot by itself, where no guard looks at the slate so far.

    It is optional too, and the same to the last bit.
    """

    def fill(self, slots: OpenSlots, start: int, uniforms: FloatArray) -> int:
        """Fill slots from `start` on; return the first that is left to be filled otherwise, or their number.

        `uniforms` holds a number for each explored slot from `start` on; those not used serve the later ones.
        """


class SlateContest(Contest, Protocol):
    """A contest whose answer also depends on the slot and on the slate above it.

    A policy with `sees_slate` makes them. Asked for a mask alone, they answer for the top slot.
    """

    def distribution(self, eligible: BoolArray, slot: int = 0, placed: IndexArray = NOBODY) -> FloatArray:
        """Return the probabilities, (n,) float64, as `Contest` demands; `placed` (slot,) holds rows."""

    def strategy(
        self, row: int, uniform: float, eligible: BoolArray, slot: int = 0, placed: IndexArray = NOBODY
    ) -> str:
        """Return which strategy chose `row`, given that it was drawn; empty where none did.

        `uniform` in [0, 1) picks one, where several could have, with its probability given the row.
        """


@dataclass(frozen=True)
class Policy(ABC, Generic[S]):
    """The base of every policy. Subclasses are frozen dataclasses; their fields are the YAML options."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    name: ClassVar[str]
    """The name in YAML and in the log."""
    needs_features: ClassVar[bool] = False
    """Whether `contest` and `learn` need `batch.features`; a batch without them is refused."""
    learns_from: ClassVar[frozenset[str]] = frozenset()
    """The optional columns of `RewardBatch` that `learn` needs; a batch without one of them is refused."""
    learns_residuals: ClassVar[bool] = False
    """Whether it learns `values - offsets` and adds what it learnt to the batch's `offsets`."""
    sees_slate: ClassVar[bool] = False
    """Whether its contests are `SlateContest`s, which are told the slot and the slate above it."""

    reward_form: ClassVar[RewardForm] = "value"
    """What it makes of a reward, which decides how learning allows for slots that nobody looked at."""

    @property
    def additive(self) -> bool:
        """Whether the state is a sum over rewards in any order, so that `merge` and `unlearn` work.

        It may depend on the options: what forgets by age is none.
        """
        return False

    @property
    def exploration_floor(self) -> float:
        """The share of an explored slot's probability that is spread evenly over its support.

        A positive floor bounds every importance weight by the support's size over the floor.
        """
        return 0.0

    @property
    def reads(self) -> tuple[str, ...]:
        """What `contest` reads of the batch beside scores and the features that it needs; recorded for replay.

        Names of columns, `uncertainty`, or `features` where only some options need them.
        """
        return ()

    @abstractmethod
    def initial_state(self) -> S:
        """Return the state before any reward."""

    @abstractmethod
    def contest(
        self, state: S, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> Contest:
        """Return one request's contest. `eligible` (n,) is what the first explored slot may hold."""

    @abstractmethod
    def learn(self, state: S, rewards: RewardBatch) -> S:
        """Return the state after `rewards`, `version` one higher; `state` itself is untouched.

        Raises `InvalidBatch` where the batch lacks a column the policy needs or a value it cannot take.
        """

    def merge(self, state: S, other: S) -> S:
        """Return what learning the rewards of both states would have given, to rounding.

        The two must have learnt disjoint rewards. `version` is the sum of theirs, as is the number of calls of
        `learn`. Raises `InvalidPolicy` where the policy is not `additive`, `InvalidBatch` where the states do
        not fit together.
        """
        self._demand_additive("merged")
        return self._merge(state, other)

    def unlearn(self, state: S, rewards: RewardBatch) -> S:
        """Return what `state` would be without `rewards`, to rounding, `version` one higher.

        `rewards` must be as they were learnt, weights and all. Raises `InvalidPolicy` where the policy is not
        `additive`, `InvalidBatch` for rewards that it cannot have learnt.
        """
        self._demand_additive("unlearnt")
        return self._unlearn(state, rewards)

    def _merge(self, state: S, other: S) -> S:
        """Return what `merge` promises; policies that are `additive` have it, and need not ask whether they are."""
        raise NotImplementedError(f"{self.name} says that it is `additive`, but has no `_merge`. Write it.")

    def _unlearn(self, state: S, rewards: RewardBatch) -> S:
        """Return what `unlearn` promises; policies that are `additive` have it, and need not ask whether they are."""
        raise NotImplementedError(f"{self.name} says that it is `additive`, but has no `_unlearn`. Write it.")

    def expected(self, state: S, rewards: RewardBatch) -> FloatArray | None:  # noqa: ARG002 - few know
        """Return the reward that `state` expects of each row, (m,), or `None` where the policy cannot say.

        Policies of the form `share` give it, so that learning knows how telling the lack of a reward is.
        """
        return None

    @abstractmethod
    def pack(self, state: S) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the state as JSON-ready metadata and named arrays."""

    @abstractmethod
    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> S:
        """Return the state that `pack` took apart; raise `CorruptState` where it does not fit this policy."""

    def dumps(self, state: S) -> bytes:
        """Return the state as checksummed bytes: JSON and raw arrays, nothing pickled."""
        meta, packed = self.pack(state)
        return arrays.dumps({"policy": self.name, "state": meta}, packed)

    def loads(self, data: bytes) -> S:
        """Return the state in `data`; raise `CorruptState` for damage or another policy's state."""
        meta, packed = arrays.loads(data)
        if meta.get("policy") != self.name:
            raise CorruptState(
                f"This state belongs to policy {meta.get('policy')!r}, not {self.name!r}; its numbers mean "
                "something else there. Point each policy at a state of its own."
            )
        return self.unpack(meta["state"], packed)

    def save(self, state: S, path: str | Path) -> None:
        """Write the state to `path`, atomically."""
        arrays.write_atomic(Path(path), self.dumps(state))

    def load(self, path: str | Path) -> S:
        """Read a state that `save` wrote; raise `CorruptState` for a damaged or foreign file."""
        return self.loads(Path(path).read_bytes())

    def at_version(self, state: S, version: int) -> S:
        """Return the same knowledge under another version, for a rebuilt state that takes an older one's place."""
        meta, packed = self.pack(state)
        return self.unpack({**meta, "version": version}, packed)

    def _demand_additive(self, what: str) -> None:
        if not self.additive:
            raise InvalidPolicy(
                f"What {self.name} has learnt is no sum over rewards, given its options (their order counts, or "
                f"their age), so it cannot be {what}. Rebuild the state from the log, or use a policy whose "
                "`additive` is True."
            )


def unpacked_version(
    policy: str, meta: dict[str, Any], packed: dict[str, NDArray[Any]], names: tuple[str, ...]
) -> int:
    """Return the saved version; raise `CorruptState` where it or one of the arrays `names` is missing."""
    version = meta.get("version")
    if not isinstance(version, int) or version < 0 or set(packed) != set(names):
        raise CorruptState(
            f"A saved state of {policy!r} has version {version!r} and arrays {sorted(packed)}; it needs a "
            f"version from 0 on and the arrays {sorted(names)}. Restore an older copy, or rebuild it from "
            "the log."
        )
    return version
