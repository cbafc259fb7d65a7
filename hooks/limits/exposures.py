"""The ledger of what each visitor met by exploration; caps, repeats and rejections are checked against it.

Two kinds of entries. What a limit stands on is exact: spent slots, kept decisions and rejections are in the
file, for every process to see, when the call returns. What merely steers exploration is gathered in memory
and written by `refresh`, once a second: slots given back, items at rest, impressions. Its own process sees it
at once; a kill loses what was gathered since the last `refresh`, and slots not given back count as spent.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from explorank.hooks.errors import LogUnavailable
from explorank.hooks.feedback import _sqlite
from explorank.hooks.feedback._file_lock import FileLock
from explorank.hooks.limits.visitor import DAY_S, day_of
from explorank.hooks.types import Ids, IndexArray

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
"""Of the ledger's tables; it stands in the file and is checked when it is opened."""

# `until` is by the clock of the requests, which may replay historic data; `lapses` by the clock on the wall.
# A row is dropped when both have passed, so that no request from the future can clear a limit.
_SCHEMA: Final = (
    """CREATE TABLE spent (
        visitor BLOB NOT NULL, day INTEGER NOT NULL, slots INTEGER NOT NULL, until REAL NOT NULL,
        lapses REAL NOT NULL, PRIMARY KEY (visitor, day)) WITHOUT ROWID""",
    """CREATE TABLE kept (
        visitor BLOB NOT NULL, surface TEXT NOT NULL, slots INTEGER NOT NULL, question BLOB NOT NULL,
        decision_id TEXT NOT NULL, until REAL NOT NULL, lapses REAL NOT NULL,
        PRIMARY KEY (visitor, surface, slots, question)) WITHOUT ROWID""",
    """CREATE TABLE rejected (
        visitor BLOB NOT NULL, item_id TEXT NOT NULL, until REAL NOT NULL, lapses REAL NOT NULL,
        PRIMARY KEY (visitor, item_id)) WITHOUT ROWID""",
    """CREATE TABLE resting (
        visitor BLOB NOT NULL, item_id TEXT NOT NULL, until REAL NOT NULL, lapses REAL NOT NULL,
        PRIMARY KEY (visitor, item_id)) WITHOUT ROWID""",
    """CREATE TABLE repeats (
        decision_id TEXT PRIMARY KEY, original TEXT NOT NULL, until REAL NOT NULL, lapses REAL NOT NULL)
        WITHOUT ROWID""",
    "CREATE TABLE shown (item_id TEXT PRIMARY KEY, times INTEGER NOT NULL, revision INTEGER NOT NULL)",
    "CREATE INDEX shown_by_revision ON shown (revision)",
    "CREATE TABLE lost (day INTEGER)",
    "CREATE TABLE untold (what TEXT PRIMARY KEY) WITHOUT ROWID",
    "INSERT INTO untold VALUES ('rejections')",
    *(
        f"CREATE INDEX {table}_by_lapse ON {table} (lapses)"
        for table in ("spent", "kept", "rejected", "resting", "repeats")
    ),
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_KEYS: Final = {
    "spent": "visitor, day",
    "kept": "visitor, surface, slots, question",
    "rejected": "visitor, item_id",
    "resting": "visitor, item_id",
    "repeats": "decision_id",
}
_PERSONAL: Final = ("spent", "kept", "rejected", "resting")

# SQLite's own waiting for a lock sleeps for 1, 2, 5, 10, … ms; a reservation holds it for some 0.05 ms.
_PAUSE_S: Final = 0.0002
_HURRIED_S: Final = 1.0
_ROWS_AT_ONCE: Final = 250
_PRUNED_EVERY_S: Final = 10.0
_CHUNKS_PRUNED: Final = 40
_GATHERED_AT_MOST: Final = 200_000
_CHECKPOINT_EVERY: Final = 500  # writes
_WAL_PAGES_TO_RESTART: Final = 4_096  # 16 MiB
_WAL_PAGES_AT_MOST: Final = 65_536  # 256 MiB, where writers empty the WAL themselves if nobody else could

_COUNT: Final = (
    "INSERT INTO shown VALUES (?, ?, (SELECT ifnull(max(revision), 0) + 1 FROM shown)) ON CONFLICT (item_id)"
    " DO UPDATE SET times = times + excluded.times, revision = excluded.revision"
)
_REJECT: Final = (
    "INSERT INTO rejected VALUES (?, ?, ?, ?) ON CONFLICT (visitor, item_id) DO UPDATE SET"
    " until = max(until, excluded.until), lapses = max(lapses, excluded.lapses)"
)

_Lapsing: TypeAlias = tuple[float, float]  # until, lapses


@dataclass(frozen=True, slots=True)
class Kept:
    """A decision that a visitor gets again for a while."""

    surface: str
    slots: int
    question: bytes
    """What else was asked; another question gets a decision of its own."""
    decision_id: str
    until: float
    """In seconds since the Unix epoch, by the clock of the requests."""


class Exposures(Protocol):
    """What limits need to remember of visitors and items. `now` and `until` are the requests' clock.

    Methods that raise, raise `LogUnavailable`: whoever asked must then not explore.
    """

    def spend(
        self, visitor: bytes, now: float, wanted: int, cap: int | None, kept: Kept | None = None
    ) -> int:
        """Return how many of `wanted` slots may explore, and count them against the visitor's day.

        Over all threads and processes, the slots granted on one UTC day never exceed `cap`. Where any is
        granted, `kept` becomes the decision that the visitor gets again.
        """
        ...

    def give_back(self, visitor: bytes, now: float, slots: int) -> None:
        """Take back slots that were granted at `now` and did not explore; never raises."""
        ...

    def kept(self, visitor: bytes, surface: str, slots: int, question: bytes, now: float) -> str | None:
        """Return the id of the decision that the visitor gets again, or `None`."""
        ...

    def reject(self, visitor: bytes, item_id: str, now: float, for_s: float) -> None:
        """Hide an item from the visitor until `now + for_s`; never raises, and repeats are harmless."""
        ...

    def rejected(self, visitor: bytes, now: float) -> frozenset[str]:
        """Return the items that are hidden from the visitor."""
        ...

    def rest(self, visitor: bytes, item_ids: Iterable[str], now: float, for_s: float) -> None:
        """Keep items from being explored anew for the visitor until `now + for_s`; never raises."""
        ...

    def wake(self, visitor: bytes, item_id: str) -> None:
        """End an item's rest, as it earned something; never raises."""
        ...

    def resting(self, visitor: bytes, now: float) -> frozenset[str]:
        """Return the items that are not explored anew for the visitor."""
        ...

    def count_shown(self, item_ids: Iterable[str]) -> None:
        """Count that each item was shown once more; never raises."""
        ...

    def times_shown(self, item_ids: Ids) -> IndexArray:
        """Return how often each item was shown, (n,) int64; never raises."""
        ...

    def repeat(self, decision_id: str, original: str, now: float, for_s: float) -> None:
        """Remember that a request of this id was answered with the `original` decision; never raises."""
        ...

    def original(self, decision_id: str) -> str:
        """Return the decision that answered the request of this id: its own where it is not a repeat."""
        ...

    def forget(self, visitor: bytes) -> None:
        """Erase what is known of a visitor; raise `LogUnavailable` where that failed."""
        ...

    @property
    def lacks_rejections(self) -> bool:
        """Whether the ledger began anew and nobody has told it what was rejected before; never raises."""
        ...

    def knows_rejections(self) -> None:
        """Take note that it was told; raise `LogUnavailable` where that failed."""
        ...


@dataclass(frozen=True, slots=True)
class _File:
    """One opened database; replaced as a whole."""

    identity: tuple[int, int] | None
    size: int
    """In bytes, when it was opened; a ledger never shrinks."""
    reader: sqlite3.Connection
    writer: sqlite3.Connection

    def close(self) -> None:
        for connection in (self.reader, self.writer):
            with suppress(sqlite3.Error):
                connection.close()


class SqliteExposures:
    """The ledger in one SQLite file that all processes of a machine share (`Exposures`).

    A write takes the file's lock for some tens of microseconds; who finds it taken tries again every 0.2 ms,
    for at most `patience_s`. Where that was in vain, nobody waits for the next second: a lock that hangs costs
    one slow request a second. Commits survive the end of any process; a power cut may take the last ones.

    A damaged file is moved aside and a new one begun. What was spent on that day is unknown then, so nothing
    is granted until the UTC day after that of the first request that asks. Rejections wait to be told anew
    (`lacks_rejections`); kept decisions, rests and impressions begin anew. A file that somebody deletes begins
    anew without a day's wait: it was their decision.

    `counts_items` says whether the items' impressions are held in memory, about 100 bytes an item; beyond
    `items_at_most`, those that were shown last are kept. Nothing is opened before it is needed, and whatever
    fails is tried again with the next call. Safe to share between threads, not across a fork.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        counts_items: bool = False,
        items_at_most: int = 1_000_000,
        patience_s: float = 0.1,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self.trouble: str | None = None
        """Why the latest call failed; `None` while the ledger works."""
        self._counts_items = counts_items
        self._items_at_most = items_at_most
        self._patience_s = patience_s
        self._wall_clock = wall_clock
        self._pid = os.getpid()
        self._file: _File | None = None
        self._closed = False
        self._opening = threading.Lock()
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._writes = 0
        self._hurried_until = -math.inf  # by the monotonic clock
        self._latest = -math.inf  # the latest time that a request brought
        self._pruned_at = -math.inf
        self._gathering = threading.Lock()  # guards all that is gathered; held for moments only
        self._given_back: Counter[tuple[bytes, int]] = Counter()
        self._rejected: dict[bytes, dict[str, _Lapsing]] = {}
        self._resting: dict[bytes, dict[str, _Lapsing | None]] = {}
        self._repeats: dict[str, tuple[str, float, float]] = {}
        self._uncounted: Counter[str] = Counter()
        self._shown: dict[str, int] = {}
        self._revision = 0

    # ---- exact ------------------------------------------------------------------------------------

    def spend(
        self, visitor: bytes, now: float, wanted: int, cap: int | None, kept: Kept | None = None
    ) -> int:
        """Return how many of `wanted` slots may explore; see `Exposures`."""
        self._latest = max(self._latest, now)
        day = day_of(now)
        # Who has used it up needs no lock, however often they come back that day.
        if cap is not None and self._spent(visitor, day) >= cap:
            return 0
        with self._transaction() as connection:
            granted = wanted
            if cap is not None:
                self._require_known(connection, day)
                query = "SELECT slots FROM spent WHERE visitor = ? AND day = ?"
                row = connection.execute(query, (visitor, day)).fetchone()
                granted = min(wanted, max(cap - (int(row[0]) if row else 0), 0))
                if granted:
                    connection.execute(
                        "INSERT INTO spent VALUES (?, ?, ?, ?, ?) ON CONFLICT (visitor, day)"
                        " DO UPDATE SET slots = slots + excluded.slots, lapses = excluded.lapses",
                        (visitor, day, granted, (day + 1) * DAY_S, self._wall_clock() + DAY_S),
                    )
            if granted and kept is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        visitor,
                        kept.surface,
                        kept.slots,
                        kept.question,
                        kept.decision_id,
                        kept.until,
                        self._wall_clock() + max(kept.until - now, 0.0),
                    ),
                )
        return granted

    def kept(self, visitor: bytes, surface: str, slots: int, question: bytes, now: float) -> str | None:
        """Return the id of the decision that the visitor gets again, or `None`."""
        self._latest = max(self._latest, now)
        query = (
            "SELECT decision_id FROM kept"
            " WHERE visitor = ? AND surface = ? AND slots = ? AND question = ? AND until > ?"
        )
        rows = self._read(query, (visitor, surface, slots, question, now))
        return str(rows[0][0]) if rows else None

    def reject(self, visitor: bytes, item_id: str, now: float, for_s: float) -> None:
        """Hide an item from the visitor; what cannot be written now holds in this process and is tried again."""
        if not _storable([item_id]) or not math.isfinite(now):
            return
        lapsing = (now + for_s, self._wall_clock() + for_s)
        with self._gathering:
            self._rejected.setdefault(visitor, {})[item_id] = lapsing
            self._rejected = _bounded(self._rejected)
        with suppress(LogUnavailable):
            self._flush_rejected()

    def rejected(self, visitor: bytes, now: float) -> frozenset[str]:
        """Return the items that are hidden from the visitor."""
        self._latest = max(self._latest, now)
        # What was gathered is asked first: it is dropped only once the file has it.
        gathered = self._rejected.get(visitor)
        own = [] if gathered is None else [i for i, (until, _) in gathered.copy().items() if until > now]
        rows = self._read("SELECT item_id FROM rejected WHERE visitor = ? AND until > ?", (visitor, now))
        return frozenset((*own, *(row[0] for row in rows)))

    @property
    def lacks_rejections(self) -> bool:
        """Whether the file began anew and nobody has told it what was rejected before."""
        try:
            return bool(self._read("SELECT count(*) FROM untold", ())[0][0])
        except LogUnavailable:
            return False

    def knows_rejections(self) -> None:
        """Take note that it was told what was rejected before."""
        self._flush_rejected()
        with self._transaction() as connection:
            connection.execute("DELETE FROM untold")

    def forget(self, visitor: bytes) -> None:
        """Erase what is known of a visitor, gathered entries included."""
        with self._gathering:
            self._rejected.pop(visitor, None)
            self._resting.pop(visitor, None)
            self._given_back = Counter(
                {key: slots for key, slots in self._given_back.items() if key[0] != visitor}
            )
        with self._transaction() as connection:
            for table in _PERSONAL:
                connection.execute(f"DELETE FROM {table} WHERE visitor = ?", (visitor,))  # noqa: S608 - constants

    # ---- gathered ---------------------------------------------------------------------------------

    def give_back(self, visitor: bytes, now: float, slots: int) -> None:
        """Take back slots that did not explore; they may be spent again after the next `refresh`."""
        with self._gathering:
            self._given_back[visitor, day_of(now)] += slots

    def rest(self, visitor: bytes, item_ids: Iterable[str], now: float, for_s: float) -> None:
        """Keep items from being explored anew for the visitor."""
        lapsing = (now + for_s, self._wall_clock() + for_s)
        with self._gathering:
            self._resting.setdefault(visitor, {}).update(zip(_storable(item_ids), repeat(lapsing)))
            self._resting = _bounded(self._resting)

    def wake(self, visitor: bytes, item_id: str) -> None:
        """End an item's rest."""
        with self._gathering:
            self._resting.setdefault(visitor, {}).update(zip(_storable([item_id]), repeat(None)))

    def resting(self, visitor: bytes, now: float) -> frozenset[str]:
        """Return the items that are not explored anew for the visitor."""
        self._latest = max(self._latest, now)
        gathered = self._resting.get(visitor)
        own = {} if gathered is None else gathered.copy()
        rows = self._read("SELECT item_id FROM resting WHERE visitor = ? AND until > ?", (visitor, now))
        resting = {row[0] for row in rows if own.get(row[0], now) is not None}
        return frozenset(resting.union(i for i, mark in own.items() if mark is not None and mark[0] > now))

    def count_shown(self, item_ids: Iterable[str]) -> None:
        """Count that each item was shown once more; other processes see it after two `refresh`es."""
        if not self._counts_items:
            return
        with self._gathering:
            items = _storable(item_ids)
            self._uncounted.update(items)
            self._shown.update((item, self._shown.get(item, 0) + 1) for item in items)

    def times_shown(self, item_ids: Ids) -> IndexArray:
        """Return how often each item was shown, (n,) int64; ids that are not text count by their text."""
        texts = item_ids if item_ids.dtype.kind == "U" else item_ids.astype(str)
        counts = map(self._shown.get, texts.tolist(), repeat(0))
        return np.fromiter(counts, np.int64, count=len(texts))

    def repeat(self, decision_id: str, original: str, now: float, for_s: float) -> None:
        """Remember that a request of this id was answered with the `original` decision."""
        if not _storable([decision_id]):
            return
        with self._gathering:
            self._repeats[decision_id] = (original, now + for_s, self._wall_clock() + for_s)
            self._repeats = _bounded(self._repeats)

    def original(self, decision_id: str) -> str:
        """Return the decision that answered the request of this id: its own where it is not a repeat."""
        if (gathered := self._repeats.get(decision_id)) is not None:
            return gathered[0]
        rows = self._read("SELECT original FROM repeats WHERE decision_id = ?", (decision_id,))
        return str(rows[0][0]) if rows else decision_id

    # ---- running it -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Write what was gathered, read what others counted, drop what has passed; never raises.

        Called about once a second, on another thread than the requests'.
        """
        try:
            self._flush()
            if self._counts_items:
                self._read_counts()
            self._prune()
            self._checkpoint()
        except LogUnavailable as error:
            logger.debug("the ledger is refreshed later: %s", error)
        except Exception:
            # Whatever it is, the thread that calls this goes on, and the next call tries again.
            logger.exception("%s could not be refreshed", self.path)

    def close(self) -> None:
        """Write what was gathered and close the file."""
        with suppress(LogUnavailable):
            self._flush()
        with self._opening, self._reading, self._writing:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    def _flush(self) -> None:
        self._flush_rejected()
        with self._gathering:
            given_back = [(slots, *key) for key, slots in self._given_back.items()]
            marks = [
                (visitor, item, mark) for visitor, own in self._resting.items() for item, mark in own.items()
            ]
            repeats = [(decision_id, *entry) for decision_id, entry in self._repeats.items()]
            uncounted = list(self._uncounted.items())
        for rows in self._written(
            "UPDATE spent SET slots = max(slots - ?, 0) WHERE visitor = ? AND day = ?", given_back
        ):
            with self._gathering:
                self._given_back.subtract({(visitor, day): slots for slots, visitor, day in rows})
                self._given_back = +self._given_back
        for statement, chosen in (
            (
                "INSERT OR REPLACE INTO resting VALUES (?, ?, ?, ?)",
                [(v, i, *m) for v, i, m in marks if m is not None],
            ),
            (
                "DELETE FROM resting WHERE visitor = ? AND item_id = ?",
                [(v, i) for v, i, m in marks if m is None],
            ),
        ):
            for rows in self._written(statement, chosen):
                with self._gathering:
                    for visitor, item, *mark in rows:
                        _discard(self._resting, visitor, item, tuple(mark) or None)
        for rows in self._written("INSERT OR REPLACE INTO repeats VALUES (?, ?, ?, ?)", repeats):
            with self._gathering:
                for decision_id, *_ in rows:
                    self._repeats.pop(decision_id, None)
        for rows in self._written(_COUNT, uncounted):
            with self._gathering:
                self._uncounted.subtract(dict(rows))
                self._uncounted = +self._uncounted

    def _flush_rejected(self) -> None:
        with self._gathering:
            gathered = [
                (visitor, item, *lapsing)
                for visitor, own in self._rejected.items()
                for item, lapsing in own.items()
            ]
        for rows in self._written(_REJECT, gathered):
            with self._gathering:
                for visitor, item, *lapsing in rows:
                    _discard(self._rejected, visitor, item, tuple(lapsing))

    def _written(
        self, statement: str, rows: Sequence[tuple[Any, ...]]
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Write the rows, a few in each transaction, and yield those that were: nobody waits long for the lock.

        What was gathered is dropped only then, so that a reader finds an entry in one place or in the other.
        """
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            with self._transaction() as connection:
                connection.executemany(statement, some)
            yield some

    def _read_counts(self) -> None:
        query = "SELECT item_id, times, revision FROM shown WHERE revision > ?"
        for item, times, revision in self._read(query, (self._revision,)):
            with self._gathering:
                self._shown[item] = times + self._uncounted.get(item, 0)
            self._revision = max(self._revision, revision)
        if len(self._shown) > 1.1 * self._items_at_most:
            query = "SELECT item_id, times FROM shown ORDER BY revision DESC LIMIT ?"
            newest = dict(self._read(query, (self._items_at_most,)))
            with self._gathering:
                self._shown = {i: newest.get(i, 0) + times for i, times in self._uncounted.items()} | newest

    def _prune(self) -> None:
        wall = self._wall_clock()
        if wall < self._pruned_at + _PRUNED_EVERY_S:
            return
        self._pruned_at = wall
        for table, key in _KEYS.items():
            passed = f"SELECT {key} FROM {table} WHERE lapses < ? AND until < ? LIMIT ?"  # noqa: S608 - constants
            self._drop(table, key, passed, (wall, self._latest, _ROWS_AT_ONCE))
        if self._counts_items:
            beyond = "SELECT item_id FROM shown ORDER BY revision DESC LIMIT ? OFFSET ?"
            self._drop("shown", "item_id", beyond, (_ROWS_AT_ONCE, self._items_at_most))

    def _drop(self, table: str, key: str, chosen: str, parameters: Sequence[object]) -> None:
        for _ in range(_CHUNKS_PRUNED):
            if not self._read(f"SELECT EXISTS ({chosen})", parameters)[0][0]:
                return
            with self._transaction() as connection:
                connection.execute(f"DELETE FROM {table} WHERE ({key}) IN ({chosen})", parameters)  # noqa: S608 - constants

    def _checkpoint(self) -> None:
        if self._writes < _CHECKPOINT_EVERY:
            return
        self._writes = 0
        # Here rather than in a writer, whom its fsyncs would hold up for milliseconds.
        with suppress(sqlite3.Error):
            _sqlite.checkpoint(self.path, restart_beyond_pages=_WAL_PAGES_TO_RESTART)

    # ---- the file ---------------------------------------------------------------------------------

    def _spent(self, visitor: bytes, day: int) -> int:
        rows = self._read("SELECT slots FROM spent WHERE visitor = ? AND day = ?", (visitor, day))
        return int(rows[0][0]) if rows else 0

    def _require_known(self, connection: sqlite3.Connection, day: int) -> None:
        """Raise where a damaged file took the count of this day with it."""
        row = connection.execute("SELECT day FROM lost").fetchone()
        if row is None:
            return
        unknown = day if row[0] is None else int(row[0])
        if row[0] is None:
            connection.execute("UPDATE lost SET day = ?", (day,))
            connection.execute("COMMIT")  # what is raised below must not take it back
            connection.execute("BEGIN IMMEDIATE")
        if day <= unknown:
            raise LogUnavailable(
                f"{self.path} took the place of a damaged file, so that what visitors met today is unknown "
                "and a cap cannot be checked. Exploration goes on with the next UTC day; to go on now, delete "
                "the file while nothing runs."
            )

    def _read(self, query: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        # Several times a request: no context managers, which cost more than the query.
        opened: _File | None = None
        try:
            opened = self._ready()
            self._acquire(self._reading)
            try:
                rows = opened.reader.execute(query, parameters).fetchall()
            finally:
                self._reading.release()
        except LogUnavailable as error:
            self.trouble = str(error)
            raise
        except (sqlite3.Error, OSError) as error:
            raise self._told(opened, error) from error
        self.trouble = None
        return rows

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        opened: _File | None = None
        try:
            opened = self._ready()
            self._acquire(self._writing)
            try:
                begin = partial(_begin, deadline=time.monotonic() + self._patience())
                with _sqlite.transaction(opened.writer, begin) as connection:
                    yield connection
                self._writes += 1
            finally:
                self._writing.release()
        except LogUnavailable as error:
            self.trouble = str(error)
            raise
        except (sqlite3.Error, OSError) as error:
            raise self._told(opened, error) from error
        self.trouble = None

    def _acquire(self, lock: threading.Lock) -> None:
        if not lock.acquire(timeout=self._patience()):
            self._hurried_until = time.monotonic() + _HURRIED_S
            raise LogUnavailable(
                f"{self.path} is in use by other threads of this process for more than {self._patience_s:g} s, "
                "so that nothing was stored. Check the disk, and who holds a lock on the file."
            )

    def _patience(self) -> float:
        return 0.0 if time.monotonic() < self._hurried_until else self._patience_s

    def _told(self, opened: _File | None, error: sqlite3.Error | OSError) -> LogUnavailable:
        """Return what to raise for `error`; heal what is damaged."""
        if _sqlite.is_busy(error):
            self._hurried_until = time.monotonic() + _HURRIED_S
        if opened is not None and _sqlite.is_corrupt(error):
            self._replace(opened, error)
        told = _sqlite.unavailable(self.path, error)
        self.trouble = str(told)
        return told

    def _ready(self) -> _File:
        opened = self._file
        if opened is not None and self._unchanged(opened):
            return opened
        with self._opening:
            if self._closed:
                raise LogUnavailable(f"{self.path} was closed. Open a new `SqliteExposures`.")
            if os.getpid() != self._pid:
                raise LogUnavailable(
                    f"{self.path} was opened by process {self._pid} and cannot be used in its child "
                    f"{os.getpid()}: SQLite files do not survive a fork. Open a ledger in each process."
                )
            if self._file is not None and not self._unchanged(self._file):
                opened, self._file = self._file, None
                self._abandon(opened)
                if _sqlite.file_identity(self.path) == opened.identity:
                    self._move_aside(opened.identity, "it shrank while in use")
            if self._file is None:
                self._file = self._open()
                self._revision = 0
            return self._file

    def _unchanged(self, opened: _File) -> bool:
        """Return whether the path still leads to the file that is open, and none of it was cut off.

        SQLite would go on writing to a file that was deleted, and hide a cut under its cache.
        """
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == opened.identity and status.st_size >= opened.size

    def _open(self) -> _File:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        identity = _sqlite.file_identity(self.path)
        try:
            return self._connect(identity)
        except sqlite3.Error as error:
            if not _sqlite.is_corrupt(error):
                raise
            self._move_aside(identity, str(error))
            return self._connect(None)

    def _connect(self, identity: tuple[int, int] | None) -> _File:
        connections: list[sqlite3.Connection] = []
        try:
            with ExitStack() as alone:
                if identity is None:
                    # Never while another process renames a damaged ledger and its WAL.
                    alone.enter_context(self._replacing())
                for _ in range(2):
                    connection = _sqlite.connect(
                        self.path, busy_timeout_s=max(self._patience_s, 1.0), synchronous="NORMAL"
                    )
                    connections.append(connection)
                    connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES_AT_MOST}")
                reader, writer = connections
                self._check_schema(writer)
            writer.execute("PRAGMA busy_timeout=0")  # `_begin` waits, in finer steps
            status = self.path.stat()
            return _File((status.st_dev, status.st_ino), status.st_size, reader, writer)
        except BaseException:
            for connection in connections:
                connection.close()
            raise

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        version = _sqlite.user_version(connection)
        if version == 0:
            with _sqlite.transaction(connection):
                # Another process may have been first.
                if _sqlite.user_version(connection) == 0:
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    if self._mark.exists():
                        connection.execute("INSERT INTO lost VALUES (NULL)")
            self._mark.unlink(missing_ok=True)
        elif version != SCHEMA_VERSION:
            raise LogUnavailable(
                f"{self.path} has schema version {version}; this installation reads and writes version "
                f"{SCHEMA_VERSION} and leaves the file as it is. Use the version of explorank that wrote it, "
                "or move the file away."
            )

    @property
    def _mark(self) -> Path:
        """A file that stands between moving a damaged ledger aside and noting that in the new one."""
        return self.path.with_name(f"{self.path.name}.lost")

    def _replace(self, opened: _File, error: BaseException) -> None:
        with self._opening, suppress(OSError, LogUnavailable):
            if self._file is opened:
                self._file = None
                self._abandon(opened)
                self._move_aside(opened.identity, str(error))

    def _move_aside(self, identity: tuple[int, int] | None, why: str) -> None:
        """Move the damaged file away, unless another process has done so already."""
        with self._replacing():
            if identity is not None and _sqlite.file_identity(self.path) == identity:
                self._mark.touch()
                _sqlite.move_aside(self.path, why)

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        """Be the only one who creates or renames the file; raise `LogUnavailable` where another takes long."""
        deadline = time.monotonic() + max(self._patience_s, 1.0)
        while True:
            lock = FileLock.take(self.path.with_name(f"{self.path.name}.lock"))
            if lock is not None:
                break
            if time.monotonic() >= deadline:
                raise LogUnavailable(
                    f"{self.path} is being created or replaced by another process. Try again."
                )
            time.sleep(_PAUSE_S)
        try:
            yield
        finally:
            lock.release()

    def _abandon(self, opened: _File) -> None:
        # Closed under both locks: a thread may be in the middle of a statement.
        with self._reading, self._writing:
            opened.close()


def _storable(texts: Iterable[str]) -> list[str]:
    """Return those that SQLite takes: one that is no valid Unicode would fail all that is written with it."""
    texts = list(texts)
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return [text for text in texts if not any("\ud800" <= character <= "\udfff" for character in text)]
    return texts


def _begin(connection: sqlite3.Connection, deadline: float) -> None:
    """Take the file's write lock; raise `sqlite3.OperationalError` where it stays taken."""
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not _sqlite.is_busy(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _bounded(gathered: dict[Any, Any]) -> dict[Any, Any]:
    """Return `gathered` without its oldest entries where there are too many to hold."""
    if len(gathered) <= _GATHERED_AT_MOST:
        return gathered
    logger.warning(
        "The ledger cannot be written; its oldest %d unwritten entries are lost", len(gathered) // 2
    )
    return dict(islice(gathered.items(), len(gathered) // 2, None))


def _discard(gathered: dict[bytes, dict[str, Any]], visitor: bytes, item: str, written: object) -> None:
    """Drop an entry that is in the file now, unless a newer one has taken its place."""
    own = gathered.get(visitor)
    if own is not None and own.get(item, written) == written:
        own.pop(item, None)
        if not own:
            del gathered[visitor]
