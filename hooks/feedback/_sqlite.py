"""What the log's segments and the learner's state share: SQLite files that heal or say what is wrong."""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from explorank.hooks.errors import LogUnavailable

logger = logging.getLogger(__name__)

_WAL_RETRY_S: Final = 0.005

_CAUSES: Final[dict[int | None, tuple[str, str]]] = {
    sqlite3.SQLITE_PERM: ("may not be opened", "grant this process read and write access"),
    sqlite3.SQLITE_BUSY: ("is locked by another process", "find who holds it (`fuser FILE`) and let it go"),
    sqlite3.SQLITE_LOCKED: ("is locked by another connection", "let that connection finish"),
    sqlite3.SQLITE_READONLY: ("is read-only", "make the file and its folder writable to this process"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "check the disk, its limits and the system's log"),
    sqlite3.SQLITE_CORRUPT: ("is corrupt", "nothing: it is moved aside at the next write"),
    sqlite3.SQLITE_FULL: ("does not fit on the disk any more", "free space on the disk"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "see that it is a file in a folder this process may write"),
    sqlite3.SQLITE_NOTADB: ("is not an SQLite file", "nothing: it is moved aside at the next write"),
}


def connect(path: Path, *, busy_timeout_s: float, synchronous: str) -> sqlite3.Connection:
    """Open `path` for writing in WAL mode, transactions left to the caller; raise `sqlite3.Error`."""
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        _use_wal(connection, patience_s=busy_timeout_s)
        connection.execute(f"PRAGMA synchronous={synchronous}")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, *, patience_s: float) -> None:
    """Put the file into WAL mode, which it stays in.

    Of several connections that find a new file, each holds it as a reader and wants it alone: SQLite refuses at
    once, whatever the timeout, since none of them would give way. The refusal does, and one of them comes through.
    """
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(random.uniform(0.0, _WAL_RETRY_S))  # noqa: S311 - so that two do not meet again
        else:
            return


def connect_read_only(path: Path, *, busy_timeout_s: float) -> sqlite3.Connection:
    """Open `path` for reading only; raise `sqlite3.Error`."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(
        address, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )


def checkpoint(path: Path, *, restart_beyond_pages: int) -> None:
    """Move what the WAL of an existing `path` holds into it, beside those who write.

    Under a steady stream of commits the WAL is never quite empty and would grow for ever. Beyond the given
    size the rest, little by then, is moved while writers wait, so that the next one starts the WAL anew.
    """
    address = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=0.0, isolation_level=None)) as connection:
        _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if moved < pages and pages > restart_beyond_pages:
            connection.execute("PRAGMA wal_checkpoint(RESTART)")


def leave_no_trace(path: Path, *, patience_s: float) -> bool:
    """Move all that the WAL of `path` holds into it and cut the WAL to nothing; return whether that was done.

    With `secure_delete`, what was deleted is then overwritten everywhere in the file, and the WAL's older copies
    of its pages are gone too. It waits for those who read or write, for `patience_s` seconds.
    """
    address = f"{path.absolute().as_uri()}?mode=rw"
    give_up_at = time.monotonic() + patience_s
    with closing(sqlite3.connect(address, uri=True, timeout=0.1, isolation_level=None)) as connection:
        while True:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return True
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.02)


def immediately(connection: sqlite3.Connection) -> None:
    """Take the write lock, waiting for it as long as the connection's timeout says."""
    connection.execute("BEGIN IMMEDIATE")


@contextmanager
def transaction(
    connection: sqlite3.Connection, begin: Callable[[sqlite3.Connection], None] = immediately
) -> Iterator[sqlite3.Connection]:
    """Hold the write lock, which `begin` takes, for the block; commit at its end, roll back if it raises."""
    begin(connection)
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has already rolled back after a full disk or an I/O error.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def is_corrupt(error: BaseException) -> bool:
    """Return whether `error` is SQLite's word that the file itself is damaged."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }


def is_busy(error: BaseException) -> bool:
    """Return whether `error` only says that someone else holds the file right now."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    }


def unavailable(path: Path, error: Exception) -> LogUnavailable:
    """Return the error that names the file, the cause and the way out."""
    code = _primary_code(error) if isinstance(error, sqlite3.Error) else None
    what, way_out = _CAUSES.get(
        code, ("cannot be used", "see that its folder exists and is writable to this process")
    )
    return LogUnavailable(
        f"{path} {what} ({error}), so that nothing was stored. To go on, {way_out}; the file is opened "
        "again at the next write."
    )


def move_aside(path: Path, why: str) -> Path:
    """Rename a damaged database with its WAL to the first free `<name>.corrupt-<n>` and report it loudly."""
    aside = next(
        candidate
        for number in count(1)
        if not (candidate := path.with_name(f"{path.name}.corrupt-{number}")).exists()
    )
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    logger.error(
        "%s is damaged (%s) and was moved to %s; a new file takes its place. What the old one held is not "
        "read any more; `sqlite3 %s .recover` may bring it back.",
        path,
        why,
        aside,
        aside,
    )
    return aside


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return what tells this file from another of the same name, or `None` where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def user_version(connection: sqlite3.Connection) -> int:
    """Return the schema version that the file states; 0 for a file that has no schema yet."""
    with closing(connection.execute("PRAGMA user_version")) as cursor:
        return int(cursor.fetchone()[0])


def _primary_code(error: sqlite3.Error) -> int | None:
    # Extended result codes carry the primary one in their low byte.
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
