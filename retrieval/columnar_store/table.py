"""The rows of one feature view in memory, and the numbering of the entities that several views share.

One writer at a time (the store's lock) and any number of readers without a lock. What makes that safe: a slot
is never rewritten, a row becomes visible by one assignment to `slot_of`, and arrays that must grow are replaced
by larger copies before anything points beyond the old ones. A reader takes ids, then slots, then values, in
that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Final, TypeAlias

import numpy as np
from feast.value_type import ValueType
from numpy.typing import NDArray

from explorank.retrieval._ids import IdTable
from explorank.retrieval.columnar_store.cells import NO_TIME, PRESENT, Cell, OtherMember
from explorank.retrieval.columnar_store.columns import (
    ABSENT,
    COLD,
    FIRST,
    Column,
    MessageColumn,
    NumberColumn,
    Slots,
    column_for,
    grown,
)
from explorank.retrieval.columnar_store.keys import EntityKeys, Key

_LEAST: Final = 64  # slots and ids that a new array has room for
_WASTE: Final = (
    4_096  # slots left behind by changed rows before a table is packed anew, beside as many as it has
)
_ENTRY_BYTES: Final = 12  # of a compiled table, roughly
_MANY: Final = 10_000  # keys, from which on a dictionary no longer fits into the caches
_WIDEST: Final = 64  # characters of a key in a compiled table
_KEY_BYTES: Final = 180  # a dictionary entry, the list's pointer and the key object itself, roughly

Ids: TypeAlias = NDArray[np.int32]
"""Entities by their number, where many are kept."""
NO_SUCH_TIME: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Blocks:
    """Numeric columns side by side, by slot; NaN where a value is not present.

    One contiguous copy per row is what makes gathering hundreds of rows cost microseconds.
    """

    numbers: NDArray[np.float32]  # (capacity, m)
    number_places: dict[str, int]
    seconds: NDArray[np.float64]  # (capacity, k) times, since the epoch; float32 would be off by a minute
    second_places: dict[str, int]


class Table:
    """The rows of one view.

    Args:
        features: The view's features and their declared types; cells of other features are not kept.
        entities: For how many entity ids to make room.

    """

    def __init__(self, features: Mapping[str, ValueType], entities: int) -> None:
        self.features = dict(features)
        self.columns: dict[str, Column] = {
            name: column_for(kind, _LEAST) for name, kind in self.features.items()
        }
        self.slot_of: Slots = np.zeros(max(entities, _LEAST), np.int64)
        self.times = np.full(_LEAST, NO_SUCH_TIME, np.int64)
        """When each row's event happened, in microseconds since the epoch."""
        self.whole = np.zeros(_LEAST, np.bool_)
        """Whether all cells of the row are present."""
        self.complete = False
        """Whether every row of the backing store is here, so that an unknown key is known not to exist."""
        self.version = 0
        """Counts changes."""
        self.used = FIRST
        self.rows = 0
        self.column_changes = 0
        """Counts columns that were replaced by one of another type."""
        self.pages: dict[Any, tuple[bytes, Ids]] = {}
        """What the last sweep met, by where each of its pages begins: the source's mark of it, and the entities."""
        self._asked: Mapping[str, ValueType] = features
        self._blocks: Blocks | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = self.slot_of.nbytes + self.times.nbytes + self.whole.nbytes
        blocks = 0 if self._blocks is None else self._blocks.numbers.nbytes + self._blocks.seconds.nbytes
        return arrays + blocks + sum(column.nbytes for column in self.columns.values())

    def holds(self, features: Mapping[str, ValueType]) -> bool:
        """Return whether a definition of the view, of this or an earlier registry, can be answered."""
        if features is self._asked:
            return True
        held = all(self.features.get(name) == kind for name, kind in features.items())
        if held:
            self._asked = features  # plans are kept, so that the same one is asked for again and again
        return held

    @property
    def wasteful(self) -> bool:
        """Whether most slots belong to rows that have changed since."""
        return self.used - FIRST > 2 * self.rows + _WASTE

    def reserve_entities(self, count: int) -> None:
        """Make room for entity ids below `count`."""
        if count > len(self.slot_of):
            self.slot_of = grown(self.slot_of, max(count, 2 * len(self.slot_of)), COLD)

    def put(
        self, ids: NDArray[np.int64], times: NDArray[np.int64], cells: Mapping[str, Sequence[Cell]]
    ) -> None:
        """Add or replace the rows of n distinct entities; `times` (n,) in microseconds, n cells per feature."""
        count = len(ids)
        if not count:
            return
        first, end = self.used, self.used + count
        self._reserve(end)
        nothing: Sequence[Cell] = [None] * count
        whole = np.ones(count, np.bool_)
        for name in self.columns:
            self._write(name, first, cells.get(name, nothing))
            whole &= self.columns[name].status[first:end] == PRESENT
        self.times[first:end] = times
        self.whole[first:end] = whole
        if self._blocks is not None:
            self._fill(self._blocks, np.arange(first, end))
        self.used = end
        self.rows += int((self.slot_of[ids] < FIRST).sum())
        self.version += 1
        self.slot_of[ids] = np.arange(first, end)  # from here on readers see the rows

    def differing(self, ids: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of n entities have no row here, or one of another time than `times` (n,)."""
        slots = self.slot_of[ids]
        differing: NDArray[np.bool_] = (slots < FIRST) | (self.times[slots] != times)
        return differing

    def forget(self, ids: NDArray[np.int64]) -> None:
        """Note that the backing store has no rows of these entities."""
        self.rows -= int((self.slot_of[ids] >= FIRST).sum())
        self.version += 1
        self.slot_of[ids] = ABSENT

    def blocks(self) -> Blocks:
        """Return the numeric columns side by side; made at the first call and kept up to date from then on."""
        blocks = self._blocks
        if blocks is None:
            numeric = {
                name: column for name, column in self.columns.items() if isinstance(column, NumberColumn)
            }
            numbers = [name for name, column in numeric.items() if not column.is_time]
            times = [name for name, column in numeric.items() if column.is_time]
            capacity = len(self.times)
            blocks = Blocks(
                np.full((capacity, len(numbers)), np.nan, np.float32),
                {name: place for place, name in enumerate(numbers)},
                np.full((capacity, len(times)), np.nan),
                {name: place for place, name in enumerate(times)},
            )
            self._fill(blocks, np.arange(FIRST, self.used))
            self._blocks = blocks
        return blocks

    @property
    def has_blocks(self) -> bool:
        """Whether `blocks` are made already, so that a reader may ask for them without the writer's lock."""
        return self._blocks is not None

    def packed(self, ids: NDArray[np.int64], renumbered: NDArray[np.int64], entities: int) -> Table:
        """Return a copy that holds only what is known of `ids`, under the numbers `renumbered`, without waste."""
        copy = Table(self.features, entities)
        slots = self.slot_of[ids]
        known = slots >= FIRST
        for name, column in self.columns.items():
            if isinstance(column, MessageColumn):
                copy.columns[name] = MessageColumn(self.features[name], _LEAST)
        copy.put(
            renumbered[known],
            self.times[slots[known]],
            {name: column.stored(slots[known]) for name, column in self.columns.items()},
        )
        copy.slot_of[renumbered[slots == ABSENT]] = ABSENT
        copy.complete = self.complete
        if self.has_blocks:
            copy.blocks()
        copy.version = self.version + 1
        return copy

    def _reserve(self, capacity: int) -> None:
        if capacity <= len(self.times):
            return
        capacity = max(capacity, 2 * len(self.times))
        for column in self.columns.values():
            column.reserve(capacity)
        self.times = grown(self.times, capacity, NO_SUCH_TIME)
        self.whole = grown(self.whole, capacity, fill=False)
        if self._blocks is not None:
            self._blocks = replace(
                self._blocks,
                numbers=grown(self._blocks.numbers, capacity, np.nan),
                seconds=grown(self._blocks.seconds, capacity, np.nan),
            )

    def _write(self, name: str, first: int, cells: Sequence[Cell]) -> None:
        column = self.columns[name]
        try:
            column.write(first, cells)
        except OtherMember:
            # The store holds another type than the view declares: rows of an earlier definition, or a writer
            # of its own mind. Messages hold anything, and answer with what was written, as Feast does.
            general = MessageColumn(self.features[name], len(self.times))
            general.write(FIRST, column.stored(np.arange(FIRST, first)))
            general.write(first, cells)
            self.columns[name] = general
            self.column_changes += 1
            self._blocks = None

    def _fill(self, blocks: Blocks, slots: Slots) -> None:
        for block, places in ((blocks.numbers, blocks.number_places), (blocks.seconds, blocks.second_places)):
            for name, place in places.items():
                column = self.columns[name]
                assert isinstance(column, NumberColumn)  # noqa: S101 - else the blocks were dropped in `_write`
                raw = column.values[slots]
                values = raw.astype(np.float64)
                values[column.status[slots] != PRESENT] = np.nan
                if column.is_time:
                    values[raw == NO_TIME] = np.nan
                with np.errstate(over="ignore"):  # beyond float32 a number is infinite
                    block[slots, place] = values


class KeySpace:
    """The entities of one join key, numbered from 1 on, and the tables of the views that are kept by it."""

    def __init__(self, keys: EntityKeys) -> None:
        self.keys = keys
        self.tables: dict[str, Table] = {}
        self.natives: list[Key] = [None]
        """The key of each id."""
        self.last_used = np.zeros(_LEAST, np.int64)
        """When each id was asked for, as a count of requests."""
        self._ids: dict[Key, int] = {}
        self._texts: IdTable | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held, those of the tables included."""
        own = self.last_used.nbytes + _KEY_BYTES * len(self._ids)
        if self._texts is not None:
            own += self._texts.ids.nbytes + _ENTRY_BYTES * len(self._texts.ids)
        return own + sum(table.nbytes for table in self.tables.values())

    def __len__(self) -> int:
        """Return how many ids there are, with 0 for unknown keys."""
        return len(self.natives)

    def lookup(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """Return the id of each of n keys, 0 for an unknown one."""
        table = self._texts
        labels = None if table is None else table.find_texts(list(keys))
        if table is None or labels is None:
            return np.fromiter(map(self._ids.get, keys, repeat(0)), np.int64, len(keys))
        ids = labels + 1
        if len(table.ids) + 1 < len(self.natives):
            for position in np.flatnonzero(ids == 0).tolist():  # it may be newer than the table
                ids[position] = self._ids.get(keys[position], 0)
        return ids

    def index_texts(self) -> None:
        """Find texts that are there by now through compiled code: a dictionary of a million costs a microsecond each.

        Nothing changes for few keys, for others than texts, and where one is so long that a table of equally wide
        rows would be large.
        """
        if self._texts is not None and len(self._texts.ids) + 1 == len(self.natives):
            return  # another view's rows were read before, under the same keys
        texts = self.natives[1:]
        if len(texts) < _MANY or set(map(type, texts)) != {str} or len(max(texts, key=len)) > _WIDEST:
            return
        if not any("\0" in text for text in texts):  # numpy's texts cannot end in it
            self._texts = IdTable(np.array(texts))

    def add(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """Return the id of each of n keys, new ones for keys that had none."""
        ids = self._ids
        fresh = [key for key in dict.fromkeys(keys) if key not in ids]
        if fresh:
            first = len(self.natives)
            for table in self.tables.values():
                table.reserve_entities(first + len(fresh))
            if first + len(fresh) > len(self.last_used):
                self.last_used = grown(self.last_used, 2 * (first + len(fresh)), 0)
            self.natives.extend(fresh)
            ids.update(zip(fresh, range(first, first + len(fresh)), strict=True))
        return self.lookup(keys)

    def touch(self, ids: NDArray[np.int64], request: int) -> None:
        """Note that the ids were asked for, so that they are the last to be dropped."""
        self.last_used[ids] = request

    def reduced(self, keep: int) -> KeySpace:
        """Return a copy with the `keep` entities that were asked for last; its tables are no longer complete."""
        ids = np.argsort(self.last_used[1 : len(self)], kind="stable")[::-1][:keep] + 1
        copy = KeySpace(self.keys)
        renumbered = copy.add([self.natives[position] for position in ids.tolist()])
        copy.last_used[renumbered] = self.last_used[ids]
        for name, table in self.tables.items():
            packed = table.packed(ids, renumbered, len(copy))
            packed.complete = False
            copy.tables[name] = packed
        return copy

    def pack(self, name: str) -> None:
        """Replace a wasteful table by a packed copy."""
        ids = np.arange(1, len(self))
        self.tables[name] = self.tables[name].packed(ids, ids, len(self))
