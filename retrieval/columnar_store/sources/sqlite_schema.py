"""What is added to the file of Feast's SQLite store: a journal of changes, exact event times, triggers."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import Final

JOURNAL: Final = "explorank_changes"
TIMES: Final = "explorank_times"
_WAL_RETRY_S: Final = 0.005
_JOURNAL_ROWS: Final = 1_000_000  # a reader that is further behind reads everything anew

# Cells are written one at a time. Those of one row follow each other, and only the first of them is noted: the
# journal's last entity is always read again when anything was committed, so that no change can hide behind it.
_UNNOTED: Final = f"(SELECT entity_key FROM {JOURNAL} ORDER BY id DESC LIMIT 1) IS NOT {{row}}.entity_key"  # noqa: S608 - a constant
_EVENTS: Final = ("insert", "update", "delete", "newest")
_TABLES: Final = (
    f"CREATE TABLE IF NOT EXISTS {JOURNAL} (id INTEGER PRIMARY KEY, entity_key BLOB NOT NULL)",
    f"CREATE TRIGGER IF NOT EXISTS {JOURNAL}_bound AFTER INSERT ON {JOURNAL} BEGIN "  # noqa: S608 - constants
    f"DELETE FROM {JOURNAL} WHERE id <= NEW.id - {_JOURNAL_ROWS}; END",
    # Feast's store cuts event times to seconds; within one, these tell which row is the newer.
    f"CREATE TABLE IF NOT EXISTS {TIMES} (view_name TEXT, entity_key BLOB, event_us INTEGER, event_ts INTEGER, "
    "PRIMARY KEY (view_name, entity_key)) WITHOUT ROWID",
)


def use_wal(connection: sqlite3.Connection) -> None:
    """Let readers and the writer not wait for each other, where the file may be changed at all.

    Of several connections that would each change the mode, SQLite refuses all but one at once, without waiting as
    long as they may: those try again, and then find it changed.
    """
    give_up_at = time.monotonic() + pragma(connection, "busy_timeout") / 1e3
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                return
            time.sleep(random.uniform(0.0, _WAL_RETRY_S))  # noqa: S311 - so that two do not meet again
        else:
            return


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Return the whole number that a pragma answers."""
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def trigger(event: str, view: str) -> str:
    """Return the name of a view's trigger for `insert`, `update`, `delete`, or `newest`."""
    return f"explorank_{event}_{view}"


def has_journal(connection: sqlite3.Connection) -> bool:
    """Return whether any view was ever set up in this file, and not everything dropped since."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (JOURNAL,)).fetchone()
    return found is not None


def is_set_up(connection: sqlite3.Connection, view: str) -> bool:
    """Return whether the triggers of a view are there, and what they write to."""
    there = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (view,)
        )
    }
    wanted = {trigger(event, view) for event in _EVENTS}
    return wanted <= there and has_journal(connection)


def set_up(connection: sqlite3.Connection, view: str) -> None:
    """Add what is missing, in the transaction that the caller has begun.

    Raises `sqlite3.OperationalError` where the view has no table.
    """
    table = quoted(view)
    for statement in _TABLES:
        connection.execute(statement)
    for event, row in (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")):
        connection.execute(
            f"CREATE TRIGGER IF NOT EXISTS {quoted(trigger(event, view))} AFTER {event} ON {table} "  # noqa: S608 - quoted
            f"WHEN {_UNNOTED.format(row=row)} BEGIN "
            f"INSERT INTO {JOURNAL} (entity_key) VALUES ({row}.entity_key); END"
        )
    connection.execute(
        f"CREATE TRIGGER IF NOT EXISTS {quoted(trigger('newest', view))} BEFORE UPDATE ON {table} "
        "WHEN NEW.event_ts < OLD.event_ts BEGIN SELECT RAISE(IGNORE); END"
    )


@contextlib.contextmanager
def unwatched(connection: sqlite3.Connection, view: str) -> Iterator[None]:
    """Take a view's triggers out for as long as a transaction of the caller's own lasts; who writes notes the changes.

    Nobody else ever sees the view without them: they are back before the transaction ends, and if it does not, they
    were never gone.
    """
    for event in _EVENTS:
        connection.execute(f"DROP TRIGGER {quoted(trigger(event, view))}")
    yield
    set_up(connection, view)


def note(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Note in the journal that rows have changed."""
    connection.executemany(
        f"INSERT INTO {JOURNAL} (entity_key) VALUES (?)",  # noqa: S608 - a constant
        ((key,) for key in keys),
    )
