"""Which label of a FAISS index belongs to which item, and which rows may be answered."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval import _id_kernels as kernels
from explorank.retrieval._ids import Ids, IdTable, Labels, as_ids
from explorank.retrieval._index_files import FREE, LIVE, REMOVED
from explorank.retrieval.errors import InvalidVectors

_ID_NAMES: Final = {"U": "strings", "i": "integers"}
NOTHING: Final[Labels] = np.empty(0, np.int64)


class LabelBook:
    """Knows items by label. Reading is safe from many threads; what changes it runs alone, as its caller sees to.

    A row is hidden from when FAISS has it until its item is shown, and again once its item was removed.
    """

    def __init__(self, ids: Ids, states: NDArray[np.uint8]) -> None:
        """Take the id and the state of each label, both (n,)."""
        live = states == LIVE
        self.count = int(live.sum())
        """How many items there are."""
        self.removed: set[int] = set(np.flatnonzero(states == REMOVED).tolist())
        """Labels of removed items whose rows FAISS still has."""
        self.hidden = len(self.removed)
        """How many rows FAISS has that must not be answered."""
        self._table = IdTable(ids, np.flatnonzero(live))
        self._live = np.packbits(live, bitorder="little")
        self._free: list[int] = np.flatnonzero(states == FREE).tolist()

    @property
    def ids(self) -> Ids:
        """(labels,) the item of each label; of a hidden row, nobody's."""
        return self._table.ids

    def states(self) -> NDArray[np.uint8]:
        """Return the state of each label, (labels,)."""
        states = np.unpackbits(self._live, count=len(self.ids), bitorder="little")
        states[list(self.removed)] = REMOVED
        return states

    def find(self, ids: Ids | list[Any]) -> Labels:
        """Return the labels of those of `ids` that are in the index, each once."""
        labels = self._table.find_texts(ids) if isinstance(ids, list) and self._table.holds_texts else None
        if labels is None:
            id_array = as_ids(ids)
            self.check_type(id_array)
            labels = self._table.find(id_array)
        return kernels.live_labels(labels, self._live)

    def check_type(self, ids: Ids) -> None:
        """Raise `InvalidVectors` for integers where items have texts, and the other way round."""
        if self.count and len(ids) and ids.dtype.kind != self.ids.dtype.kind:
            raise InvalidVectors(
                f"The index knows its items by {_ID_NAMES[self.ids.dtype.kind]}, and {ids[0].item()!r} is "
                "of another type, so the two would never compare equal. Convert the ids."
            )

    def reserve(self, ids: Ids) -> Labels:
        """Return a label for each of `ids`, none of them live, with room for it everywhere."""
        reused = [self._free.pop() for _ in range(min(len(ids), len(self._free)))]
        first = len(self.ids)
        count = first + len(ids) - len(reused)
        if not self.count and ids.dtype.kind != self.ids.dtype.kind:
            self._table = IdTable(np.zeros(first, ids.dtype), NOTHING)
        self._table.make_room(count, ids.dtype)
        if count > 8 * len(self._live):
            room = max(-(-count // 8), len(self._live) * 3 // 2)
            self._live = np.concatenate([self._live, np.zeros(room - len(self._live), np.uint8)])
        return np.array([*reused, *range(first, count)], np.int64)

    def give_up(self, rows: Labels, unused: Labels) -> None:
        """Take back reserved labels: `rows` are in FAISS already, `unused` are not."""
        self.removed.update(rows.tolist())
        self._free.extend(unused[::-1].tolist())  # so that they come next, and in order, as a graph counts

    def show(self, ids: Ids, labels: Labels) -> int:
        """Let `labels` (m,) be the rows of `ids` (m,) from now on; return how many had another row before."""
        replaced = self.find(ids)
        self.hide(replaced)
        self._table.put(ids, labels, self._live_labels)
        kernels.set_bits(self._live, labels)
        self.hidden -= len(labels)
        self.count += len(labels)
        return len(replaced)

    def hide(self, labels: Labels) -> None:
        """Let the items of `labels` be removed."""
        kernels.clear_bits(self._live, labels)
        self.removed.update(labels.tolist())
        self.hidden += len(labels)
        self.count -= len(labels)

    def purged(self) -> None:
        """Note that FAISS has dropped the rows in `removed`."""
        self._free.extend(self.removed)
        self.hidden -= len(self.removed)
        self.removed.clear()

    def expected_hidden(self, k: int) -> int:
        """Return how many hidden rows may lie before the `k`-th item: twice their share, and a few."""
        if not self.hidden:
            return 0
        return min(self.hidden, math.ceil(2 * k * self.hidden / (self.count + self.hidden)) + 8)

    def allowed(
        self, similarities: NDArray[np.float32], labels: NDArray[np.int64], excluded: Labels, k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Return of each row (q, m) the first `k` that may be answered, (q, k), or None where one has fewer."""
        kept = np.empty((len(labels), k), np.float32), np.empty((len(labels), k), np.int64)
        return kept if kernels.first_allowed(similarities, labels, self._live, excluded, *kept) else None

    def bits(self, excluded: Labels) -> NDArray[np.uint8] | None:
        """Return which labels may be answered, a bit for each; None where all of them may."""
        if not len(excluded):
            return self._live if self.hidden else None
        bits = self._live.copy()
        kernels.clear_bits(bits, excluded)
        return bits

    def _live_labels(self) -> Labels:
        return np.flatnonzero(np.unpackbits(self._live, count=len(self.ids), bitorder="little"))
