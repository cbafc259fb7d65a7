"""The log's files: one SQLite segment per worker, and reading over all of them.

A segment is one history: its sequence numbers ascend over decisions, impressions and rewards together, and
each time a worker opens it they start beyond the clock's microseconds. So a reader's cursor stays true even
where a power cut takes the last commits of a segment away.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from explorank.hooks.errors import CorruptState, LogUnavailable, UnknownDecision
from explorank.hooks.feedback import _sqlite
from explorank.hooks.feedback.record import decode
from explorank.hooks.types import DecisionRecord, Impression, Reward

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
"""Of a segment's tables; it stands in every segment and is checked when one is opened."""

_SCHEMA: Final = (
    "CREATE TABLE segment (id TEXT NOT NULL)",
    """CREATE TABLE decisions (
        seq INTEGER PRIMARY KEY, decision_id TEXT NOT NULL UNIQUE, time REAL NOT NULL,
        record BLOB NOT NULL)""",
    """CREATE TABLE impressions (
        seq INTEGER PRIMARY KEY, decision_id TEXT NOT NULL, time REAL NOT NULL, items TEXT NOT NULL)""",
    """CREATE TABLE rewards (
        seq INTEGER PRIMARY KEY, reward_id TEXT NOT NULL UNIQUE, decision_id TEXT NOT NULL,
        slot INTEGER NOT NULL, item_id TEXT NOT NULL, kind TEXT NOT NULL, value REAL NOT NULL,
        time REAL NOT NULL)""",
    "CREATE INDEX impressions_of ON impressions (decision_id)",
    "CREATE INDEX rewards_of ON rewards (decision_id)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_PREFIX: Final = "segment-"
_SUFFIX: Final = ".db"
_REWARD_COLUMNS: Final = "reward_id, decision_id, slot, item_id, kind, value, time"
_LAST: Final = 2**63 - 1

Event: TypeAlias = DecisionRecord | Impression | Reward


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision with everything that came back for it, over all segments, oldest first."""

    record: DecisionRecord
    impressions: tuple[Impression, ...]
    rewards: tuple[Reward, ...]
    """Each reward id once."""


def segment_path(folder: Path, worker: str) -> Path:
    """Return where the segment of `worker` lies."""
    return folder / f"{_PREFIX}{worker}{_SUFFIX}"


def open_for_writing(path: Path, *, busy_timeout_s: float, synchronous: str) -> sqlite3.Connection:
    """Open the segment at `path`, creating it where there is none.

    Raises `sqlite3.Error` where SQLite cannot, `LogUnavailable` for a segment of another version.
    """
    connection = _sqlite.connect(path, busy_timeout_s=busy_timeout_s, synchronous=synchronous)
    try:
        if not _check_version(connection, path):
            with _sqlite.transaction(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO segment VALUES (?)", (uuid.uuid4().hex,))
    except BaseException:
        connection.close()
        raise
    return connection


def last_sequence(connection: sqlite3.Connection) -> int:
    """Return the highest sequence number in use, 0 in an empty segment."""
    row = connection.execute(
        "SELECT max(ifnull((SELECT max(seq) FROM decisions), 0),"
        " ifnull((SELECT max(seq) FROM impressions), 0), ifnull((SELECT max(seq) FROM rewards), 0))"
    ).fetchone()
    return int(row[0])


def _check_version(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file has its tables; raise `LogUnavailable` for another version's."""
    version = _sqlite.user_version(connection)
    if version not in {0, SCHEMA_VERSION}:
        raise LogUnavailable(
            f"{path} has schema version {version}; this installation reads and writes version "
            f"{SCHEMA_VERSION} and leaves the file as it is. Use the version of explorank that wrote it, or "
            "another folder."
        )
    return version == SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    identity: tuple[int, int]
    segment_id: str
    connection: sqlite3.Connection


class Segments:
    """Reads every segment in a folder, those of dead workers too; safe to share between threads.

    Connections are read-only, stay open, and hold no transaction between two calls. A segment that is
    damaged or locked is left out and reported; `unreadable` names such files.
    """

    def __init__(self, folder: Path, *, busy_timeout_s: float = 1.0) -> None:
        self.folder = folder
        self.unreadable: dict[Path, Exception] = {}
        """Segments the last look at the folder could not read, each with its reason."""
        self._reported: dict[Path, str] = {}
        self._busy_timeout_s = busy_timeout_s
        self._open: dict[Path, _Segment] = {}
        self._lock = threading.RLock()

    def copies(self, decision_id: str) -> dict[str, int]:
        """Return the segments that hold a decision, each with its sequence number there."""
        rows = self._each("SELECT seq FROM decisions WHERE decision_id = ?", (decision_id,))
        return {segment.segment_id: int(row[0]) for segment, row in rows}

    def decision(self, decision_id: str) -> DecisionRecord:
        """Return a decision from whichever segment holds it.

        Raises `UnknownDecision` where none does, `LogUnavailable` where one that might could not be read.
        """
        query = "SELECT record FROM decisions WHERE decision_id = ?"
        for _, row in self._each(query, (decision_id,)):
            return decode(row[0])
        if self.unreadable:
            reasons = "; ".join(f"{path} ({error})" for path, error in self.unreadable.items())
            raise LogUnavailable(
                f"Decision {decision_id!r} is in none of the readable segments of {self.folder}, and others "
                f"could not be read: {reasons}"
            )
        raise UnknownDecision(
            f"No segment in {self.folder} holds decision {decision_id!r}, so there is nothing to join "
            "feedback with, or to explain. Give the `decision_id` that the ranking answered with, and its log folder."
        )

    def known_rewards(self, reward_ids: Iterable[str], *, besides: Path | None = None) -> set[str]:
        """Return those of `reward_ids` that some segment holds, the one at `besides` not asked."""
        known = set()
        query = "SELECT reward_id FROM rewards WHERE reward_id IN (SELECT value FROM json_each(?))"
        wanted = orjson.dumps(list(reward_ids)).decode()
        for _, row in self._each(query, (wanted,), besides=besides):
            known.add(str(row[0]))
        return known

    def read(
        self, cursors: Mapping[str, int], limit: int, until: Mapping[str, int] | None = None
    ) -> Iterator[tuple[str, int, list[Event]]]:
        """Yield up to about `limit` events beyond each segment's cursor, with the cursor that follows them.

        With `until`, nothing beyond those cursors is read; a segment without one is not read at all.

        The events of a segment come in the order in which they were written. A record that is damaged is
        left out and reported.
        """
        with self._lock:
            for segment in self._refresh().values():
                try:
                    last = _LAST if until is None else until.get(segment.segment_id, 0)
                    cursor, events = _read_segment(segment, cursors.get(segment.segment_id, 0), last, limit)
                except sqlite3.Error as error:
                    self._drop(segment, error)
                    continue
                if cursor > cursors.get(segment.segment_id, 0):
                    yield segment.segment_id, cursor, events

    def ends(self) -> dict[str, int]:
        """Return the highest sequence number of each segment that can be read now."""
        ends: dict[str, int] = {}
        with self._lock:
            for segment in self._refresh().values():
                try:
                    ends[segment.segment_id] = last_sequence(segment.connection)
                except sqlite3.Error as error:
                    self._drop(segment, error)
        return ends

    def rewards(
        self, cursors: Mapping[str, int], limit: int, *, otherwise: int, besides: Path
    ) -> Iterator[tuple[str, int, list[Reward]]]:
        """Yield up to `limit` rewards beyond each segment's cursor, with the cursor that follows them.

        They come in the order in which they were written. A segment without a cursor is read from `otherwise` on, the
        one at `besides` not at all.
        """
        query = f"SELECT seq, {_REWARD_COLUMNS} FROM rewards WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - constant columns
        with self._lock:
            for segment in self._refresh().values():
                if segment.path == besides:
                    continue
                after = cursors.get(segment.segment_id, otherwise)
                try:
                    rows = segment.connection.execute(query, (after, limit)).fetchall()
                except sqlite3.Error as error:
                    self._drop(segment, error)
                    continue
                if rows:
                    yield segment.segment_id, int(rows[-1][0]), [_reward(row[1:]) for row in rows]

    def feedback(self, decision_id: str) -> tuple[tuple[Impression, ...], tuple[Reward, ...]]:
        """Return the impressions and rewards of a decision over all segments, oldest first."""
        shown = self._each("SELECT items, time FROM impressions WHERE decision_id = ?", (decision_id,))
        impressions = [_impression(decision_id, row[0], row[1]) for _, row in shown]
        earned = self._each(f"SELECT {_REWARD_COLUMNS} FROM rewards WHERE decision_id = ?", (decision_id,))  # noqa: S608 - constant columns
        rewards = {reward.reward_id: reward for reward in (_reward(row) for _, row in earned)}
        return (
            tuple(sorted(impressions, key=lambda impression: impression.time)),
            tuple(sorted(rewards.values(), key=lambda reward: (reward.time, reward.reward_id))),
        )

    def rewarded(self, kinds: Iterable[str], since: float) -> list[tuple[str, str, float]]:
        """Return decision, item and time of each reward of these kinds that happened after `since`."""
        query = (
            "SELECT decision_id, item_id, time FROM rewards"
            " WHERE kind IN (SELECT value FROM json_each(?)) AND time > ?"
        )
        wanted = orjson.dumps(list(kinds)).decode()
        return [(str(row[0]), str(row[1]), float(row[2])) for _, row in self._each(query, (wanted, since))]

    def decisions_of(self, user_id: str) -> Iterator[tuple[str, int, str, DecisionRecord | None]]:
        """Yield each decision made for a user: segment, sequence number, id, and the record unless it is damaged.

        Raises `LogUnavailable` where a segment cannot be read, because it might hold more of them.
        """
        # The record is arrays after one JSON header, which holds the user's id in just these bytes.
        needle = b'"user_id":' + orjson.dumps(user_id)
        query = "SELECT seq, decision_id, record FROM decisions WHERE instr(record, ?)"
        found = self._each(query, (needle,))
        self._demand_all(f"decisions of user {user_id!r}")
        for segment, (seq, decision_id, data) in found:
            try:
                record = decode(data)
            except CorruptState:
                yield segment.segment_id, int(seq), str(decision_id), None
                continue
            if record.request.user_id == user_id:
                yield segment.segment_id, int(seq), str(decision_id), record

    def events_of(self, decision_id: str, cursors: Mapping[str, int]) -> list[Impression | Reward]:
        """Return what came for a decision up to each segment's cursor, segment by segment as it was written."""
        events: list[tuple[str, int, Impression | Reward]] = []
        shown = self._each("SELECT seq, items, time FROM impressions WHERE decision_id = ?", (decision_id,))
        for segment, (seq, items, at) in shown:
            events.append((segment.segment_id, seq, _impression(decision_id, items, at)))
        earned = self._each(
            f"SELECT seq, {_REWARD_COLUMNS} FROM rewards WHERE decision_id = ?",  # noqa: S608 - constant columns
            (decision_id,),
        )
        events += [(segment.segment_id, row[0], _reward(row[1:])) for segment, row in earned]
        self._demand_all(f"feedback for decision {decision_id!r}")
        events.sort(key=lambda event: event[:2])
        return [event for segment_id, seq, event in events if seq <= cursors.get(segment_id, 0)]

    def erase(self, decision_ids: Sequence[str], *, patience_s: float = 5.0) -> None:
        """Delete decisions with their impressions and rewards from every segment, and overwrite their bytes.

        Safe beside the workers that write: it is one more transaction for each of them to wait for, and no file
        shrinks. Raises `LogUnavailable` where a segment could not be changed; it is safe to try again.
        """
        wanted = orjson.dumps(list(decision_ids)).decode()
        with self._lock:
            paths = list(self._refresh())
            self._demand_all("decisions to erase")
        for path in paths:
            address = f"{path.absolute().as_uri()}?mode=rw"
            try:
                with closing(
                    sqlite3.connect(address, uri=True, timeout=patience_s, isolation_level=None)
                ) as connection:
                    connection.execute("PRAGMA secure_delete=ON")
                    with _sqlite.transaction(connection):
                        for table in ("decisions", "impressions", "rewards"):
                            connection.execute(
                                f"DELETE FROM {table} WHERE decision_id IN (SELECT value FROM json_each(?))",  # noqa: S608 - constant names
                                (wanted,),
                            )
                overwritten = _sqlite.leave_no_trace(path, patience_s=patience_s)
            except sqlite3.Error as error:
                raise _sqlite.unavailable(path, error) from error
            if not overwritten:
                raise LogUnavailable(
                    f"What was deleted from {path} still stands in its WAL, which others kept busy for "
                    f"{patience_s:g} s. It is deleted already; to overwrite its bytes, try again."
                )

    def _demand_all(self, what: str) -> None:
        if self.unreadable:
            reasons = "; ".join(f"{path} ({error})" for path, error in self.unreadable.items())
            raise LogUnavailable(
                f"Segments of {self.folder} that might hold {what} could not be read: {reasons}. Repair them or "
                "move them out of the folder, and try again."
            )

    @property
    def may_hold_more(self) -> bool:
        """Whether a segment that could not be read may be readable soon, being merely locked, say."""
        return any(
            isinstance(error, sqlite3.Error) and not _sqlite.is_corrupt(error)
            for error in self.unreadable.values()
        )

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        with self._lock:
            for segment in self._open.values():
                segment.connection.close()
            self._open.clear()

    def _each(
        self, query: str, parameters: tuple[str | float | bytes, ...], *, besides: Path | None = None
    ) -> list[tuple[_Segment, tuple[Any, ...]]]:
        found: list[tuple[_Segment, tuple[Any, ...]]] = []
        with self._lock:
            for segment in self._refresh().values():
                if segment.path == besides:
                    continue
                try:
                    rows = segment.connection.execute(query, parameters).fetchall()
                except sqlite3.Error as error:
                    self._drop(segment, error)
                    continue
                found.extend((segment, row) for row in rows)
        return found

    def _refresh(self) -> dict[Path, _Segment]:
        """Open new segments, close those that went away or were replaced; return all, by path."""
        self.unreadable = {}
        present = {
            path: identity
            for path in sorted(self.folder.glob(f"{_PREFIX}*{_SUFFIX}"))
            if (identity := _sqlite.file_identity(path)) is not None
        }
        for path, segment in list(self._open.items()):
            if present.get(path) != segment.identity:
                segment.connection.close()
                del self._open[path]
        for path, identity in present.items():
            if path not in self._open:
                self._open_segment(path, identity)
        return dict(self._open)

    def _open_segment(self, path: Path, identity: tuple[int, int]) -> None:
        try:
            connection = _sqlite.connect_read_only(path, busy_timeout_s=self._busy_timeout_s)
        except sqlite3.Error as error:
            self._report(path, error)
            return
        try:
            # Without tables, its worker is just about to create them.
            if _check_version(connection, path):
                segment_id = str(connection.execute("SELECT id FROM segment").fetchone()[0])
                self._open[path] = _Segment(path, identity, segment_id, connection)
        except (sqlite3.Error, LogUnavailable) as error:
            self._report(path, error)
        finally:
            if path not in self._open:
                connection.close()

    def _drop(self, segment: _Segment, error: sqlite3.Error) -> None:
        del self._open[segment.path]
        with suppress(sqlite3.Error):
            segment.connection.close()
        self._report(segment.path, error)

    def _report(self, path: Path, error: Exception) -> None:
        self.unreadable[path] = error
        # Readers come by every second; one report per cause is enough.
        if self._reported.get(path) != str(error):
            self._reported[path] = str(error)
            logger.warning("%s could not be read and is left out for now: %s", path, error)


def count_decisions(folder: str | Path) -> int:
    """Return how many decisions the readable segments in `folder` hold, copies included."""
    segments = Segments(Path(folder))
    try:
        return sum(int(row[0]) for _, row in segments._each("SELECT count(*) FROM decisions", ()))
    finally:
        segments.close()


def read_log(folder: str | Path) -> Iterator[LoggedDecision]:
    """Yield every decision in `folder` with its impressions and rewards, segment by segment, oldest first.

    Reads while workers write; a decision that two segments hold comes once. Memory holds one batch.
    """
    segments = Segments(Path(folder))
    try:
        cursors: dict[str, int] = {}
        while batches := list(segments.read(cursors, limit=256)):
            for segment_id, cursor, events in batches:
                cursors[segment_id] = cursor
                for event in events:
                    if not isinstance(event, DecisionRecord):
                        continue
                    if min(segments.copies(event.decision_id), default=segment_id) == segment_id:
                        yield LoggedDecision(event, *segments.feedback(event.decision_id))
    finally:
        segments.close()


def _read_segment(segment: _Segment, after: int, last: int, limit: int) -> tuple[int, list[Event]]:
    connection = segment.connection
    # One read transaction, so that the three tables are of the same moment.
    connection.execute("BEGIN")
    try:
        tables = [
            connection.execute(
                f"SELECT seq, {columns} FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",  # noqa: S608 - constants
                (after, last, limit),
            ).fetchall()
            for table, columns in (
                ("decisions", "record"),
                ("impressions", "decision_id, items, time"),
                ("rewards", _REWARD_COLUMNS),
            )
        ]
    finally:
        connection.execute("COMMIT")
    # A table cut off by the limit has more to say; nothing beyond its last row may overtake that.
    cut = min((rows[-1][0] for rows in tables if len(rows) == limit), default=None)
    decisions, impressions, rewards = (
        [row for row in rows if cut is None or row[0] <= cut] for rows in tables
    )
    events: list[tuple[int, Event]] = []
    for seq, data in decisions:
        try:
            events.append((seq, decode(data)))
        except CorruptState as error:
            logger.error("A decision in %s (seq %d) is left out: %s", segment.path, seq, error)  # noqa: TRY400 - the message says it all
    events.extend((row[0], _impression(row[1], row[2], row[3])) for row in impressions)
    events.extend((row[0], _reward(row[1:])) for row in rewards)
    events.sort(key=lambda pair: pair[0])
    reached = max((rows[-1][0] for rows in (decisions, impressions, rewards) if rows), default=after)
    return reached, [event for _, event in events]


def _impression(decision_id: str, items: str, time: float) -> Impression:
    return Impression(decision_id=decision_id, items_in_order=tuple(orjson.loads(items)), time=time)


def _reward(row: tuple[Any, ...]) -> Reward:
    reward_id, decision_id, slot, item_id, kind, value, time = row
    return Reward(
        decision_id=decision_id,
        slot=slot,
        item_id=item_id,
        kind=kind,
        value=value,
        reward_id=reward_id,
        time=time,
    )
