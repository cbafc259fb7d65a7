"""The decision log: what was answered or acknowledged has left the process."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

import orjson

from explorank.hooks.errors import InvalidFeedback, LogUnavailable
from explorank.hooks.feedback import _sqlite
from explorank.hooks.feedback._file_lock import FileLock
from explorank.hooks.feedback.record import encode
from explorank.hooks.feedback.segments import Segments, last_sequence, open_for_writing, segment_path
from explorank.hooks.types import DecisionRecord, Impression, Reward

Durability: TypeAlias = Literal["process", "power"]

# NORMAL rather than OFF for `process`: neither syncs at a commit, but OFF would not order the writes of a
# checkpoint either, and a power cut could then take the whole segment instead of its last commits.
_SYNCHRONOUS: Final[dict[Durability, str]] = {"process": "NORMAL", "power": "FULL"}

_DECISION: Final = (
    "INSERT INTO decisions (seq, decision_id, time, record) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (decision_id) DO NOTHING"
)
_IMPRESSION: Final = "INSERT INTO impressions (seq, decision_id, time, items) VALUES (?, ?, ?, ?)"
_REWARD: Final = (
    "INSERT INTO rewards (seq, reward_id, decision_id, slot, item_id, kind, value, time)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (reward_id) DO NOTHING"
)


_ROWS_PER_CHECKPOINT: Final = 500
_WAL_PAGES_TO_RESTART: Final = 4_096  # 16 MiB
_WAL_PAGES_AT_MOST: Final = 65_536  # 256 MiB, where writers empty the WAL themselves if nobody else could


@dataclass(frozen=True, slots=True)
class LogStats:
    """What one log did since it was opened."""

    appends: int
    """Calls whose rows were committed."""
    commits: int
    """Transactions they shared; fewer than `appends` where threads met."""
    failures: int
    """Calls that ended in `LogUnavailable`."""
    moved_aside: tuple[Path, ...]
    """Damaged files that were moved out of the way."""


class _Append:
    """One caller's rows on their way to disk."""

    __slots__ = ("failure", "fresh", "leads", "rows", "statement", "turn")

    def __init__(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        self.statement = statement
        self.rows = rows
        self.fresh: list[bool] | None = None
        self.failure: str | None = None
        self.leads = False
        """Whether this caller is the one to commit for all who wait."""
        self.turn = threading.Lock()
        """Released once the rows are settled or their caller leads."""
        self.turn.acquire()

    @property
    def settled(self) -> bool:
        return self.fresh is not None or self.failure is not None


class DecisionLog:
    """The durable log of one worker: its own SQLite segment in a folder that all workers share.

    **Guarantee.** What an append has returned for has left the process: a SIGKILL at any later moment loses
    none of it. With `durability="power"` it has also been fsynced, so that a power cut loses none of it;
    with `"process"` a power cut may take the last commits, never the file's integrity. An append that
    raised was not acknowledged, and may be repeated: ids make repeats harmless.

    **Group commits.** Callers block until their rows are committed. Whoever comes first commits for all who
    wait by then, so threads share a commit and a lone caller pays for no hand-over.

    Safe to share between threads. A forked child must open a log of its own, under another worker name.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        worker: str | None = "0",
        durability: Durability = "process",
        busy_timeout_s: float = 1.0,
        max_waiting: int = 1024,
    ) -> None:
        """Open the segment of `worker`, or of the first free number where it is `None`.

        `busy_timeout_s` bounds the wait for a lock that another process holds. More than `max_waiting`
        callers at once are turned away with `LogUnavailable` instead of filling the memory.

        Raises `LogUnavailable` where the segment cannot be had.
        """
        self.folder = Path(folder)
        self._durability = durability
        self._busy_timeout_s = busy_timeout_s
        self._max_waiting = max_waiting
        self._pid = os.getpid()
        self._waiting: deque[_Append] = deque()
        self._mutex = threading.Lock()  # guards the queue, the lead and the counters; not held while writing
        self._led = False  # whether some caller leads, which alone may touch the connection
        self._idle = threading.Condition(self._mutex)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._size = 0
        self._sequence = 0
        self._damaged = False
        self._appends = self._commits = self._failures = 0
        self._moved_aside: list[Path] = []
        self.worker, self._lock = self._claim(worker)
        self.path = segment_path(self.folder, self.worker)
        self._segments = Segments(self.folder, busy_timeout_s=busy_timeout_s)
        self._checkpointer = _Checkpointer(self.path)
        try:
            self._ready()
        except LogUnavailable:
            self.close()
            raise
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise _sqlite.unavailable(self.path, error) from error
        self._checkpointer.start()

    def append_decision(self, record: DecisionRecord) -> bool:
        """Make a decision durable; False says that the segment holds its id already and kept what it had.

        Raises `InvalidBatch` where it cannot be stored at all, `LogUnavailable` where it was not stored.
        """
        row = (record.decision_id, float(record.request.time), encode(record))
        return self._append(_DECISION, [row])[0]

    def append_impression(self, impression: Impression) -> None:
        """Make the host's word on what it displayed durable.

        Raises `InvalidFeedback` for what no log could store, `LogUnavailable` where it was not stored.
        """
        _check(impression.decision_id, *impression.items_in_order, time=impression.time)
        items = orjson.dumps(impression.items_in_order).decode()
        self._append(_IMPRESSION, [(impression.decision_id, float(impression.time), items)])

    def append_rewards(self, rewards: Sequence[Reward]) -> list[bool]:
        """Make rewards durable, all or none; return for each whether its id was new.

        An id that any segment of the folder holds is not stored again. A reward is taken before its decision
        is known, which may be on its way in another worker's segment; whether a decision exists is for the
        caller to ask (`decision`), and the learner joins the two whenever they meet.

        Raises `InvalidFeedback` for what no log could store, such as a value that is not finite, and
        `LogUnavailable` where nothing was stored.
        """
        if not rewards:
            return []
        for reward in rewards:
            texts = (reward.item_id, reward.kind, reward.reward_id)
            _check(reward.decision_id, *texts, value=reward.value, time=reward.time, slot=reward.slot)
        # Two workers given the same id in the same instant both store it; the learner counts it once.
        known = self._segments.known_rewards([reward.reward_id for reward in rewards], besides=self.path)
        new = [reward for reward in rewards if reward.reward_id not in known]
        if not new:
            return [False] * len(rewards)
        rows = [
            (r.reward_id, r.decision_id, int(r.slot), r.item_id, r.kind, float(r.value), float(r.time))
            for r in new
        ]
        fresh = iter(self._append(_REWARD, rows))
        return [reward.reward_id not in known and next(fresh) for reward in rewards]

    def decision(self, decision_id: str) -> DecisionRecord:
        """Return a decision from whichever worker's segment holds it, dead workers included.

        Raises `UnknownDecision` where none does, `LogUnavailable` where a segment could not be read.
        """
        return self._segments.decision(decision_id)

    def rewarded(self, kinds: Iterable[str], since: float) -> list[tuple[str, str, float]]:
        """Return decision, item and time of each reward of these kinds after `since`, over all segments.

        Reads every reward. Raises `LogUnavailable` where a segment could not be read.
        """
        found = self._segments.rewarded(kinds, since)
        if self._segments.may_hold_more:
            raise LogUnavailable(f"Segments of {self.folder} are locked or unreadable right now. Ask again.")
        return found

    def reader(self) -> Segments:
        """Return a reader of this log's folder with connections of its own, which hold up no caller of this log."""
        return Segments(self.folder, busy_timeout_s=self._busy_timeout_s)

    @property
    def stats(self) -> LogStats:
        """What this log did so far."""
        with self._mutex:
            return LogStats(self._appends, self._commits, self._failures, tuple(self._moved_aside))

    def close(self) -> None:
        """Wait for the commit under way, close the segment and let its worker name go."""
        self._checkpointer.stop()
        # Readers first: the last connection to close empties the WAL into the segment, if it may write.
        self._segments.close()
        with self._idle:
            self._idle.wait_for(lambda: not self._led)
            self._close_connection()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _claim(self, worker: str | None) -> tuple[str, FileLock]:
        names = [worker] if worker is not None else [str(number) for number in range(4096)]
        for name in names:
            if not name or not name.replace("-", "").replace("_", "").isalnum():
                raise LogUnavailable(
                    f"Worker name {name!r} becomes part of a file name; it may hold letters, digits, `-` and "
                    "`_` only. Choose another."
                )
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock.take(self.folder / f"segment-{name}.lock")
            except OSError as error:
                raise _sqlite.unavailable(self.folder, error) from error
            if lock is not None:
                return name, lock
        raise LogUnavailable(
            f"{segment_path(self.folder, names[0])} is in use by another log, and a segment has one writer. "
            "Give each worker a name of its own, or `worker=None` to take the first free number."
        )

    def _append(self, statement: str, rows: list[tuple[Any, ...]]) -> list[bool]:
        append = _Append(statement, rows)
        try:
            self._enter(append)
            if not append.leads:
                self._await_turn(append)
            if append.leads:
                self._commit_waiting()
        finally:
            self._leave(append)
        if append.fresh is None:
            raise LogUnavailable(append.failure)
        return append.fresh

    def _enter(self, append: _Append) -> None:
        """Queue `append`; its caller leads if nobody does."""
        with self._mutex:
            if os.getpid() != self._pid:
                raise LogUnavailable(
                    f"{self.path} was opened by process {self._pid} and cannot be used in its child "
                    f"{os.getpid()}: SQLite files do not survive a fork. Open a log in each process."
                )
            if len(self._waiting) >= self._max_waiting:
                self._failures += 1
                raise LogUnavailable(
                    f"{len(self._waiting)} callers already wait for {self.path}, the most that are let in; "
                    "the disk is slower than the traffic. Slow down, or spread it over more workers."
                )
            self._waiting.append(append)
            append.leads = not self._led
            self._led = True

    def _await_turn(self, append: _Append) -> None:
        """Wait until `append` is settled or leads; give up only where it can still be withdrawn."""
        if append.turn.acquire(timeout=2 * self._busy_timeout_s):
            return
        with self._mutex:
            if append in self._waiting and not append.leads:
                self._failures += 1
                raise LogUnavailable(
                    f"{self.path} did not finish a commit within {2 * self._busy_timeout_s:g} s, so this one "
                    "was withdrawn. Check the disk, and who holds a lock on the file."
                )
        # Its group is being committed right now: only the end of that tells whether it is in the log.
        append.turn.acquire()

    def _leave(self, append: _Append) -> None:
        """Let the next waiting caller lead if this one did, however it ended."""
        with self._idle:
            if append in self._waiting:
                self._waiting.remove(append)
            if not append.leads:
                return
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].turn.release()
            else:
                self._led = False
                self._idle.notify_all()

    def _commit_waiting(self) -> None:
        with self._mutex:
            group = list(self._waiting)
            self._waiting.clear()
        failure = f"{self.path}: the commit was interrupted, so that nothing was stored. Append again."
        try:
            self._write(group)
        except (sqlite3.Error, OSError) as error:
            self._damaged = self._damaged or _sqlite.is_corrupt(error)
            known = isinstance(error, LogUnavailable)
            failure = str(error if known else _sqlite.unavailable(self.path, error))
        except BaseException:
            self._close_connection()
            raise
        finally:
            with self._mutex:
                done = [append for append in group if append.fresh is not None]
                self._appends += len(done)
                self._commits += bool(done)
                self._failures += len(group) - len(done)
            for append in group:
                if append.fresh is None:
                    append.failure = failure
                if not append.leads:
                    append.turn.release()

    def _write(self, group: list[_Append]) -> None:
        connection = self._ready()
        sequence = self._sequence
        answers: list[list[bool]] = []
        try:
            with _sqlite.transaction(connection):
                for append in group:
                    fresh = []
                    for row in append.rows:
                        sequence += 1
                        fresh.append(connection.execute(append.statement, (sequence, *row)).rowcount == 1)
                    answers.append(fresh)
        except sqlite3.Error as error:
            if not _sqlite.is_busy(error):
                self._close_connection()
            raise
        self._checkpointer.count(sequence - self._sequence)
        self._sequence = sequence
        for append, fresh in zip(group, answers, strict=True):
            append.fresh = fresh

    def _ready(self) -> sqlite3.Connection:
        """Return the open segment; open it again after a failure, a replacement or damage."""
        if not self._lock.held:
            raise LogUnavailable(f"{self.path} was closed. Open a new `DecisionLog` to append to it.")
        if self._connection is not None:
            if self._unchanged():
                return self._connection
            self._close_connection()
        if self._damaged:
            self._move_aside("SQLite found it corrupt while it was in use")
        try:
            return self._open()
        except sqlite3.Error as error:
            if not _sqlite.is_corrupt(error):
                raise
            self._move_aside(str(error))
            return self._open()

    def _unchanged(self) -> bool:
        """Return whether the path still leads to the file that is open, and none of it was cut off.

        SQLite would go on writing to a file that was deleted, and hide a cut under its cache.
        """
        try:
            status = self.path.stat()
        except OSError:
            return False
        if (status.st_dev, status.st_ino) != self._identity:
            return False
        if status.st_size < self._size:
            # Before it is closed, which would fill the gap from the WAL and hide it.
            self._move_aside(f"it shrank from {self._size} to {status.st_size} bytes while in use")
            return False
        self._size = status.st_size
        return True

    def _open(self) -> sqlite3.Connection:
        connection = open_for_writing(
            self.path, busy_timeout_s=self._busy_timeout_s, synchronous=_SYNCHRONOUS[self._durability]
        )
        try:
            connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES_AT_MOST}")
            if self._durability == "power":
                _sync_folder(self.folder)
            # Beyond anything a power cut may have taken: no worker writes a million events a second.
            self._sequence = max(last_sequence(connection), time.time_ns() // 1000)
            status = self.path.stat()
        except BaseException:
            connection.close()
            raise
        self._identity, self._size = (status.st_dev, status.st_ino), status.st_size
        self._connection = connection
        return connection

    def _move_aside(self, why: str) -> None:
        self._moved_aside.append(_sqlite.move_aside(self.path, why))
        self._damaged = False

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


class _Checkpointer:
    """Moves the WAL into the segment beside the writers, whom its fsyncs would hold up for milliseconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = 0
        self._due = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"checkpoint {path.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def count(self, rows: int) -> None:
        self._rows += rows
        if self._rows >= _ROWS_PER_CHECKPOINT:
            self._rows = 0
            self._due.set()

    def stop(self) -> None:
        self._stopped = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while self._due.wait() and not self._stopped:
            self._due.clear()
            # What fails here is tried again with the next rows; the writer meets the same trouble and tells.
            with suppress(sqlite3.Error):
                _sqlite.checkpoint(self._path, restart_beyond_pages=_WAL_PAGES_TO_RESTART)


def _check(decision_id: str, *texts: str, **numbers: float) -> None:
    """Refuse what SQLite would not take: in a shared commit it would fail the other callers too."""
    for text in (decision_id, *texts):
        try:
            text.encode()
        except (AttributeError, UnicodeEncodeError) as error:
            raise InvalidFeedback(
                f"{text!r} in feedback for decision {decision_id!r} is not valid text, so it could not be "
                "joined to anything and nothing was stored. Send ids and kinds as Unicode strings."
            ) from error
    for name, number in numbers.items():
        if not math.isfinite(number) or (name == "slot" and not 0 <= number < 2**31):
            raise InvalidFeedback(
                f"The {name} {number!r} in feedback for decision {decision_id!r} is not a number that can be "
                "learnt from, so nothing was stored. Send finite numbers, and slots counted from 0."
            )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
