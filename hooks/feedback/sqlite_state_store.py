"""The default state store: one SQLite file for all fingerprints, and a lock file for each that leads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from explorank.hooks.errors import CorruptState, LogUnavailable
from explorank.hooks.feedback import _sqlite
from explorank.hooks.feedback._file_lock import FileLock
from explorank.hooks.feedback.state_store import Entry, Shelf

SCHEMA_VERSION: Final = 3
"""Of the file's tables; it stands in the file and is checked when it is opened."""

_SCHEMA: Final = (
    """CREATE TABLE entries (
        fingerprint TEXT NOT NULL, shelf TEXT NOT NULL, key TEXT NOT NULL, part INTEGER NOT NULL,
        at REAL NOT NULL, value BLOB NOT NULL, PRIMARY KEY (fingerprint, shelf, key, part))""",
    "CREATE INDEX entries_by_time ON entries (fingerprint, shelf, at, key, part)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_SHARED: Final = ""
"""Stands for the fingerprint of entries that belong to none."""
_NO_LIMIT: Final = -1


class SqliteStateBackend:
    """Keeps states in one file, which any number of processes on the same machine may have open."""

    def __init__(self, path: str | Path, *, busy_timeout_s: float = 5.0, patience_s: float = 5.0) -> None:
        """Open nothing yet.

        A write waits `busy_timeout_s` seconds for those of others, and `leave_no_trace` waits `patience_s` for
        those who read.
        """
        self.path = Path(path)
        self._busy_timeout_s = busy_timeout_s
        self._patience_s = patience_s

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def open(self, fingerprint: str) -> SqliteStateStore:
        """Open the file, creating it where there is none."""
        with _translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return SqliteStateStore(
                self.path, fingerprint, busy_timeout_s=self._busy_timeout_s, patience_s=self._patience_s
            )

    def lease(self, fingerprint: str) -> FileLease | None:
        """Lock the fingerprint's file beside the database; the kernel lets go of it with the process."""
        lock = self.path.with_name(f"{self.path.name}.{fingerprint[:12]}.lock")
        with _translated(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            held = FileLock.take(lock)
        return None if held is None else FileLease(held)

    def move_aside(self, why: str) -> None:
        """Rename the file, with its WAL."""
        with _translated(self.path):
            _sqlite.move_aside(self.path, why)


class FileLease:
    """A lock on a file, which ends with its process."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def renew(self) -> bool:
        """Return whether it was not released: it does not run out."""
        return self._lock.held

    def release(self) -> None:
        """Unlock the file."""
        self._lock.release()


class SqliteStateStore:
    """A connection to the file. What is dropped is overwritten at once, but for the WAL's older pages."""

    def __init__(self, path: Path, fingerprint: str, *, busy_timeout_s: float, patience_s: float) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._patience_s = patience_s
        self._connection = _sqlite.connect(path, busy_timeout_s=busy_timeout_s, synchronous="NORMAL")
        try:
            self._connection.execute("PRAGMA secure_delete=ON")
            self._check_schema()
            self._identity = _sqlite.file_identity(path)
        except BaseException:
            self._connection.close()
            raise

    def _check_schema(self) -> None:
        version = _sqlite.user_version(self._connection)
        if version == 0:
            with _sqlite.transaction(self._connection):
                # Another process may have been first.
                if _sqlite.user_version(self._connection) == 0:
                    for statement in _SCHEMA:
                        self._connection.execute(statement)
        elif version != SCHEMA_VERSION:
            raise LogUnavailable(
                f"{self._path} has schema version {version}; this installation reads and writes version "
                f"{SCHEMA_VERSION} and leaves the file as it is. Name another `state_path`; the state is "
                "rebuilt from the log."
            )

    @property
    def replaced(self) -> bool:
        """Whether the path no longer leads to the file that is open."""
        return _sqlite.file_identity(self._path) != self._identity

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the file's write lock for the block."""
        with _translated(self._path), _sqlite.transaction(self._connection):
            yield

    def get(self, shelf: Shelf, key: str) -> list[Entry]:
        """Look up a key."""
        return self._entries("key = ? ORDER BY part", shelf, key)

    def first(self, shelf: Shelf, until: float, limit: int | None = None) -> list[Entry]:
        """Walk the index by time."""
        condition = "at <= ? ORDER BY at, key, part LIMIT ?"
        return self._entries(condition, shelf, until, _NO_LIMIT if limit is None else limit)

    def count(self, shelf: Shelf) -> int:
        """Count in the index."""
        with _translated(self._path):
            (number,) = self._connection.execute(
                "SELECT count(*) FROM entries WHERE fingerprint = ? AND shelf = ?", self._place(shelf)
            ).fetchone()
        return int(number)

    def put(self, shelf: Shelf, entries: Iterable[Entry]) -> None:
        """Insert or replace."""
        place = self._place(shelf)
        self._write(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            [(*place, entry.key, entry.part, entry.at, entry.value) for entry in entries],
        )

    def drop(self, shelf: Shelf, entries: Iterable[Entry]) -> None:
        """Delete by key and part."""
        place = self._place(shelf)
        self._write(
            "DELETE FROM entries WHERE fingerprint = ? AND shelf = ? AND key = ? AND part = ?",
            [(*place, entry.key, entry.part) for entry in entries],
        )

    def clear(self) -> None:
        """Delete by fingerprint."""
        self._write("DELETE FROM entries WHERE fingerprint = ?", [(self._fingerprint,)])

    def clear_others(self) -> None:
        """Delete by all other fingerprints."""
        self._write("DELETE FROM entries WHERE fingerprint NOT IN (?, ?)", [(self._fingerprint, _SHARED)])

    def adopt(self, fingerprint: str, shelves: Iterable[Shelf]) -> None:
        """Delete, then rename the fingerprint of what takes its place."""
        names = [shelf.name for shelf in shelves]
        self._write(
            "DELETE FROM entries WHERE fingerprint = ? AND shelf = ?",
            [(self._fingerprint, name) for name in names],
        )
        self._write(
            "UPDATE entries SET fingerprint = ? WHERE fingerprint = ? AND shelf = ?",
            [(self._fingerprint, fingerprint, name) for name in names],
        )

    def leave_no_trace(self) -> bool:
        """Cut the WAL to nothing."""
        with _translated(self._path):
            return _sqlite.leave_no_trace(self._path, patience_s=self._patience_s)

    def close(self) -> None:
        """Close the connection."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _place(self, shelf: Shelf) -> tuple[str, str]:
        return _SHARED if shelf.shared else self._fingerprint, shelf.name

    def _entries(self, condition: str, shelf: Shelf, *parameters: object) -> list[Entry]:
        query = (
            f"SELECT key, value, at, part FROM entries WHERE fingerprint = ? AND shelf = ? AND {condition}"  # noqa: S608 - constant conditions
        )
        with _translated(self._path):
            rows = self._connection.execute(query, (*self._place(shelf), *parameters)).fetchall()
        return [Entry(*row) for row in rows]

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            with _translated(self._path):
                self._connection.executemany(statement, rows)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say of `path` into the two errors of a store."""
    try:
        yield
    except LogUnavailable:
        raise
    except (sqlite3.Error, OSError) as error:
        if _sqlite.is_corrupt(error):
            raise CorruptState(
                f"SQLite cannot make sense of {path} ({error}), so that nothing in it can be trusted. The leading "
                "learner moves it aside and rebuilds its state from the log."
            ) from error
        raise _sqlite.unavailable(path, error) from error
