"""What came back, added up item by item: the state of every policy that knows items by their id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import repeat
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidBatch
from explorank.hooks.exploration.linear_model import retention
from explorank.hooks.exploration.options import check_positive
from explorank.hooks.exploration.policy import Policy, unpacked_version
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.types import FloatArray, Ids, IndexArray, RewardBatch

# What is left of a sum after everything was taken out of it again, relative to what it was: adding up a
# million numbers rounds by about a tenth of this.
_ROUNDING: Final = 1e-12


def empty_sum() -> FloatArray:
    """Return the sum over no items, the default of each sum."""
    return np.zeros(0)


@dataclass(frozen=True)
class ItemSums:
    """One or more sums per item that ever earned a reward (A of them); additive.

    A subclass adds its sums as fields (A,). An item appears with its first reward; until then all its sums
    are 0.
    """

    signed: ClassVar[frozenset[str]] = frozenset()
    """The sums that may be negative."""

    version: int = 0
    item_ids: Ids = field(default_factory=lambda: np.zeros(0, dtype="<U1"))  # (A,), by first appearance
    row_of: Mapping[Any, int] = field(default_factory=dict, repr=False, compare=False, kw_only=True)
    """Where each item stands in the arrays; made from the ids where it is not given."""

    def __post_init__(self) -> None:
        """Index the items once, for all requests that read this state."""
        if len(self.row_of) != len(self.item_ids):
            rows = {item: row for row, item in enumerate(self.item_ids.tolist())}
            object.__setattr__(self, "row_of", MappingProxyType(rows))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the sums."""
        own = {each.name for each in fields(ItemSums)}
        return tuple(each.name for each in fields(cls) if each.name not in own)

    def rows(self, item_ids: Sequence[Any]) -> IndexArray:
        """Return where each item stands, (len(item_ids),), -1 for one without a reward; ids as Python values."""
        return np.fromiter(map(self.row_of.get, item_ids, repeat(-1)), np.int64, count=len(item_ids))

    def at(self, rows: IndexArray) -> tuple[FloatArray, ...]:
        """Return each sum at `rows`, all (len(rows),); 0 where `rows` is -1."""
        if not len(self.item_ids):
            return tuple(np.zeros(len(rows)) for _ in self.names())
        known = rows >= 0
        return tuple(known * getattr(self, name).take(rows, mode="clip") for name in self.names())

    def plus(self, policy: str, item_ids: Ids, *, kept: float = 1.0, **addends: FloatArray) -> Self:
        """Return the next version: each row's addends (m,) added, in order, to the sums of its item.

        `kept` is the share of all former sums that is not forgotten. Raises `InvalidBatch` for ids of another
        type than the state's, and where a sum overflows.
        """
        if not len(item_ids):
            faded = {} if kept == 1.0 else {name: kept * getattr(self, name) for name in self.names()}
            return replace(self, version=self.version + 1, **faded)
        ids = item_ids
        if ids.dtype.kind not in "Uiu":
            ids = np.asarray(ids.tolist())  # text held as objects becomes plain text, which can be saved
        if len(self.item_ids) and self.item_ids.dtype.kind != ids.dtype.kind:
            raise InvalidBatch(
                f"Rewards name items by {ids.dtype}, the state of {policy} by {self.item_ids.dtype}; "
                "the same item would get two arms. Use one type of id throughout."
            )
        unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        known = self.rows(unique.tolist())
        new = np.flatnonzero(known < 0)
        new = new[np.argsort(first[new])]
        arms = len(self.item_ids)
        known[new] = arms + np.arange(len(new))
        sums: dict[str, Any] = {}
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the sum named
            for name, addend in addends.items():
                sums[name] = np.concatenate((getattr(self, name), np.zeros(len(new))))
                if kept != 1.0:
                    sums[name] *= kept
                np.add.at(sums[name], known[inverse], addend)
        for name, values in sums.items():
            if not np.isfinite(values).all():
                raise InvalidBatch(
                    f"The {name} of {policy} would no longer be finite after these {len(item_ids)} rewards "
                    "(a reward, weight or offset is too large or not a number); no distribution could be "
                    "drawn from it. Scale the rewards; the state is unchanged."
                )
        if not len(new):
            return replace(self, version=self.version + 1, **sums)
        appeared = unique[new]
        row_of = {**self.row_of, **{item: arms + row for row, item in enumerate(appeared.tolist())}}
        return replace(
            self,
            version=self.version + 1,
            item_ids=np.concatenate((self.item_ids, appeared)) if arms else appeared,
            row_of=MappingProxyType(row_of),
            **sums,
        )

    def merged(self, policy: str, other: Self) -> Self:
        """Return the sums of both, its items in front; the version is the sum of both."""
        sums = {name: getattr(other, name) for name in self.names()}
        return replace(self.plus(policy, other.item_ids, **sums), version=self.version + other.version)

    def minus(self, policy: str, other: Self) -> Self:
        """Return the next version: the sums of `other` taken out, and items that nothing is left of.

        Raises `InvalidBatch` where `other` holds more of an item than is there.
        """
        counted = [name for name in self.names() if name not in self.signed]
        taken = np.any([getattr(other, name) > 0.0 for name in counted], axis=0)
        item_ids = other.item_ids[taken]
        rows = self.rows(item_ids.tolist())
        sums = {name: getattr(self, name).copy() for name in self.names()}
        lacking = rows < 0
        for name, values in sums.items() if not lacking.any() else ():
            before = values[rows]
            after = before - getattr(other, name)[taken]
            if name in counted:
                rounding = _ROUNDING * before
                lacking |= after < -rounding
                after[after <= rounding] = 0.0
            values[rows] = after
        if lacking.any():
            item = item_ids.tolist()[int(np.argmax(lacking))]
            raise InvalidBatch(
                f"{policy} was told to unlearn more rewards of item {item!r} than it has learnt; what is left "
                "would be no sum of rewards. Unlearn rewards once, as they were learnt; the state is unchanged."
            )
        empty = ~np.any([sums[name][rows] for name in counted], axis=0)
        left = np.delete(np.arange(len(self.item_ids)), rows[empty])
        remaining: dict[str, Any] = {name: values[left] for name, values in sums.items()}
        return type(self)(self.version + 1, self.item_ids[left], **remaining)

    def pack(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the version, and the arrays by name."""
        sums = {name: getattr(self, name) for name in self.names()}
        return {"version": self.version}, {"item_ids": self.item_ids, **sums}

    @classmethod
    def unpack(cls, policy: str, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> Self:
        """Return what `pack` took apart; raise `CorruptState` where it is no sums of distinct items."""
        version = unpacked_version(policy, meta, packed, names=("item_ids", *cls.names()))
        ids = packed["item_ids"]
        sums: dict[str, Any] = {name: packed[name] for name in cls.names()}
        distinct = len(set(ids.ravel().tolist()))
        if ids.shape != (distinct,) or any(
            values.shape != (distinct,)
            or not np.isfinite(values).all()
            or (name not in cls.signed and (values < 0.0).any())
            for name, values in sums.items()
        ):
            raise CorruptState(
                f"A saved state of {policy} has {distinct} distinct items, and sums of shapes "
                f"{ {name: values.shape for name, values in sums.items()} }; it needs one finite sum of each "
                "kind per item, and none that is negative where only counts are added. Restore an older "
                "copy, or rebuild it from the log."
            )
        return cls(version, ids, **sums)


@dataclass(frozen=True)
class ItemMeans(ItemSums):
    """How often each item earned a reward, and how much in total."""

    signed: ClassVar[frozenset[str]] = frozenset({"totals"})

    counts: FloatArray = field(default_factory=empty_sum)  # (A,) Σ w
    totals: FloatArray = field(default_factory=empty_sum)  # (A,) Σ w · (r - offset)

    def after(self, policy: str, rewards: RewardBatch, half_life: float | None = None) -> ItemMeans:
        """Return the state with `rewards` counted; raise `InvalidBatch` as `plus` does."""
        weights, kept = aged_weights(rewards, half_life)
        targets = rewards.values if rewards.offsets is None else rewards.values - rewards.offsets
        with np.errstate(over="ignore", invalid="ignore"):  # `plus` refuses the sum
            totals = weights * targets
        return self.plus(policy, rewards.item_ids, kept=kept, counts=weights, totals=totals)


Sums = TypeVar("Sums", bound=ItemSums)


class ItemPolicy(Policy[Sums]):
    """The base of policies whose state is sums per item."""

    half_life: float | None = None

    @property
    def additive(self) -> bool:
        """True unless rewards fade with a half-life."""
        return self.half_life is None

    def _merge(self, state: Sums, other: Sums) -> Sums:
        """Return the sums of both."""
        return state.merged(self.name, other)

    def _unlearn(self, state: Sums, rewards: RewardBatch) -> Sums:
        """Return the sums without `rewards`."""
        return state.minus(self.name, self.learn(self.initial_state(), rewards))


def aged_weights(rewards: RewardBatch, half_life: float | None) -> tuple[FloatArray, float]:
    """Return how much each reward counts once all are learnt, (m,), and what is kept of those before."""
    weights = row_weights(rewards)
    if half_life is None:
        return weights, 1.0
    ageing = retention(half_life, len(rewards))
    return weights * ageing[1:], float(ageing[0])


def check_half_life(policy: str, half_life: float | None) -> None:
    """Raise `InvalidPolicy` for a half-life after which nothing is known."""
    if half_life is not None:
        check_positive(policy, "half_life", half_life, otherwise="nothing is remembered", example=10_000.0)
