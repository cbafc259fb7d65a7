"""Feast's SQLite store: triggers note every change by any writer, and keep newer rows from older ones."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.repo_config import RepoConfig
from numpy.typing import NDArray

from explorank.retrieval.columnar_store.cells import Cell
from explorank.retrieval.columnar_store.sources.source import Changes, StoredRows, StoredView

_log = logging.getLogger(__name__)

JOURNAL: Final = "explorank_changes"
TIMES: Final = "explorank_times"
_JOURNAL_ROWS: Final = 1_000_000  # a reader that is further behind reads everything anew
_KEYS_PER_QUERY: Final = 500
_KEYS_PER_PAGE: Final = 500
_FEATURES_PER_QUERY: Final = 1_000  # SQLite has at most 2,000 columns in a result
_BUSY_S: Final = 5.0
_WRITE_CACHE_KIB: Final = 65_536
_SECOND: Final = 1_000_000  # microseconds
# A connection that was opened before a fork may be neither used nor closed, which dropping it would do.
_PARENTS: Final[list[sqlite3.Connection]] = []
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - naive, as Feast has it when it stores a time

# Cells are written one at a time. Those of one row follow each other, and only the first of them is noted: the
# journal's last entity is always read again when anything was committed, so that no change can hide behind it.
_UNNOTED: Final = f"(SELECT entity_key FROM {JOURNAL} ORDER BY id DESC LIMIT 1) IS NOT {{row}}.entity_key"  # noqa: S608 - a constant
_JOURNAL_SQL: Final = (
    f"CREATE TABLE IF NOT EXISTS {JOURNAL} (id INTEGER PRIMARY KEY, entity_key BLOB NOT NULL)",
    f"CREATE TRIGGER IF NOT EXISTS {JOURNAL}_bound AFTER INSERT ON {JOURNAL} BEGIN "  # noqa: S608 - constants
    f"DELETE FROM {JOURNAL} WHERE id <= NEW.id - {_JOURNAL_ROWS}; END",
    # Feast's store cuts event times to seconds; within one, these tell which row is the newer.
    f"CREATE TABLE IF NOT EXISTS {TIMES} (view_name TEXT, entity_key BLOB, event_us INTEGER, event_ts INTEGER, "
    "PRIMARY KEY (view_name, entity_key)) WITHOUT ROWID",
)


class SqliteSource:
    """Reads the tables of a `SqliteOnlineStore`."""

    sweeps = False

    def __init__(self, config: RepoConfig) -> None:
        self._path = Path(SqliteOnlineStore._get_db_path(config))
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._data_version = 0
        self._schema_version = 0
        self._last_id = 0
        self._last_key: bytes | None = None
        self._prepared: set[str] = set()
        """Views whose triggers are known to be there for writing."""
        self._followed: dict[str, bool] = {}
        """View: whether triggers note its changes."""

    def prepare(self, views: Iterable[StoredView]) -> None:
        """Set up the notice of changes."""
        connection = self._open()
        self._use_wal(connection)
        for view in views:
            self._install(connection, view.name)
        self._mark(connection)

    def follow(self, view: StoredView) -> None:
        """Begin to notice changes."""
        connection = self._open()
        self._use_wal(connection)
        try:
            self._install(connection, view.name)
            self._followed[view.name] = True
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise
            # Read-only, or a long write holds the lock. Any commit then means reading the view anew.
            _log.warning("Changes of %r in %s can't be noted yet: %s", view.name, self._path, error)
            self._followed[view.name] = False
        self._schema_version = _pragma(connection, "schema_version")

    def read(self, view: StoredView, keys: Sequence[bytes]) -> StoredRows:
        """Return the rows that exist."""
        parts = [
            self._rows(view, f"entity_key IN ({','.join('?' * len(part))})", part)
            for part in (
                keys[first : first + _KEYS_PER_QUERY] for first in range(0, len(keys), _KEYS_PER_QUERY)
            )
        ]
        if len(parts) == 1:
            return parts[0]
        return StoredRows(
            [key for part in parts for key in part.keys],
            np.concatenate([np.zeros(0, np.int64), *(part.times for part in parts)]),
            {
                name: [cell for part in parts for cell in part.cells.get(name) or [None] * len(part.keys)]
                for name in view.features
            },
        )

    def pages(self) -> bool:
        """Return whether `page` can walk through a view."""
        return True

    def page(self, view: StoredView, after: Any) -> tuple[StoredRows, Any] | None:
        """Return the next rows and where to go on."""
        connection = self._open()
        table = _quoted(view.name)
        start = after or b""
        last = connection.execute(
            f"SELECT max(entity_key) FROM (SELECT DISTINCT entity_key FROM {table} "  # noqa: S608 - quoted
            "WHERE entity_key > ? ORDER BY entity_key LIMIT ?)",
            (start, _KEYS_PER_PAGE),
        ).fetchone()[0]
        if last is None:
            return None
        return self._rows(view, "entity_key > ? AND entity_key <= ?", (start, last)), last

    def _rows(self, view: StoredView, condition: str, parameters: Sequence[bytes]) -> StoredRows:
        """Return the rows of some entities, each put together from its cells."""
        connection = self._open()
        source = f"FROM {_quoted(view.name)} WHERE {condition}"
        connection.execute("BEGIN")  # one snapshot, however many queries it takes
        try:
            rows = connection.execute(
                f"SELECT entity_key, max(event_ts), count(*) {source} GROUP BY entity_key ORDER BY entity_key",
                parameters,
            ).fetchall()
            if not rows:
                return StoredRows([], np.zeros(0, np.int64), {name: [] for name in view.features})
            keys, stamps, counts = zip(*rows, strict=True)
            names = [
                name
                for (name,) in connection.execute(
                    f"SELECT DISTINCT feature_name {source} ORDER BY feature_name",
                    parameters,
                )
            ]
            if set(counts) == {len(names)}:
                cells = self._grid(connection, source, parameters, names)
            else:
                cells = self._sparse(connection, source, parameters, list(view.features))
        finally:
            connection.execute("COMMIT")
        wanted = {name: cells[name] for name in view.features if name in cells}
        return StoredRows(keys, _microseconds(stamps), wanted)

    @staticmethod
    def _grid(
        connection: sqlite3.Connection, source: str, parameters: Sequence[bytes], names: Sequence[str]
    ) -> dict[str, Sequence[Cell]]:
        """Return the cells of entities that all have the same features, which is the rule."""
        values = [
            value
            for (value,) in connection.execute(
                f"SELECT value {source} ORDER BY entity_key, feature_name",
                parameters,
            )
        ]
        return {name: values[place :: len(names)] for place, name in enumerate(names)}

    @staticmethod
    def _sparse(
        connection: sqlite3.Connection, source: str, parameters: Sequence[bytes], names: Sequence[str]
    ) -> dict[str, Sequence[Cell]]:
        """Return the cells of entities some of which lack features."""
        cells: dict[str, Sequence[Cell]] = {}
        for first in range(0, len(names), _FEATURES_PER_QUERY):
            group = names[first : first + _FEATURES_PER_QUERY]
            columns = ", ".join(["max(CASE feature_name WHEN ? THEN value END)"] * len(group))
            found = connection.execute(
                f"SELECT {columns} {source} GROUP BY entity_key ORDER BY entity_key",
                (*group, *parameters),
            ).fetchall()
            cells |= zip(group, zip(*found, strict=True), strict=True)
        return cells

    def changes(self) -> Changes:
        """Return what changed."""
        if self._connection is None or _identity(self._path) != self._identity:
            self.close()
            self._open()
            return Changes(everything=True)
        connection = self._connection
        version = _pragma(connection, "data_version")
        if version == self._data_version:
            return Changes()
        changes = self._changes(connection)
        self._data_version = version
        return changes

    def _changes(self, connection: sqlite3.Connection) -> Changes:
        if not self._has_journal(connection):  # never set up, or dropped with everything else
            self._last_id, self._last_key = 0, None
            self._followed.clear()
            return Changes(everything=True)
        views = frozenset(name for name, noted in self._followed.items() if not noted)
        schema = _pragma(connection, "schema_version")
        if schema != self._schema_version:
            triggers = {
                name
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            }
            views |= {name for name in self._followed if _trigger("insert", name) not in triggers}
            self._schema_version = schema
        newest = connection.execute(f"SELECT max(id) FROM {JOURNAL}").fetchone()[0] or 0  # noqa: S608 - a constant
        noted = connection.execute(
            f"SELECT id, entity_key FROM {JOURNAL} WHERE id > ? ORDER BY id",  # noqa: S608 - a constant
            (self._last_id,),
        ).fetchall()
        if newest < self._last_id or (noted and noted[0][0] > self._last_id + 1):
            self._mark(connection)
            self._followed.clear()
            return Changes(everything=True)
        keys = [key for _, key in noted]
        if self._last_key is not None:
            keys.append(self._last_key)
        if noted:
            self._last_id, self._last_key = noted[-1]
        for name in views:
            self._followed.pop(name)
        return Changes(list(dict.fromkeys(keys)), views)

    def times(self, view: StoredView, keys: Sequence[bytes]) -> Sequence[int | None]:
        """Return the times that the store has cut to seconds; the triggers see to whole ones."""
        connection = self._open()
        if view.name not in self._prepared:
            self._use_wal(connection)
            self._install(connection, view.name)
            self._prepared.add(view.name)
        exact: dict[bytes, int] = {}
        for first in range(0, len(keys), _KEYS_PER_QUERY):
            part = keys[first : first + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(part))
            # What is noted counts for as long as the row of that second is there.
            exact |= connection.execute(
                f"SELECT entity_key, event_us FROM {TIMES} AS noted "  # noqa: S608 - quoted
                f"WHERE view_name = ? AND entity_key IN ({marks}) AND EXISTS (SELECT 1 FROM "
                f"{_quoted(view.name)} AS cell WHERE cell.entity_key = noted.entity_key "
                "AND cell.event_ts = noted.event_ts)",
                (view.name, *part),
            ).fetchall()
        return [exact.get(key) for key in keys]

    def wrote(self, view: StoredView, keys: Sequence[bytes], times: Sequence[int]) -> None:
        """Note the exact times; the triggers have noted the rows."""
        connection = self._open()
        noted = [(view.name, key, time_, _as_stored(time_)) for key, time_ in zip(keys, times, strict=True)]
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                f"INSERT OR REPLACE INTO {TIMES} (view_name, entity_key, event_us, event_ts) "  # noqa: S608 - a constant
                "VALUES (?, ?, ?, ?)",
                noted,
            )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def dropped(self, views: Iterable[str]) -> None:
        """Do nothing: the schema's version tells."""

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.abandon()

    def abandon(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            _PARENTS.append(self._connection)
        self._connection = None
        self._followed.clear()
        self._prepared.clear()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._identity = _identity(self._path)
            # `rw`: a file that is not there is an error, as a missing table is, and is not made up.
            connection = sqlite3.connect(
                f"{self._path.resolve().as_uri()}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=_BUSY_S,
            )
            self._connection = connection
            self._mark(connection)
        return self._connection

    @staticmethod
    def _use_wal(connection: sqlite3.Connection) -> None:
        """Let readers and the writer not wait for each other, where the file may be changed at all."""
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")

    def _mark(self, connection: sqlite3.Connection) -> None:
        """Take the present as known."""
        self._data_version = _pragma(connection, "data_version")
        self._schema_version = _pragma(connection, "schema_version")
        self._last_id, self._last_key = 0, None
        if self._has_journal(connection):
            last = connection.execute(
                f"SELECT id, entity_key FROM {JOURNAL} ORDER BY id DESC LIMIT 1"  # noqa: S608 - a constant
            ).fetchone()
            if last is not None:
                self._last_id, self._last_key = last

    def _has_journal(self, connection: sqlite3.Connection) -> bool:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (JOURNAL,)).fetchone()
        return found is not None

    def _install(self, connection: sqlite3.Connection, view: str) -> None:
        table = _quoted(view)
        wanted = {_trigger(event, view) for event in ("insert", "update", "delete", "newest")}
        there = {
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (view,)
            )
        }
        if wanted <= there and self._has_journal(connection):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _JOURNAL_SQL:
                connection.execute(statement)
            for event, row in (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")):
                connection.execute(
                    f"CREATE TRIGGER IF NOT EXISTS {_quoted(_trigger(event, view))} AFTER {event} ON {table} "  # noqa: S608 - quoted
                    f"WHEN {_UNNOTED.format(row=row)} BEGIN "
                    f"INSERT INTO {JOURNAL} (entity_key) VALUES ({row}.entity_key); END"
                )
            connection.execute(
                f"CREATE TRIGGER IF NOT EXISTS {_quoted(_trigger('newest', view))} BEFORE UPDATE ON {table} "
                "WHEN NEW.event_ts < OLD.event_ts BEGIN SELECT RAISE(IGNORE); END"
            )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def make_room(store: SqliteOnlineStore, config: RepoConfig) -> None:
    """Let a whole write fit into the writing connection's cache.

    A write is one transaction of a row for each cell. Once it outgrows the cache of 2 MB that SQLite begins
    with, pages go to the log and come back for every cell and its triggers.
    """
    store._get_conn(config).execute(f"PRAGMA cache_size = -{_WRITE_CACHE_KIB}")


def _microseconds(stamps: Sequence[Any]) -> NDArray[np.int64]:
    """Return event times as Feast reads them back: UTC's wall clock, stored as if it were local time."""
    if time.timezone == 0 and not time.daylight and all(type(stamp) is int for stamp in stamps):
        return np.array(stamps, np.int64) * _SECOND
    return np.array([_one_stamp(stamp) for stamp in stamps], np.int64)


def _one_stamp(stamp: Any) -> int:
    if stamp is None:
        return 0
    moment = (
        datetime.fromisoformat(stamp) if isinstance(stamp, str) else datetime.fromtimestamp(stamp)  # noqa: DTZ006 - local time, as Feast's converter has it
    )
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * _SECOND)


def _as_stored(microseconds: int) -> int:
    """Return an event time as Feast stores it: UTC's wall clock, taken for local time, in whole seconds."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return int(moment.timestamp())


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _trigger(event: str, view: str) -> str:
    return f"explorank_{event}_{view}"


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
