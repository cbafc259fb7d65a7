"""A connection to a SQLite file that others may delete, make anew, or hold at a fork."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.repo_config import RepoConfig

_BUSY_S: Final = 5.0
# A connection that was opened before a fork may be neither used nor closed, which dropping it would do.
_PARENTS: Final[list[sqlite3.Connection]] = []


class SqliteFile:
    """Opens the file of a `SqliteOnlineStore` when it is first needed; used by one thread at a time."""

    def __init__(self, config: RepoConfig) -> None:
        self.path = Path(SqliteOnlineStore._get_db_path(config))
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._pid = os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether there is a connection, and the file at the path is still the one it was opened on."""
        return (
            self._connection is not None
            and self._pid == os.getpid()
            and _identity(self.path) == self._identity
        )

    def connection(self) -> sqlite3.Connection:
        """Return the connection of this process; raise `sqlite3.OperationalError` where there is no file."""
        if self._pid != os.getpid():
            self.abandon()
        if self._connection is None:
            self._identity = _identity(self.path)
            # `rw`: a file that is not there is an error, as a missing table is, and is not made up.
            self._connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=_BUSY_S,
            )
        return self._connection

    def close(self) -> None:
        """Close the connection; the next use opens it anew."""
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
            self._connection = None
        self.abandon()

    def abandon(self) -> None:
        """Let go of the connection, which a parent process may have opened, without closing it."""
        if self._connection is not None:
            _PARENTS.append(self._connection)
        self._connection = None
        self._pid = os.getpid()


@contextlib.contextmanager
def written_at_once(connection: sqlite3.Connection) -> Iterator[None]:
    """Write everything that is executed within, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled it back already: a full disk
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
