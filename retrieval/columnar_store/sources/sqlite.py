"""Feast's SQLite store: triggers note every change by any writer, and keep newer rows from older ones."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from feast.repo_config import RepoConfig
from numpy.typing import NDArray

from explorank.retrieval.columnar_store.cells import Cell
from explorank.retrieval.columnar_store.sources.source import Changes, StoredRows, StoredView
from explorank.retrieval.columnar_store.sources.sqlite_file import SqliteFile, written_at_once
from explorank.retrieval.columnar_store.sources.sqlite_schema import (
    JOURNAL,
    has_journal,
    is_set_up,
    pragma,
    quoted,
    set_up,
    trigger,
    use_wal,
)

_log = logging.getLogger(__name__)

_KEYS_PER_QUERY: Final = 500
_KEYS_PER_PAGE: Final = 500
_FEATURES_PER_QUERY: Final = 1_000  # SQLite has at most 2,000 columns in a result
_SECOND: Final = 1_000_000  # microseconds


class SqliteSource:
    """Reads the tables of a `SqliteOnlineStore`."""

    sweeps = False

    def __init__(self, config: RepoConfig) -> None:
        self._file = SqliteFile(config)
        self._marked = False
        """Whether what follows is of the open connection."""
        self._data_version = 0
        self._schema_version = 0
        self._last_id = 0
        self._last_key: bytes | None = None
        self._followed: dict[str, bool] = {}
        """View: whether triggers note its changes."""

    def prepare(self, views: Iterable[StoredView]) -> None:
        """Set up the notice of changes."""
        connection = self._open()
        use_wal(connection)
        for view in views:
            self._install(connection, view.name)

    def follow(self, view: StoredView) -> None:
        """Begin to notice changes."""
        connection = self._open()
        use_wal(connection)
        try:
            self._install(connection, view.name)
            self._followed[view.name] = True
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise
            # Read-only, or a long write holds the lock. Any commit then means reading the view anew.
            _log.warning("Changes of %r in %s can't be noted yet: %s", view.name, self._file.path, error)
            self._followed[view.name] = False
        self._schema_version = pragma(connection, "schema_version")

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
        table = quoted(view.name)
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
        source = f"FROM {quoted(view.name)} WHERE {condition}"
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
        if not self._file.is_current:
            self.close()
            self._open()
            return Changes(everything=True)
        connection = self._open()
        version = pragma(connection, "data_version")
        if version == self._data_version:
            return Changes()
        changes = self._changes(connection)
        self._data_version = version
        return changes

    def _changes(self, connection: sqlite3.Connection) -> Changes:
        if not has_journal(connection):  # never set up, or dropped with everything else
            self._last_id, self._last_key = 0, None
            self._followed.clear()
            return Changes(everything=True)
        views = frozenset(name for name, noted in self._followed.items() if not noted)
        schema = pragma(connection, "schema_version")
        if schema != self._schema_version:
            triggers = {
                name
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            }
            views |= {name for name in self._followed if trigger("insert", name) not in triggers}
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

    def dropped(self, views: Iterable[str]) -> None:
        """Do nothing: the schema's version tells."""

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._forget()

    def abandon(self) -> None:
        """Let go of the connection."""
        self._file.abandon()
        self._forget()

    def _forget(self) -> None:
        self._marked = False
        self._followed.clear()

    def _open(self) -> sqlite3.Connection:
        connection = self._file.connection()
        if not self._marked:
            self._mark(connection)
        return connection

    @staticmethod
    def _install(connection: sqlite3.Connection, view: str) -> None:
        if not is_set_up(connection, view):
            with written_at_once(connection):
                set_up(connection, view)

    def _mark(self, connection: sqlite3.Connection) -> None:
        """Take the present as known."""
        self._marked = True
        self._data_version = pragma(connection, "data_version")
        self._schema_version = pragma(connection, "schema_version")
        self._last_id, self._last_key = 0, None
        if has_journal(connection):
            last = connection.execute(
                f"SELECT id, entity_key FROM {JOURNAL} ORDER BY id DESC LIMIT 1"  # noqa: S608 - a constant
            ).fetchone()
            if last is not None:
                self._last_id, self._last_key = last


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
