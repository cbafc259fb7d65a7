"""Walks through the rows of one view in the backing store, in steps that leave room for requests between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.columnar_store.columns import ABSENT, COLD, FIRST
from explorank.retrieval.columnar_store.sources.source import StoredView, SweptSource
from explorank.retrieval.columnar_store.table import Ids, KeySpace

if TYPE_CHECKING:
    from explorank.retrieval.columnar_store.memory import Memory

_KEYS_PER_STEP: Final = 200


class Pass(Protocol):
    """A walk; the memory's lock is held meanwhile."""

    def step(self) -> bool:
        """Go a little further; return whether it is done."""


class PagePass:
    """Reads all rows of a view; afterwards the table is complete."""

    def __init__(self, memory: Memory, view: StoredView) -> None:
        self._memory = memory
        self._view = view
        self._after: Any = None
        self._met: list[Ids] = []

    def step(self) -> bool:
        """Read a page."""
        memory, view = self._memory, self._view
        space = memory.space_of(view)
        assert space is not None  # noqa: S101 - a space that is dropped takes its passes with it
        page = memory.source.page(view, self._after)
        if page is not None:
            rows, self._after = page
            self._met.append(memory.put(space, view, rows, newer_only=True).astype(np.int32))
            memory.keep_within_limit(keep=0)
            return False
        _read_unmet(memory, space, view, self._met)
        table = space.tables[view.name]
        table.slot_of[table.slot_of == COLD] = ABSENT
        space.index_texts()
        table.complete = True
        return True


class TimePass:
    """Looks at the event times of a complete view, and reads the rows whose time is another than the one known.

    Pages that are as the last walk left them are not even listed, so that a view in which nothing changes costs next to
    nothing, however large it is.
    """

    def __init__(self, memory: Memory, source: SweptSource, view: StoredView, space: KeySpace) -> None:
        self._memory = memory
        self._source = source
        self._view = view
        self._space = space
        self._table = space.tables[view.name]
        self._after: Any = None
        self._met: dict[Any, tuple[bytes, Ids]] = {}

    def step(self) -> bool:
        """Look at a page."""
        if (
            self._memory.space_of(self._view) is not self._space
        ):  # renumbered meanwhile: the next sweep will do
            return True
        begins = self._after
        mark, ids = self._table.pages.get(begins, (b"", np.zeros(0, np.int32)))
        page = self._source.page_times(self._view, begins, mark)
        if page is None:
            _read_unmet(self._memory, self._space, self._view, [ids for _, ids in self._met.values()])
            self._table.pages = self._met
            return True
        if page.keys is not None:
            ids = self._compare(page.keys, page.times)
        self._met[begins] = page.mark, ids
        self._after = page.after
        return False

    def _compare(self, keys: list[bytes], times: NDArray[np.int64]) -> Ids:
        """Read those of n rows whose time differs from the one in memory; return the entities of all of them."""
        ids = self._space.add([self._space.keys.parse(key) for key in keys])
        differing = self._space.tables[self._view.name].differing(ids, times)
        _read(self._memory, self._space, self._view, ids[differing])
        return ids.astype(np.int32)


class KeyPass:
    """Reads the known rows of a view again."""

    def __init__(self, memory: Memory, view: StoredView, ids: NDArray[np.int64]) -> None:
        self._memory = memory
        self._view = view
        self._space = memory.space_of(view)
        self._ids = ids

    def step(self) -> bool:
        """Read some of them."""
        ids, self._ids = self._ids[:_KEYS_PER_STEP], self._ids[_KEYS_PER_STEP:]
        if self._space is None or self._memory.space_of(self._view) is not self._space:  # as in `TimePass`
            return True
        self._memory.read_ids(self._space, self._view, ids)
        return not len(self._ids)


def _read_unmet(memory: Memory, space: KeySpace, view: StoredView, met: Iterable[Ids]) -> None:
    """Read rows again that no page held: they were deleted, or written behind the place where the walk was."""
    unmet = space.tables[view.name].slot_of[: len(space)] >= FIRST
    for ids in met:
        unmet[ids] = False
    _read(memory, space, view, np.flatnonzero(unmet))


def _read(memory: Memory, space: KeySpace, view: StoredView, ids: NDArray[np.int64]) -> None:
    for first in range(0, len(ids), _KEYS_PER_STEP):
        memory.read_ids(space, view, ids[first : first + _KEYS_PER_STEP])
