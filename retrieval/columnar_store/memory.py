"""The columns of all views that were asked for: loaded on demand, kept fresh, kept within a limit."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.columnar_store.columns import COLD, Slots
from explorank.retrieval.columnar_store.keys import EntityKeys, Key
from explorank.retrieval.columnar_store.passes import KeyPass, PagePass, Pass, TimePass
from explorank.retrieval.columnar_store.sources.source import Source, StoredRows, StoredView, SweptSource
from explorank.retrieval.columnar_store.table import Blocks, KeySpace, Table

_log = logging.getLogger(__name__)

_LOAD_AT_ONCE_S: Final = 0.5  # what a first request waits for a view to load; the rest is loaded behind it
# A request meets the background at each of its many steps outside the interpreter's lock, and waits there until the
# background lets go: so it works in short steps, and stands back for longer than a request takes.
_STEP_S: Final = 0.005
_LOADING_PAUSE_S: Final = 0.001
_LOADING_PAUSE_BESIDE_READERS_S: Final = 0.01
_SWEEPING_PAUSE_S: Final = 0.02  # a fifth of a core
_KEYS_AT_ONCE: Final = 2_000
_LOOKS_PER_BOUND: Final = 4  # how often the backing store is asked within the freshness bound
_ROOM: Final = 0.5  # of the entities stay when the limit is passed

KeysAt: TypeAlias = Callable[[NDArray[np.int64]], Sequence[Key]]


@dataclass(frozen=True, slots=True)
class ViewReport:
    """What is in memory of one view."""

    rows: int
    nbytes: int
    complete: bool
    """Whether all rows are in memory, rather than those that were asked for."""


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What is in memory, and how fresh it is."""

    views: dict[str, ViewReport]
    nbytes: int
    limit_nbytes: int
    age_s: float
    """For how long the backing store has not been asked for changes."""
    loading: tuple[str, ...]
    """Views that are being loaded or swept."""


class KnownKeys:
    """Keys that are asked for by their position, and the number that each has in a key space; `Memory.know` makes them.

    Each is looked up once, in the background or when it is first asked for; its number stays until the space is made
    anew. A million of them take 4 MB.
    """

    def __init__(self, keys: EntityKeys, count: int, keys_at: KeysAt) -> None:
        self._keys = keys
        self._count = count
        self._keys_at = keys_at
        self._state: tuple[KeySpace, NDArray[np.int32]] | None = None
        self._looked_up = 0

    def ids(self, space: KeySpace, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the id of the key at each of m positions, 0 for an unknown one."""
        known = self._numbers(space)
        ids = known[positions].astype(np.int64)
        if not ids.all():
            # One that is not there yet may be written at any time, so that it is looked up again and again.
            unknown = np.flatnonzero(ids == 0)
            ids[unknown] = space.lookup(self._keys_at(positions[unknown]))
            known[positions[unknown]] = ids[unknown]
        return ids

    def look_up_some(self, spaces: Mapping[EntityKeys, KeySpace]) -> bool:
        """Look a few keys up before they are asked for; return whether there are more."""
        space = spaces.get(self._keys)
        if space is None or not all(table.complete for table in space.tables.values()):
            return False  # numbers are still to come, and requests ask for keys meanwhile
        known = self._numbers(space)
        positions = np.arange(self._looked_up, min(self._looked_up + _KEYS_AT_ONCE, self._count))
        if len(positions):
            known[positions] = space.lookup(self._keys_at(positions))
            self._looked_up += len(positions)
        return self._looked_up < self._count

    def _numbers(self, space: KeySpace) -> NDArray[np.int32]:
        state = self._state
        if state is None or state[0] is not space:
            self._looked_up = 0
            state = self._state = (space, np.zeros(self._count, np.int32))
        return state[1]


class Memory:
    """Rows of a backing store as columns.

    Reads take no lock where all that is asked for is in memory. Everything that changes the columns, and every
    use of the source, happens under one lock.

    Args:
        source: Where rows come from.
        freshness_s: How old an answer may be, beside the time it takes to read what changed.
        sweep_s: How often everything is read again where the source can't notice all writers.
        limit_nbytes: How many bytes the columns may take; beyond them what was not asked for lately is dropped.

    """

    def __init__(self, source: Source, *, freshness_s: float, sweep_s: float, limit_nbytes: int) -> None:
        self.source = source
        self.limit_nbytes = limit_nbytes
        self._freshness_s = freshness_s
        self._sweep_s = sweep_s
        self._lock = threading.RLock()
        self._spaces: dict[EntityKeys, KeySpace] = {}
        self._views: dict[str, StoredView] = {}
        self._passes: dict[str, Pass] = {}
        self._pending: dict[bytes, None] = {}
        self._known: weakref.WeakSet[KnownKeys] = weakref.WeakSet()
        self._reads = self._reads_before = 0
        self._looked = -np.inf
        self._next_look = -np.inf
        self._next_sweep = np.inf
        self._failing = False
        self._follower: _Follower | None = None
        _MEMORIES.add(self)
        # Not at the end of the process: connections end with it.
        weakref.finalize(self, source.close).atexit = False

    def find(self, views: Sequence[StoredView], keys: Sequence[Key]) -> list[tuple[Table, Slots]]:
        """Return for each view its table and the slot of each of n keys.

        All views have the same join keys. Raises what the backing store raises where rows have to be read.
        """
        self._keep_fresh()
        self._reads += 1
        space, tables = self._tables(views)
        ids = space.lookup(keys)
        found = [(table, table.slot_of[ids]) for table in tables]
        if all(table.complete for table in tables):
            return found
        if any(not table.complete and (slots == COLD).any() for table, slots in found):
            with self._lock:
                space = self._load_rows(views, keys)
                ids = space.lookup(keys)
                found = [(table, table.slot_of[ids]) for table in (space.tables[view.name] for view in views)]
        space.touch(ids, self._reads)
        return found

    def know(self, keys: EntityKeys, count: int, keys_at: KeysAt) -> KnownKeys:
        """Return `count` keys that `find_known` finds by their position, without looking each of them up again.

        `keys_at` returns the key at each of m positions, `None` where none can be.
        """
        known = KnownKeys(keys, count, keys_at)
        with self._lock:
            self._known.add(known)
        return known

    def find_known(
        self, views: Sequence[StoredView], known: KnownKeys, positions: NDArray[np.int64]
    ) -> list[tuple[Table, Slots]] | None:
        """Do what `find` does, for the known keys at n positions; `None` where not every row is in memory."""
        self._keep_fresh()
        self._reads += 1
        space, tables = self._tables(views)
        if not all(table.complete for table in tables):
            return None
        ids = known.ids(space, positions)
        return [(table, table.slot_of[ids]) for table in tables]

    def blocks_of(self, table: Table) -> Blocks:
        """Return a table's numeric columns; no row is written while they are put side by side."""
        if table.has_blocks:
            return table.blocks()
        with self._lock:
            return table.blocks()

    def is_warm(self, views: Sequence[StoredView], keys: Sequence[Key]) -> bool:
        """Return whether `find` would answer without asking the backing store."""
        space = self._spaces.get(views[0].keys)
        if space is None or time.monotonic() > self._looked + self._freshness_s:
            return False
        ids = space.lookup(keys)
        tables = [space.tables.get(view.name) for view in views]
        return all(
            table is not None and (table.complete or not (table.slot_of[ids] == COLD).any())
            for table in tables
        )

    def whole(self, view: StoredView) -> tuple[KeySpace, Table]:
        """Return a view with all rows of the backing store, as far as it can list them."""
        self._keep_fresh()
        with self._lock:
            space, [table] = self._tables((view,))
            while not table.complete and view.name in self._passes:
                self._run_passes(until=time.monotonic() + _LOAD_AT_ONCE_S, names=(view.name,))
                space, [table] = self._tables((view,))
            return space, table

    @contextlib.contextmanager
    def using_source(self) -> Iterator[None]:
        """Keep the source for the caller alone."""
        with self._lock:
            yield

    def prepare(self, views: Sequence[StoredView]) -> None:
        """Set up the notice of changes to views that were applied."""
        with self._lock:
            self.source.prepare(views)

    def wrote(self, view: StoredView) -> None:
        """Take up rows of a view that this process has just written."""
        if not self._spaces:
            return
        try:
            self.catch_up()
        except Exception as error:
            # The rows are written, and nothing older may be read from here on.
            _log.warning("Rows that were written can't be read yet, their view is read anew: %s", error)
            self.forget((view.name,))

    def dropped(self, views: Iterable[str]) -> None:
        """Forget views that were deleted, and tell others."""
        with self._lock:
            names = tuple(views)
            self.source.dropped(names)
            self.forget(names)

    def forget(self, views: Iterable[str]) -> None:
        """Forget views; they are loaded again when they are asked for."""
        with self._lock:
            for name in views:
                self._passes.pop(name, None)
                for space in self._spaces.values():
                    space.tables.pop(name, None)

    def catch_up(self) -> None:
        """Take up everything that was committed before this call, by any writer that can be noticed."""
        with self._lock:
            began = time.monotonic()
            changes = self.source.changes()
            if changes.everything:
                self._spaces = {}
                self._passes.clear()
                self._pending.clear()
            self.forget(changes.views)
            self._pending.update(dict.fromkeys(changes.keys))
        while self._pending:
            with self._lock:  # let go between the steps: requests may need it
                keys = list(self._pending)[:_KEYS_AT_ONCE]
                self._read_again(keys)
                for key in keys:
                    self._pending.pop(key, None)
        self._looked = max(self._looked, began)
        self._next_look = began + self._freshness_s / _LOOKS_PER_BOUND

    def space_of(self, view: StoredView) -> KeySpace | None:
        """Return the entities that a view's rows are kept by, as they are numbered now."""
        return self._spaces.get(view.keys)

    def report(self) -> MemoryReport:
        """Return what is in memory."""
        with self._lock:
            views = {
                name: ViewReport(table.rows, table.nbytes, table.complete)
                for space in self._spaces.values()
                for name, table in space.tables.items()
            }
            return MemoryReport(
                views,
                self._nbytes(),
                self.limit_nbytes,
                time.monotonic() - self._looked if self._spaces else 0.0,
                tuple(self._passes),
            )

    def close(self) -> None:
        """Stop following and forget everything; the next request begins anew."""
        with self._lock:
            if self._follower is not None:
                self._follower.stop()
                self._follower = None
            self._spaces = {}
            self._passes.clear()
            self._pending.clear()
            self.source.close()

    # ---- loading ----------------------------------------------------------------------------------------

    def _tables(self, views: Sequence[StoredView]) -> tuple[KeySpace, list[Table]]:
        space = self._spaces.get(views[0].keys)
        if space is not None:
            tables = [space.tables.get(view.name) for view in views]
            if all(
                table is not None and table.holds(view.features)
                for table, view in zip(tables, views, strict=True)
            ):
                return space, tables  # type: ignore[return-value]  # none is None
        with self._lock:
            for view in views:
                self._open(view)
            space = self._spaces[views[0].keys]
            return space, [space.tables[view.name] for view in views]

    def _open(self, view: StoredView) -> None:
        space = self._spaces.get(view.keys)
        table = None if space is None else space.tables.get(view.name)
        if table is not None and table.holds(view.features):
            return
        if table is not None:
            # Another definition of the view. Readers of an earlier one may still ask for what it had.
            features = {**table.features, **view.features}
            view = StoredView(view.name, view.view, features, view.keys)
        self.forget((view.name,))
        if not self._spaces:
            self.catch_up()  # from here on changes are known
        self.source.follow(view)
        space = self._spaces.setdefault(view.keys, KeySpace(view.keys))
        space.tables[view.name] = Table(view.features, len(space))
        self._views[view.name] = view
        if self.source.sweeps:
            self._next_sweep = min(self._next_sweep, time.monotonic() + self._sweep_s)
        if self.source.pages():
            self._passes[view.name] = PagePass(self, view)
            try:
                self._run_passes(until=time.monotonic() + _LOAD_AT_ONCE_S, names=(view.name,))
            except Exception:
                self.forget((view.name,))
                raise

    def _load_rows(self, views: Sequence[StoredView], keys: Sequence[Key]) -> KeySpace:
        space, tables = self._tables(views)
        ids = space.add(keys)
        space.touch(ids, self._reads)
        for view, table in zip(views, tables, strict=True):
            cold = np.unique(ids[table.slot_of[ids] == COLD])
            for first in range(0, len(cold), _KEYS_AT_ONCE):
                self.read_ids(space, view, cold[first : first + _KEYS_AT_ONCE])
        self.keep_within_limit(keep=len(set(ids.tolist())))
        return self._spaces[views[0].keys]

    def read_ids(self, space: KeySpace, view: StoredView, ids: NDArray[np.int64]) -> None:
        """Take up the rows of these entities as the backing store has them now; the lock is held."""
        positions = ids.tolist()
        stored = [space.keys.serialize(space.natives[position]) for position in positions]
        rows = self.source.read(view, [key for key in stored if key is not None])
        self.put(space, view, rows)
        found = set(rows.keys)
        gone = [position for position, key in zip(positions, stored, strict=True) if key not in found]
        space.tables[view.name].forget(np.array(gone, np.int64))

    def put(
        self, space: KeySpace, view: StoredView, rows: StoredRows, *, newer_only: bool = False
    ) -> NDArray[np.int64]:
        """Take up n rows, or those of them whose time differs from what is there; the lock is held.

        Returns the id (n,) of each.
        """
        natives = [space.keys.parse(key) for key in rows.keys]
        ids = space.add(natives)
        table = space.tables[view.name]
        times, cells = rows.times, rows.cells
        if newer_only:
            chosen = np.flatnonzero(table.differing(ids, times))
            positions = chosen.tolist()
            cells = {name: [column[row] for row in positions] for name, column in cells.items()}
            table.put(ids[chosen], times[chosen], cells)
        else:
            table.put(ids, times, cells)
        if table.wasteful:
            space.pack(view.name)
        return ids

    def _read_again(self, keys: Sequence[bytes]) -> None:
        for space in list(self._spaces.values()):
            natives = [space.keys.parse(key) for key in keys]
            own = [native for native in natives if native is not None]
            if not own:
                continue
            for name, table in list(space.tables.items()):
                if table.complete or name in self._passes:
                    ids = np.unique(space.add(own))
                else:
                    ids = np.unique(space.lookup(own))
                    ids = ids[(ids > 0) & (table.slot_of[ids] != COLD)]
                if len(ids):
                    self.read_ids(space, self._views[name], ids)
        self.keep_within_limit(keep=0)

    def keep_within_limit(self, *, keep: int) -> None:
        """Drop what was not asked for lately where there is too much, but not the last `keep`; the lock is held."""
        while self._nbytes() > self.limit_nbytes:
            keys, space = max(self._spaces.items(), key=lambda item: item[1].nbytes)
            wanted = max(keep, int(_ROOM * (len(space) - 1)))
            if wanted >= len(space) - 1:
                return
            for name in space.tables:
                self._passes.pop(name, None)  # what is loaded from now on is loaded because it is asked for
            self._spaces[keys] = space.reduced(wanted)

    def _nbytes(self) -> int:
        return sum(space.nbytes for space in self._spaces.values())

    # ---- keeping fresh ----------------------------------------------------------------------------------

    def _keep_fresh(self) -> None:
        if self._follower is None:
            with self._lock:
                if self._follower is None:
                    self._follower = _Follower(self, self._freshness_s / _LOOKS_PER_BOUND)
        now = time.monotonic()
        # The follower is late: it has been starved, or its last try failed.
        if (
            now > self._looked + self._freshness_s
            and now > self._next_look
            and self._spaces
            and self._lock.acquire(blocking=False)
        ):
            try:
                self._look()
            finally:
                self._lock.release()

    def _look(self) -> None:
        try:
            self.catch_up()
            self._failing = False
        except Exception as error:
            # Whatever the backing store raises: what is in memory can still be served.
            if not self._failing:
                _log.warning("The online store can't be asked for changes, answers may be old: %s", error)
            self._failing = True
            self._looked = -np.inf
            self._next_look = time.monotonic() + self._freshness_s

    def begin_anew(self) -> None:
        """Leave to the parent of this process, which was just forked, what is its own: connections, thread, rows."""
        # Its thread may have held the lock at the fork, and will never let go of it here.
        self._lock = threading.RLock()
        self._follower = None
        self.source.abandon()
        self._spaces, self._passes, self._pending = {}, {}, {}

    def round(self) -> float | None:
        """Look for changes if it is time, load a little; return when to go on, in seconds, if there is more."""
        if not self._spaces:
            return None
        now = time.monotonic()
        if now >= self._next_look:
            self._look()
        with self._lock:
            if now >= self._next_sweep:
                self._next_sweep = now + self._sweep_s
                for space in self._spaces.values():
                    for name in space.tables:
                        if name not in self._passes:
                            self._passes[name] = self._sweep(name, space)
            try:
                self._run_passes(until=time.monotonic() + _STEP_S, names=tuple(self._passes))
            except Exception as error:
                _log.warning("The online store can't be read, views stay as they are: %s", error)
                self._passes.clear()
            unknown = any(known.look_up_some(self._spaces) for known in self._known)
            if not self._passes:
                return self._pause_while_loading() if unknown else None
            tables = [table for space in self._spaces.values() for table in space.tables.items()]
            loading = any(name in self._passes and not table.complete for name, table in tables)
            # What is read again can wait; what is not there yet can't, unless somebody is served meanwhile.
            return self._pause_while_loading() if loading or unknown else _SWEEPING_PAUSE_S

    def _pause_while_loading(self) -> float:
        reads, self._reads_before = self._reads - self._reads_before, self._reads
        return _LOADING_PAUSE_BESIDE_READERS_S if reads else _LOADING_PAUSE_S

    def _sweep(self, name: str, space: KeySpace) -> Pass:
        view = self._views[name]
        table = space.tables[name]
        if table.complete and self.source.pages() and isinstance(self.source, SweptSource):
            return TimePass(self, self.source, view, space)
        return KeyPass(self, view, np.flatnonzero(table.slot_of[: len(space)] != COLD))

    def _run_passes(self, *, until: float, names: tuple[str, ...]) -> None:
        for name in names:
            running = self._passes.get(name)
            while running is not None and self._passes.get(name) is running:
                if running.step():
                    self._passes.pop(name, None)
                if time.monotonic() > until:
                    return


class _Follower:
    """A thread that keeps a memory fresh for as long as there is one."""

    def __init__(self, memory: Memory, interval_s: float) -> None:
        self._memory = weakref.ref(memory)
        self._interval_s = interval_s
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="explorank-columns", daemon=True).start()

    def stop(self) -> None:
        """End the thread at its next turn."""
        self._stopped.set()

    def _run(self) -> None:
        pause: float | None = None
        while not self._stopped.wait(self._interval_s if pause is None else min(pause, self._interval_s)):
            memory = self._memory()
            if memory is None:
                return
            pause = memory.round()
            del memory


_MEMORIES: Final[weakref.WeakSet[Memory]] = weakref.WeakSet()


def _begin_anew() -> None:
    for memory in list(_MEMORIES):
        memory.begin_anew()


if hasattr(os, "register_at_fork"):  # absent where processes cannot fork
    os.register_at_fork(after_in_child=_begin_anew)
