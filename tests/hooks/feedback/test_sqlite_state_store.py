"""The default state store: held to what every store is held to, and to what a file in particular may meet."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest

from explorank.hooks.errors import CorruptState, LogUnavailable
from explorank.hooks.exploration import BetaThompson
from explorank.hooks.feedback import Entry, Learner, Shelf, SqliteStateBackend
from explorank.testing import StateStoreTests

SHELF = Shelf("shelf")


class TestSqliteStates(StateStoreTests):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "folder" / "state.db"

    def make_backend(self) -> SqliteStateBackend:
        return SqliteStateBackend(self.path)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 12, b"nonsense" * 2500], ids=len)
def test_damage_is_told_from_other_trouble(tmp_path: Path, content: bytes) -> None:
    """A file of noise raises `CorruptState`; one of no bytes is a new one."""
    path = tmp_path / "state.db"
    path.write_bytes(content)
    backend = SqliteStateBackend(path)
    if content:
        with pytest.raises(CorruptState, match=r"cannot make sense of .*state\.db"):
            backend.open("1")
        backend.move_aside("noise")
        assert path.with_name("state.db.corrupt-1").exists()
    backend.open("1").close()


def test_a_page_that_is_overwritten_is_damage(tmp_path: Path) -> None:
    backend = SqliteStateBackend(tmp_path / "state.db")
    with closing(backend.open("1")) as store, store.transaction():
        store.put(SHELF, [Entry(f"{number}", b"x" * 500) for number in range(200)])
    content = bytearray(backend.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    backend.path.write_bytes(content)
    with (
        closing(backend.open("1")) as store,
        pytest.raises(CorruptState, match="rebuilds its state from the log"),
    ):
        store.first(SHELF, 0.0)


def test_a_file_that_another_holds_is_unavailable(tmp_path: Path) -> None:
    backend = SqliteStateBackend(tmp_path / "state.db", busy_timeout_s=0.01, patience_s=0.01)
    with closing(backend.open("1")) as store, closing(sqlite3.connect(backend.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable, match="is locked by another process"), store.transaction():
            raise AssertionError("the block runs without the lock")
        other.execute("ROLLBACK")
        with store.transaction():
            store.put(SHELF, [Entry("a")])
        other.execute("BEGIN")
        other.execute("SELECT * FROM entries").fetchall()
        with store.transaction():
            store.drop(SHELF, [Entry("a")])
        assert not store.leave_no_trace()
        other.execute("COMMIT")
        assert store.leave_no_trace()


def test_several_may_be_the_first_to_open_a_file(tmp_path: Path) -> None:
    """One round in seven failed where SQLite's refusal was taken for an answer, so that 60 rounds find it."""
    with ThreadPoolExecutor(3) as pool:
        for number in range(60):
            backend = SqliteStateBackend(tmp_path / f"{number}.db")
            together = Barrier(3)

            def opened(backend: SqliteStateBackend = backend, together: Barrier = together) -> None:
                together.wait()
                backend.open("1").close()

            for opening in [pool.submit(opened) for _ in range(3)]:
                opening.result()


def test_a_place_that_cannot_be_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    backend = SqliteStateBackend(tmp_path / "file" / "state.db")
    for use in (lambda: backend.open("1"), lambda: backend.lease("1")):
        with pytest.raises(LogUnavailable, match="To go on"):
            use()


def test_a_file_of_another_version_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(LogUnavailable, match=r"has schema version 99.*Name another `state_path`"):
        SqliteStateBackend(path).open("1")
    assert path.read_bytes() == before


def test_what_was_dropped_leaves_no_bytes(tmp_path: Path) -> None:
    backend = SqliteStateBackend(tmp_path / "state.db")
    with closing(backend.open("1")) as store:
        with store.transaction():
            store.put(SHELF, [Entry(f"secret-{number}", b"secret" * 900) for number in range(9)])
        with store.transaction():
            store.drop(SHELF, [Entry(f"secret-{number}") for number in range(9)])
        assert store.leave_no_trace()
        for path in tmp_path.iterdir():
            assert b"secret" not in path.read_bytes(), path


@pytest.mark.parametrize("both", [False, True])
def test_a_learner_has_one_place_for_its_state(tmp_path: Path, *, both: bool) -> None:
    path = tmp_path / "state.db"
    places = {"state_path": path, "states": SqliteStateBackend(path)} if both else {}
    with pytest.raises(TypeError, match="give it either `state_path`"):
        Learner(tmp_path, BetaThompson(), reward_weights={"click": 1.0}, horizon_s=1.0, **places)
