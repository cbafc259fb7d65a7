"""The array door: the numbers of several views, gathered into one float32 matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.columnar_store.columns import ABSENT, FIRST, Slots, TextColumn
from explorank.retrieval.columnar_store.keys import Key
from explorank.retrieval.columnar_store.memory import KnownKeys, Memory
from explorank.retrieval.columnar_store.requests import FOREVER
from explorank.retrieval.columnar_store.sources.source import StoredView
from explorank.retrieval.columnar_store.table import Blocks, Table

_DAY_S: Final = 86_400.0
_SECOND: Final = 1_000_000

TextCodes: TypeAlias = Callable[[str, Sequence[str | None]], NDArray[np.float32]]
"""Given a feature and n of its texts, returns their codes, (n,) float32, NaN for a text without one."""


@dataclass(frozen=True)
class MatrixView:
    """What a matrix takes from one view."""

    stored: StoredView
    features: tuple[str, ...]
    """Numbers, booleans, times and texts."""
    ttl: int
    """How long a row may be used, in microseconds; `FOREVER` where rows do not expire."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The numbers of n rows, and which rows there are."""

    values: NDArray[np.float32]  # (n, d)
    """In the order of the views and of their features; NaN where there is no value."""
    found: NDArray[np.bool_]  # (n, views)
    """Which rows are in store."""
    alive: NDArray[np.bool_]  # (n, views)
    """Which of those may be used."""


class FeatureMatrix:
    """Gathers the same features again and again.

    Numbers and booleans are themselves, a text is its code, a time its age in days at the moment of reading.

    Args:
        memory: The columns.
        views: What to gather; all with the same join keys.
        text_codes: Gives texts their codes; asked once for each distinct text.

    """

    def __init__(self, memory: Memory, views: Sequence[MatrixView], text_codes: TextCodes) -> None:
        self._memory = memory
        self._views = tuple(views)
        self._stored = tuple(view.stored for view in views)
        self._width = sum(len(view.features) for view in views)
        self._text_codes = text_codes
        self._layouts: list[_Layout | None] = [None] * len(self._views)

    def gather(self, keys: Sequence[Key], time_s: float) -> Gathered:
        """Return the numbers of n keys, (n, d) float32, as they stand at `time_s` in seconds since the epoch.

        A key is the join key's value, or a tuple in the order of the sorted join keys. An unknown key and an
        expired row give NaN. Raises what the backing store raises where rows have to be read from it.
        """
        return self._gather(self._memory.find(self._stored, keys), len(keys), time_s)

    def gather_known(self, known: KnownKeys, positions: NDArray[np.int64], time_s: float) -> Gathered | None:
        """Do what `gather` does for the keys at n positions: of the items of an index, say.

        Looking up hundreds of texts among a million costs more than all the rest. Returns `None` where not every row
        is in memory, so that `gather` must be asked.
        """
        found = self._memory.find_known(self._stored, known, positions)
        return None if found is None else self._gather(found, len(positions), time_s)

    def _gather(self, found_in: Sequence[tuple[Table, Slots]], count: int, time_s: float) -> Gathered:
        values = np.empty((count, self._width), np.float32)
        found = np.empty((count, len(self._views)), np.bool_)
        alive = np.empty((count, len(self._views)), np.bool_)
        now = round(time_s * _SECOND)
        first = 0
        for place, (table, slots) in enumerate(found_in):
            view = self._views[place]
            found[:, place] = alive[:, place] = there = slots >= FIRST
            if view.ttl != FOREVER:
                fresh = table.times[slots] >= now - view.ttl
                fresh &= there
                if (fresh != there).any():
                    slots = np.where(fresh, slots, ABSENT)  # noqa: PLW2901 - expired rows are absent from here on
                    alive[:, place] = fresh
            end = first + len(view.features)
            self._fill(values[:, first:end], place, table, slots, time_s)
            first = end
        return Gathered(values, found, alive)

    def _fill(self, out: NDArray[np.float32], place: int, table: Table, slots: Slots, time_s: float) -> None:
        blocks = self._memory.blocks_of(table)
        layout = self._layouts[place]
        if layout is None or layout.table is not table or layout.column_changes != table.column_changes:
            layout = self._layouts[place] = _layout(table, blocks, self._views[place].features)
        # Every slot exists, so that nothing is clipped; it spares numpy a check and a buffer.
        if layout.has_numbers:
            numbers = blocks.numbers.take(slots, axis=0, mode="clip")
            out[:, layout.to_numbers] = numbers if layout.numbers is None else numbers[:, layout.numbers]
        if layout.has_times:
            seconds = blocks.seconds.take(slots, axis=0, mode="clip")[:, layout.times]
            out[:, layout.to_times] = (time_s - seconds) / _DAY_S
        for text in layout.texts:
            out[:, text.position] = text.numbers(self._text_codes, slots)
        for position in layout.nothing:
            out[:, position] = np.nan


@dataclass(frozen=True)
class _Layout:
    """Where a table keeps the features of a view."""

    table: Table
    column_changes: int
    has_numbers: bool
    numbers: NDArray[np.int64] | None
    """Their places in the block; `None` where all of it is wanted, as it is."""
    to_numbers: NDArray[np.int64] | slice
    has_times: bool
    times: NDArray[np.int64]
    to_times: NDArray[np.int64] | slice
    texts: tuple[_Texts, ...]
    nothing: tuple[int, ...]
    """Features whose column holds no numbers: the store has another type than the view declares."""


class _Texts:
    """A text feature: the code of each of the column's distinct texts, and after them NaN for no text."""

    def __init__(self, feature: str, position: int, column: TextColumn) -> None:
        self.position = position
        self._feature = feature
        self._column = column
        self._codes = np.full(1, np.nan, np.float32)

    def numbers(self, text_codes: TextCodes, slots: Slots) -> NDArray[np.float32]:
        """Return the code of each row's text, (n,)."""
        places = self._column.codes[slots]  # -1, the last, where there is none
        codes, texts = self._codes, self._column.texts
        if len(texts) >= len(codes):
            fresh = [text or None for text in texts[len(codes) - 1 :]]
            codes = np.concatenate(
                (codes[:-1], text_codes(self._feature, fresh), np.full(1, np.nan, np.float32))
            )
            self._codes = codes
        found: NDArray[np.float32] = codes[places]
        return found


def _layout(table: Table, blocks: Blocks, features: Sequence[str]) -> _Layout:
    changes = table.column_changes
    numbers = {
        at: blocks.number_places[name] for at, name in enumerate(features) if name in blocks.number_places
    }
    times = {
        at: blocks.second_places[name] for at, name in enumerate(features) if name in blocks.second_places
    }
    texts = []
    for position, name in enumerate(features):
        column = table.columns.get(name)
        if isinstance(column, TextColumn):
            texts.append(_Texts(name, position, column))
    others = set(range(len(features))) - numbers.keys() - times.keys() - {text.position for text in texts}
    from_numbers = np.array(list(numbers.values()), np.int64)
    as_it_is = np.array_equal(from_numbers, np.arange(len(blocks.number_places)))
    return _Layout(
        table,
        changes,
        bool(numbers),
        None if as_it_is else from_numbers,
        _positions(list(numbers)),
        bool(times),
        np.array(list(times.values()), np.int64),
        _positions(list(times)),
        tuple(texts),
        tuple(sorted(others)),
    )


def _positions(positions: list[int]) -> NDArray[np.int64] | slice:
    """Return a slice where one will do: it is copied to in one piece."""
    if positions and positions == list(range(positions[0], positions[-1] + 1)):
        return slice(positions[0], positions[-1] + 1)
    return np.array(positions, np.int64)
