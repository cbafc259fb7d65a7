"""The suite finds what it is there to find: state stores that break the contract in one way each.

The sound one is another backend in full: one JSON file, replaced as a whole by every transaction.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

import explorank.testing.state_leading as leading
from explorank.hooks.feedback import Entry
from explorank.testing import StateStoreTests

Rows = dict[tuple[str, str, str, int], Entry]


class FileLease:
    def __init__(self, path):
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise

    def renew(self):
        return self._descriptor is not None

    def release(self):
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


class FileStore:
    """Reads see the file as it is; a transaction holds a lock, and its writes are applied at its end."""

    def __init__(self, path: Path, fingerprint: str):
        self.path = path
        self.fingerprint = fingerprint
        self.writes: list[Callable[[Rows], None]] = []
        with self.locked():
            if not path.exists():
                self.write({}, uuid.uuid4().hex)
        self.identity = self.read()[1]

    @property
    def replaced(self):
        return not self.path.exists() or self.read()[1] != self.identity

    @contextmanager
    def transaction(self):
        with self.locked():
            self.writes = []
            yield
            rows, identity = self.read()
            for write in self.writes:
                write(rows)
            self.write(rows, identity)

    def get(self, shelf, key):
        return sorted((e for e in self.on(shelf) if e.key == key), key=lambda entry: entry.part)

    def first(self, shelf, until, limit=None):
        due = [entry for entry in self.on(shelf) if entry.at <= until]
        return sorted(due, key=lambda entry: (entry.at, entry.key, entry.part))[:limit]

    def count(self, shelf):
        return len(self.on(shelf))

    def put(self, shelf, entries):
        listed = list(entries)
        self.writes.append(lambda rows: rows.update({self.place(shelf, e): e for e in listed}))

    def drop(self, shelf, entries):
        listed = list(entries)
        self.writes.append(lambda rows: [rows.pop(self.place(shelf, e), None) for e in listed] and None)

    def clear(self):
        self.drop_where(lambda place: place[0] == self.fingerprint)

    def clear_others(self):
        self.drop_where(lambda place: place[0] not in {self.fingerprint, ""})

    def adopt(self, fingerprint, shelves):
        names = {shelf.name for shelf in shelves}
        self.drop_where(lambda place: place[0] == self.fingerprint and place[1] in names)

        def move(rows):
            for place in [place for place in rows if place[0] == fingerprint and place[1] in names]:
                rows[self.fingerprint, *place[1:]] = rows.pop(place)

        self.writes.append(move)

    def leave_no_trace(self):
        return True

    def close(self):
        pass

    # ---- the file ---------------------------------------------------------------------------------------

    @contextmanager
    def locked(self):
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self) -> tuple[Rows, str]:
        identity, packed = orjson.loads(self.path.read_bytes())
        rows = {
            (owner, shelf, key, part): Entry(key, value.encode("latin-1"), at, part)
            for owner, shelf, key, part, at, value in packed
        }
        return rows, identity

    def write(self, rows: Rows, identity: str) -> None:
        packed = [(*place, entry.at, entry.value.decode("latin-1")) for place, entry in rows.items()]
        beside = self.path.with_suffix(".new")
        beside.write_bytes(orjson.dumps([identity, packed]))
        beside.rename(self.path)

    def on(self, shelf) -> list[Entry]:
        wanted = self.place(shelf, Entry(""))[:2]
        return [entry for place, entry in self.read()[0].items() if place[:2] == wanted]

    def place(self, shelf, entry) -> tuple[str, str, str, int]:
        return "" if shelf.shared else self.fingerprint, shelf.name, entry.key, entry.part

    def drop_where(self, condition) -> None:
        self.writes.append(
            lambda rows: [rows.pop(place) for place in list(rows) if condition(place)] and None
        )


class FileStates:
    store: ClassVar[type[FileStore]] = FileStore

    def __init__(self, path: Path):
        self.path = path

    @property
    def name(self):
        return str(self.path)

    def open(self, fingerprint):
        return self.store(self.path, fingerprint)

    def lease(self, fingerprint):
        try:
            return FileLease(self.path.with_suffix(f".{fingerprint}.lease"))
        except BlockingIOError:
            return None

    def move_aside(self, why):
        self.path.rename(self.path.with_suffix(".aside"))


class FileSuite(StateStoreTests):
    backend: type[FileStates] = FileStates

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "states.json"

    def make_backend(self) -> Any:
        return self.backend(self.path)


class TestFileStates(FileSuite):
    """Another backend than SQLite can be written, and a learner runs on it, reading nothing of its own writes."""


class Truncates(FileStore):
    def put(self, shelf, entries):
        super().put(shelf, [replace(entry, value=entry.value.rstrip(b"\x00")) for entry in entries])


class KeepsTheFirst(FileStore):
    def put(self, shelf, entries):
        super().put(shelf, [entry for entry in entries if not self.get(shelf, entry.key)])


class DropsWholeKeys(FileStore):
    def drop(self, shelf, entries):
        super().drop(shelf, [other for entry in entries for other in self.get(shelf, entry.key)])


class OrdersByKey(FileStore):
    def first(self, shelf, until, limit=None):
        return sorted(super().first(shelf, until), key=lambda entry: (entry.key, entry.part))[:limit]


class MixesFingerprints(FileStore):
    def place(self, shelf, entry):
        return ("", shelf.name, entry.key, entry.part)


class AdoptsAll(FileStore):
    def adopt(self, fingerprint, shelves):
        self.clear()
        super().adopt(fingerprint, shelves)


class WritesAtOnce(FileStore):
    """Each write is a transaction of its own."""

    @contextmanager
    def transaction(self):
        yield

    def put(self, shelf, entries):
        with super().transaction():
            super().put(shelf, entries)

    def drop(self, shelf, entries):
        with super().transaction():
            super().drop(shelf, entries)

    def clear_others(self):
        with super().transaction():
            super().clear_others()


class LocksLate(FileStore):
    """Reads come before the lock."""

    @contextmanager
    def transaction(self):
        self.writes = []
        yield
        writes = self.writes
        time.sleep(0.005)
        with super().transaction():
            self.writes = writes


class KeepsInMemory(FileStore):
    def __init__(self, path, fingerprint):
        super().__init__(path, fingerprint)
        self.kept = super().read()

    def read(self):
        return getattr(self, "kept", None) or super().read()

    def write(self, rows, identity):
        super().write({}, identity)
        self.kept = rows, identity


class ReadsOnce(FileStore):
    """It never looks at the file again, unless it wrote."""

    def __init__(self, path, fingerprint):
        super().__init__(path, fingerprint)
        self.known = super().read()

    def on(self, shelf):
        wanted = self.place(shelf, Entry(""))[:2]
        return [entry for place, entry in self.known[0].items() if place[:2] == wanted]

    def write(self, rows, identity):
        super().write(rows, identity)
        self.known = rows, identity


class NeverReplaced(FileStore):
    replaced = False


class LeavesTraces(FileStore):
    def leave_no_trace(self):
        return False


class LendsToAll(FileStates):
    def lease(self, fingerprint):
        numbers = count()
        while True:
            with suppress(BlockingIOError):
                return FileLease(self.path.with_suffix(f".{fingerprint}.{next(numbers)}"))


class ForgetsToFree(FileStates):
    """A file that only its holder deletes says who leads."""

    def lease(self, fingerprint):
        path = self.path.with_suffix(f".{fingerprint}.held")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return None
        return FileLease(path)


class MovesNothing(FileStates):
    def move_aside(self, why):
        pass


@pytest.mark.parametrize(
    ("broken", "test", "said"),
    [
        (Truncates, "entries_come_back_as_they_were", "came back as"),
        (DropsWholeKeys, "entries_are_told_apart_by_key_and_part", "'a'/0 at 9.0"),
        (OrdersByKey, "the_first_are_the_earliest", "is due"),
        (MixesFingerprints, "fingerprints_are_apart", "is due"),
        (AdoptsAll, "a_fingerprint_takes_the_place_of_another", "On 'suite_other' stand"),
        (WritesAtOnce, "a_transaction_is_all_or_nothing", "On 'suite' stand"),
        (LocksLate, "what_a_transaction_read_stays_true", "b'[0-9]+'.* is due"),
        (KeepsInMemory, "what_was_kept_is_there_when_it_is_opened_again", r"stand \[\];"),
        (ReadsOnce, "another_process_sees_what_was_committed", r"stand \[\];"),
        (WritesAtOnce, "a_killed_process_keeps_what_it_committed", "b'lost'"),
        (LendsToAll, "one_at_a_time_has_the_lease", "A second learner was lent the lease"),
        (ForgetsToFree, "a_killed_holder_frees_the_lease", "is still not to be had"),
        (MovesNothing, "what_was_moved_aside_is_gone", "it is not `replaced`"),
        (NeverReplaced, "what_was_moved_aside_is_gone", "it is not `replaced`"),
        (LeavesTraces, "what_was_dropped_can_be_overwritten", "could not be overwritten"),
        (KeepsTheFirst, "a_learner_lives_on_it", "6 clicks for one item were logged"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_a_broken_store_is_found(
    broken: type[Any],
    test: str,
    said: str,
    run: Callable[[object, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leading, "_TAKE_OVER_S", 0.2)
    suite: Any = FileSuite()
    suite.path = tmp_path / "states.json"
    if issubclass(broken, FileStates):
        suite.backend = broken
    else:
        suite.backend = type("Backend", (FileStates,), {"store": broken})
    with pytest.raises(AssertionError, match=said):
        run(suite, f"test_{test}")
