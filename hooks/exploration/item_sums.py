"""What came back, added up item by item: the state of every policy that knows items by their id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import repeat
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidBatch
from explorank.hooks.exploration.policy import unpacked_version
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.types import FloatArray, Ids, IndexArray, RewardBatch


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

    def plus(self, policy: str, item_ids: Ids, **addends: FloatArray) -> Self:
        """Return the next version: each row's addends (m,) added, in order, to the sums of its item.

        Raises `InvalidBatch` for ids of another type than the state's, and where a sum overflows.
        """
        if not len(item_ids):
            return replace(self, version=self.version + 1)
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

    def after(self, policy: str, rewards: RewardBatch) -> ItemMeans:
        """Return the state with `rewards` counted; raise `InvalidBatch` as `plus` does."""
        weights = row_weights(rewards)
        targets = rewards.values if rewards.offsets is None else rewards.values - rewards.offsets
        with np.errstate(over="ignore", invalid="ignore"):  # `plus` refuses the sum
            totals = weights * targets
        return self.plus(policy, rewards.item_ids, counts=weights, totals=totals)
