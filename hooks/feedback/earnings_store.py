"""Where decisions wait for what they earn, in the learner's file: sums only, no items and no features."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS watches (fingerprint TEXT PRIMARY KEY, state TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS watched (
        fingerprint TEXT NOT NULL, decision_id TEXT NOT NULL, grp TEXT NOT NULL, time REAL NOT NULL,
        bucket INTEGER NOT NULL, deadline REAL NOT NULL, PRIMARY KEY (fingerprint, decision_id)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS watched_by_deadline ON watched (fingerprint, deadline, decision_id)",
    """CREATE TABLE IF NOT EXISTS earned (
        fingerprint TEXT NOT NULL, decision_id TEXT NOT NULL, reward_id TEXT NOT NULL, worth REAL NOT NULL,
        PRIMARY KEY (fingerprint, decision_id, reward_id)) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A decision that waits for what it earns."""

    decision_id: str
    group: str
    time: float
    """When it was made, in seconds since the Unix epoch."""
    bucket: int
    """That of its visitor, who is not kept."""
    earned: float = 0.0
    """The sum of what came for it."""


class EarningsStore:
    """One learner's tables; they are added to a file that lacks them, and writes belong inside a transaction.

    Methods raise `sqlite3.Error`.
    """

    def __init__(self, connection: sqlite3.Connection, fingerprint: str) -> None:
        self._connection = connection
        self._fingerprint = fingerprint
        for statement in _SCHEMA:
            connection.execute(statement)

    def load(self) -> str | None:
        """Return the state that was last saved, or `None` where none was."""
        row = self._connection.execute(
            "SELECT state FROM watches WHERE fingerprint = ?", (self._fingerprint,)
        ).fetchone()
        return None if row is None else str(row[0])

    def save(self, state: str) -> None:
        """Replace the state that was last saved."""
        self._connection.execute("INSERT OR REPLACE INTO watches VALUES (?, ?)", (self._fingerprint, state))

    def watch(self, decisions: Iterable[Watched], window_s: float) -> None:
        """Let decisions wait `window_s` seconds for what they earn."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO watched VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    self._fingerprint,
                    each.decision_id,
                    each.group,
                    each.time,
                    each.bucket,
                    each.time + window_s,
                )
                for each in decisions
            ],
        )

    def earn(self, rewards: Iterable[tuple[str, str, float, float]]) -> None:
        """Add (decision id, reward id, worth, time) to the decisions that wait; each reward id counts once.

        What came after its decision's deadline, and what belongs to no waiting decision, is left out.
        """
        self._connection.executemany(
            "INSERT OR IGNORE INTO earned SELECT fingerprint, decision_id, ?, ? FROM watched"
            " WHERE fingerprint = ? AND decision_id = ? AND deadline >= ?",
            [
                (reward_id, worth, self._fingerprint, decision_id, time)
                for decision_id, reward_id, worth, time in rewards
            ],
        )

    def due(self, now: float, limit: int) -> list[Watched]:
        """Return up to `limit` decisions that have waited long enough, in the order they were made."""
        rows = self._connection.execute(
            "SELECT decision_id, grp, time, bucket, (SELECT total(worth) FROM earned WHERE"
            " earned.fingerprint = watched.fingerprint AND earned.decision_id = watched.decision_id)"
            " FROM watched WHERE fingerprint = ? AND deadline <= ? ORDER BY deadline, decision_id LIMIT ?",
            (self._fingerprint, now, limit),
        ).fetchall()
        return [Watched(*row) for row in rows]

    def forget(self, decision_ids: Iterable[str]) -> None:
        """Drop decisions that wait for nothing any more, and what they earned."""
        keys = [(self._fingerprint, decision_id) for decision_id in decision_ids]
        for table in ("watched", "earned"):
            self._connection.executemany(
                f"DELETE FROM {table} WHERE fingerprint = ? AND decision_id = ?",  # noqa: S608 - constants
                keys,
            )
