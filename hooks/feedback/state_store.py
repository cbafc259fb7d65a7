"""Where a learner keeps what it knows: one SQLite file, changed by whole transactions only.

The policy's state, the cursors into the log and the decisions that still wait for rewards change together,
so a kill at any moment leaves a state that counts every reward before the cursors once and none beyond.
Several learners (fingerprints) may share a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import orjson

from explorank.hooks.errors import CorruptState, LogUnavailable
from explorank.hooks.feedback import _sqlite
from explorank.hooks.feedback.earnings_store import EarningsStore
from explorank.hooks.feedback.outcomes import OpenDecision, Outcome, dump_outcome, load_outcome
from explorank.hooks.types import Impression, Reward

SCHEMA_VERSION: Final = 2
"""Of the store's tables; it stands in the file and is checked when it is opened."""

_SINCE_VERSION_1: Final = (
    """CREATE TABLE closed (
        fingerprint TEXT NOT NULL, closed_at REAL NOT NULL, decision_id TEXT NOT NULL, slot INTEGER NOT NULL,
        outcome BLOB NOT NULL, PRIMARY KEY (fingerprint, closed_at, decision_id, slot)) WITHOUT ROWID""",
    "CREATE TABLE erasures (user_id TEXT PRIMARY KEY, decision_ids TEXT, rebuild INTEGER NOT NULL)",
)
_SCHEMA: Final = (
    """CREATE TABLE learners (
        fingerprint TEXT PRIMARY KEY, revision INTEGER NOT NULL, state BLOB NOT NULL,
        counts TEXT NOT NULL)""",
    """CREATE TABLE cursors (
        fingerprint TEXT NOT NULL, segment_id TEXT NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (fingerprint, segment_id)) WITHOUT ROWID""",
    """CREATE TABLE open_decisions (
        fingerprint TEXT NOT NULL, decision_id TEXT NOT NULL, deadline REAL NOT NULL, decision BLOB NOT NULL,
        PRIMARY KEY (fingerprint, decision_id))""",
    "CREATE INDEX open_by_deadline ON open_decisions (fingerprint, deadline)",
    """CREATE TABLE early (
        fingerprint TEXT NOT NULL, decision_id TEXT NOT NULL, expires REAL NOT NULL, kind TEXT NOT NULL,
        feedback TEXT NOT NULL)""",
    "CREATE INDEX early_of ON early (fingerprint, decision_id)",
    "CREATE INDEX early_by_expiry ON early (fingerprint, expires)",
    *_SINCE_VERSION_1,
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_TABLES: Final = ("learners", "cursors", "open_decisions", "early", "closed")


@dataclass(frozen=True, slots=True)
class Saved:
    """What one fingerprint's learner last saved."""

    revision: int
    """Rises by one with every save of a state."""
    state: bytes
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Erasure:
    """A user who is to be erased from log and state."""

    user_id: str
    decision_ids: list[str] | None
    """What is to leave the log; `None` while the state still knows it."""
    rebuild: bool
    """Whether the state has to be rebuilt from the log that is left."""


class StateStore:
    """One learner's view of the file. Writes belong inside `transaction`, and to the one who holds the lock.

    Methods raise `sqlite3.Error`, or `LogUnavailable` for a file of another version.
    """

    def __init__(self, path: Path, fingerprint: str, *, busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self._identity: tuple[int, int] | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = _sqlite.connect(path, busy_timeout_s=busy_timeout_s, synchronous="NORMAL")
        try:
            self._connection.execute("PRAGMA secure_delete=ON")  # what was erased leaves no bytes behind
            self._check_schema()
            self._identity = _sqlite.file_identity(path)
        except BaseException:
            self._connection.close()
            raise

    def _check_schema(self) -> None:
        version = _sqlite.user_version(self._connection)
        if version == 0:
            with self.transaction():
                # Another process may have been first.
                if _sqlite.user_version(self._connection) == 0:
                    for statement in _SCHEMA:
                        self._connection.execute(statement)
        elif version == 1:
            with self.transaction():
                if _sqlite.user_version(self._connection) == 1:
                    for statement in (*_SINCE_VERSION_1, f"PRAGMA user_version = {SCHEMA_VERSION}"):
                        self._connection.execute(statement)
        elif version != SCHEMA_VERSION:
            raise LogUnavailable(
                f"{self.path} has schema version {version}; this installation reads and writes version "
                f"{SCHEMA_VERSION} and leaves the file as it is. Name another `state_path`; the state is "
                "rebuilt from the log."
            )

    @property
    def replaced(self) -> bool:
        """Whether the path no longer leads to the file that is open."""
        return _sqlite.file_identity(self.path) != self._identity

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the block's writes one: all of them are kept, or none."""
        with _sqlite.transaction(self._connection):
            yield

    @cached_property
    def earnings(self) -> EarningsStore:
        """What an observer keeps in the same file, within the same transactions."""
        return EarningsStore(self._connection, self.fingerprint)

    def revision(self) -> int:
        """Return the revision that was last saved, 0 where nothing was; cheap enough to poll."""
        row = self._one("SELECT revision FROM learners WHERE fingerprint = ?")
        return 0 if row is None else int(row[0])

    def load(self) -> Saved | None:
        """Return what was last saved, or `None` where nothing was."""
        row = self._one("SELECT revision, state, counts FROM learners WHERE fingerprint = ?")
        return None if row is None else Saved(int(row[0]), row[1], orjson.loads(row[2]))

    def save(self, saved: Saved) -> None:
        """Replace what was last saved."""
        self._connection.execute(
            "INSERT OR REPLACE INTO learners VALUES (?, ?, ?, ?)",
            (self.fingerprint, saved.revision, saved.state, orjson.dumps(saved.counts).decode()),
        )

    def save_counts(self, counts: dict[str, int]) -> None:
        """Replace the counts of what was last saved; the state stays, and with it the revision."""
        self._connection.execute(
            "UPDATE learners SET counts = ? WHERE fingerprint = ?",
            (orjson.dumps(counts).decode(), self.fingerprint),
        )

    def cursors(self) -> dict[str, int]:
        """Return how far each segment was read."""
        rows = self._all("SELECT segment_id, seq FROM cursors WHERE fingerprint = ?")
        return {str(segment_id): int(seq) for segment_id, seq in rows}

    def move_cursor(self, segment_id: str, seq: int) -> None:
        """Note that a segment was read up to `seq`."""
        self._connection.execute(
            "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (self.fingerprint, segment_id, seq)
        )

    def open_decision(self, decision_id: str) -> OpenDecision | None:
        """Return a decision that waits for rewards, or `None` where it does not."""
        row = self._one(
            "SELECT decision FROM open_decisions WHERE fingerprint = ? AND decision_id = ?", decision_id
        )
        return None if row is None else OpenDecision.loads(row[0])

    def due(self, now: float, limit: int) -> list[OpenDecision]:
        """Return up to `limit` decisions whose horizon has passed, the earliest first."""
        rows = self._all(
            "SELECT decision FROM open_decisions WHERE fingerprint = ? AND deadline <= ?"
            " ORDER BY deadline, decision_id LIMIT ?",
            now,
            limit,
        )
        return [OpenDecision.loads(row[0]) for row in rows]

    def count_open(self) -> int:
        """Return how many decisions wait for rewards."""
        row = self._one("SELECT count(*) FROM open_decisions WHERE fingerprint = ?")
        return 0 if row is None else int(row[0])

    def keep_open(self, decision: OpenDecision, deadline: float) -> None:
        """Store a decision that waits for rewards."""
        self._connection.execute(
            "INSERT OR REPLACE INTO open_decisions VALUES (?, ?, ?, ?)",
            (self.fingerprint, decision.decision_id, deadline, decision.dumps()),
        )

    def forget_open(self, decision_ids: Iterable[str]) -> None:
        """Drop decisions that wait for nothing any more."""
        self._connection.executemany(
            "DELETE FROM open_decisions WHERE fingerprint = ? AND decision_id = ?",
            [(self.fingerprint, decision_id) for decision_id in decision_ids],
        )

    def keep_closed(self, outcomes: Iterable[Outcome]) -> None:
        """Store outcomes that are to be folded once all that is known of their time has been read."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO closed VALUES (?, ?, ?, ?, ?)",
            [(self.fingerprint, o.closed_at, o.decision_id, o.slot, dump_outcome(o)) for o in outcomes],
        )

    def take_closed(self, limit: int) -> list[Outcome]:
        """Return and drop the first `limit` closed outcomes, by when they closed, then decision and slot."""
        rows = self._all(
            "SELECT closed_at, decision_id, slot, outcome FROM closed WHERE fingerprint = ?"
            " ORDER BY closed_at, decision_id, slot LIMIT ?",
            limit,
        )
        self._connection.executemany(
            "DELETE FROM closed WHERE fingerprint = ? AND closed_at = ? AND decision_id = ? AND slot = ?",
            [(self.fingerprint, *row[:3]) for row in rows],
        )
        return [load_outcome(row[3]) for row in rows]

    def holds_closed(self) -> bool:
        """Return whether outcomes wait to be folded."""
        return self._one("SELECT 1 FROM closed WHERE fingerprint = ? LIMIT 1") is not None

    def request_erasure(self, user_id: str) -> None:
        """Ask whoever leads to erase a user."""
        self._connection.execute("INSERT OR IGNORE INTO erasures VALUES (?, NULL, 0)", (user_id,))

    def erasures(self) -> list[Erasure]:
        """Return the users who are to be erased, and how far that is."""
        rows = self._connection.execute("SELECT user_id, decision_ids, rebuild FROM erasures").fetchall()
        return [
            Erasure(str(user), None if ids is None else orjson.loads(ids), bool(rebuild))
            for user, ids, rebuild in rows
        ]

    def note_erasure(self, erasure: Erasure) -> None:
        """Note which decisions are next to leave the log, the state being free of them or to be rebuilt."""
        self._connection.execute(
            "UPDATE erasures SET decision_ids = ?, rebuild = ? WHERE user_id = ?",
            (orjson.dumps(erasure.decision_ids).decode(), erasure.rebuild, erasure.user_id),
        )

    def finish_erasure(self, user_id: str) -> None:
        """Drop the request, and every state but this one, which may know the user and is rebuilt when needed."""
        self._connection.execute("DELETE FROM erasures WHERE user_id = ?", (user_id,))
        for table in _TABLES:
            self._connection.execute(f"DELETE FROM {table} WHERE fingerprint <> ?", (self.fingerprint,))  # noqa: S608 - constant names

    def forget_decisions(self, decision_ids: Iterable[str]) -> None:
        """Drop all that waits for or belongs to these decisions."""
        keys = [(self.fingerprint, decision_id) for decision_id in decision_ids]
        for table in ("open_decisions", "early", "closed"):
            self._connection.executemany(
                f"DELETE FROM {table} WHERE fingerprint = ? AND decision_id = ?",  # noqa: S608 - constant names
                keys,
            )

    def clear(self) -> None:
        """Drop all that this fingerprint's learner knows."""
        for table in _TABLES:
            self._connection.execute(f"DELETE FROM {table} WHERE fingerprint = ?", (self.fingerprint,))  # noqa: S608 - constant names

    def adopt(self, fingerprint: str, revision: int) -> None:
        """Take the place of all that this fingerprint's learner knows by what another's does, as `revision`."""
        self.clear()
        for table in _TABLES:
            self._connection.execute(
                f"UPDATE {table} SET fingerprint = ? WHERE fingerprint = ?",  # noqa: S608 - constant names
                (self.fingerprint, fingerprint),
            )
        self._connection.execute(
            "UPDATE learners SET revision = ? WHERE fingerprint = ?", (revision, self.fingerprint)
        )

    def keep_early(self, feedback: Impression | Reward, expires: float) -> None:
        """Store feedback whose decision has not been read yet."""
        kind = "reward" if isinstance(feedback, Reward) else "impression"
        self._connection.execute(
            "INSERT INTO early VALUES (?, ?, ?, ?, ?)",
            (self.fingerprint, feedback.decision_id, expires, kind, orjson.dumps(feedback).decode()),
        )

    def take_early(self, decision_id: str) -> list[Impression | Reward]:
        """Return and drop the feedback that came before its decision, in the order it came."""
        rows = self._all(
            "SELECT kind, feedback FROM early WHERE fingerprint = ? AND decision_id = ? ORDER BY rowid",
            decision_id,
        )
        if rows:
            self._connection.execute(
                "DELETE FROM early WHERE fingerprint = ? AND decision_id = ?", (self.fingerprint, decision_id)
            )
        return [_early(str(kind), feedback) for kind, feedback in rows]

    def expired_kinds(self, now: float) -> dict[str, int]:
        """Return how much feedback, by kind, waited for a decision that never came."""
        rows = self._all(
            "SELECT kind, count(*) FROM early WHERE fingerprint = ? AND expires <= ? GROUP BY kind", now
        )
        return {str(kind): int(number) for kind, number in rows}

    def expire_early(self, now: float) -> None:
        """Drop feedback whose decision never came."""
        self._connection.execute(
            "DELETE FROM early WHERE fingerprint = ? AND expires <= ?", (self.fingerprint, now)
        )

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _one(self, query: str, *parameters: object) -> tuple[bytes, ...] | None:
        row: tuple[bytes, ...] | None = self._connection.execute(
            query, (self.fingerprint, *parameters)
        ).fetchone()
        return row

    def _all(self, query: str, *parameters: object) -> list[tuple[bytes, ...]]:
        return self._connection.execute(query, (self.fingerprint, *parameters)).fetchall()


def _early(kind: str, feedback: bytes) -> Impression | Reward:
    fields = orjson.loads(feedback)
    if kind == "reward":
        return Reward(**fields)
    return Impression(**{**fields, "items_in_order": tuple(fields["items_in_order"])})


def is_damage(error: BaseException) -> bool:
    """Return whether `error` says that the file's contents cannot be trusted."""
    return isinstance(error, CorruptState) or _sqlite.is_corrupt(error)
