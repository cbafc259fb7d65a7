"""What other processes write becomes visible within the bound, and a killed writer leaves no half rows."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64

WRITER = Path(__file__).with_name("writer.py")
BOUND_S = 1.0
SLACK_S = (
    30.0  # for machines on which many tests run at once; `benchmarks/online_store.py` measures the bound
)


@pytest.fixture
def store(make: ModuleType, tmp_path: Path) -> Any:
    """A store that follows with the default bound, with the row `a` in memory."""
    store = make.columnar(tmp_path)
    view = make.view_of(tmp_path, {"price": Float64, "stock": Int64})
    store.apply([make.item_entity(), view])
    make.write(store, view, "a", price=make.number(1.0), stock=Value(int64_val=1))
    assert make.read(store, "facts:price", keys=["a"])["price"] == [1.0]
    return store


def eventually(condition: Callable[[], bool]) -> float:
    """Return after how many seconds the condition held; fail beyond the bound."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < BOUND_S + SLACK_S
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["columnar", "plain"])
def test_writes_of_another_store_become_visible(
    store: Any, make: ModuleType, tmp_path: Path, kind: str
) -> None:
    other = getattr(make, kind)(tmp_path)
    view = other.get_feature_view("facts")
    for step in (2.0, 3.0):
        make.write(other, view, "a", price=make.number(step), stock=None)
        make.write(other, view, "b", price=make.number(-step), stock=None)
        eventually(lambda: make.read(store, "facts:price", keys=["a", "b"])["price"] == [step, -step])  # noqa: B023


def test_the_same_row_written_again_and_again_is_never_missed(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    """Writes of one entity in a row are noted once; each of them must be seen all the same."""
    other = make.plain(tmp_path)
    view = other.get_feature_view("facts")
    memory = make.online_store(store)._columns(store.config)
    for step in range(20):
        make.write(other, view, "a", price=make.number(float(step)))
        memory.catch_up()
        assert make.read(store, "facts:price", keys=["a"])["price"] == [float(step)]


def test_deleted_rows_become_missing(store: Any, make: ModuleType, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "online.db") as database:
        database.execute("DELETE FROM shop_facts")
    database.close()
    eventually(lambda: bool(make.read(store, "facts:price", keys=["a"])["price"] == [None]))


def test_a_store_that_was_torn_down_and_made_anew_by_another_process(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    other = make.columnar(tmp_path)
    other.teardown()
    view = make.view_of(tmp_path, {"price": Float64, "stock": Int64})
    other.apply([make.item_entity(), view])
    make.write(other, view, "z", price=make.number(9.0), stock=None)
    eventually(lambda: make.read(store, "facts:price", keys=["a", "z"])["price"] == [None, 9.0])


def test_a_view_that_was_dropped_and_made_anew_by_a_plain_store(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    """Dropping a table drops its triggers; they come back."""
    with sqlite3.connect(tmp_path / "online.db") as database:
        database.execute("DROP TABLE shop_facts")
    database.close()
    other = make.plain(tmp_path)
    view = other.get_feature_view("facts")
    other._get_provider().online_store.update(other.config, [], [view], [], [], partial=True)
    eventually(lambda: bool(make.read(store, "facts:price", keys=["a"])["price"] == [None]))
    make.write(other, view, "a", price=make.number(5.0), stock=None)
    eventually(lambda: make.read(store, "facts:price", keys=["a"])["price"] == [5.0])


def test_a_store_that_can_not_be_reached_is_served_from_memory(
    store: Any, make: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "online.db").rename(tmp_path / "away.db")
    with caplog.at_level("WARNING"):
        eventually(lambda: "answers may be old" in caplog.text)
    assert make.read(store, "facts:price", keys=["a"])["price"] == [1.0]
    (tmp_path / "away.db").rename(tmp_path / "online.db")


def test_a_view_whose_changes_can_not_be_noted_yet_is_read_anew(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody writes for long, the triggers can't be set up."""
    monkeypatch.setattr("explorank.retrieval.columnar_store.sources.sqlite_file._BUSY_S", 0.05)
    plain = make.plain(tmp_path)
    view = make.view_of(tmp_path, {"price": Float64})
    plain.apply([make.item_entity(), view])
    make.write(plain, view, "a", price=make.number(1.0))
    writer = sqlite3.connect(tmp_path / "online.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    store = make.columnar(tmp_path)
    assert make.read(store, "facts:price", keys=["a"])["price"] == [1.0]
    writer.execute("UPDATE shop_facts SET value = ?", (make.number(2.0).SerializeToString(),))
    writer.execute("COMMIT")
    eventually(lambda: make.read(store, "facts:price", keys=["a"])["price"] == [2.0])
    writer.execute("UPDATE shop_facts SET value = ?", (make.number(3.0).SerializeToString(),))
    eventually(lambda: make.read(store, "facts:price", keys=["a"])["price"] == [3.0])
    noted = writer.execute("SELECT count(*) FROM explorank_changes").fetchone()
    writer.close()
    assert noted == (1,)


def test_a_write_that_can_not_be_read_back_is_never_answered_with_older_rows(
    store: Any, make: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    view = store.get_feature_view("facts")
    source = make.online_store(store)._columns(store.config).source

    def fail(*_: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken, caplog.at_level("WARNING"):
        broken.setattr(source, "changes", fail)
        make.write(store, view, "a", price=make.number(2.0), stock=None)
    assert "read anew" in caplog.text
    assert make.read(store, "facts:price", keys=["a"])["price"] == [2.0]


def test_a_reader_that_is_far_behind_reads_everything_anew(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    memory = make.online_store(store)._columns(store.config)
    make.online_store(store)._columns(store.config).close()
    assert make.read(store, "facts:price", keys=["a"])["price"] == [1.0]
    other = make.plain(tmp_path)
    for key in ("a", "b", "c"):
        make.write(other, other.get_feature_view("facts"), key, price=make.number(2.0))
    with sqlite3.connect(tmp_path / "online.db") as database:
        # What the bound of the journal does after a million changes.
        database.execute("DELETE FROM explorank_changes WHERE id < (SELECT max(id) FROM explorank_changes)")
    database.close()
    memory.catch_up()
    assert make.read(store, "facts:price", keys=["a", "b", "c"])["price"] == [2.0, 2.0, 2.0]


def test_readers_never_see_half_a_row(store: Any, make: ModuleType) -> None:
    """Price and stock are written as the same number; any reader at any time reads them equal."""
    view = store.get_feature_view("facts")
    stopped = threading.Event()
    torn: list[Any] = []

    def read() -> None:
        while not stopped.is_set():
            found = make.read(store, "facts:price", "facts:stock", keys=["a"] * 3)
            if found["price"] != found["stock"]:
                torn.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(1, 150):
        make.write(store, view, "a", price=make.number(float(step)), stock=Value(int64_val=step))
    stopped.set()
    for reader in readers:
        reader.join()
    assert not torn
    assert make.read(store, "facts:stock", keys=["a"])["stock"] == [149]


def test_a_forked_process_reads_for_itself(store: Any, make: ModuleType) -> None:
    """Even where the thread that follows was at work at the fork: the child never waits for it."""
    view = store.get_feature_view("facts")
    read_end, write_end = os.pipe()
    at_work, may_end = threading.Event(), threading.Event()

    def work() -> None:
        with make.online_store(store)._columns(store.config).using_source():
            at_work.set()
            may_end.wait()

    follower = threading.Thread(target=work)
    follower.start()
    at_work.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        try:
            make.write(store, view, "a", price=make.number(7.0), stock=Value(int64_val=7))
            told = make.read(store, "facts:price", keys=["a"])["price"]
            os.write(write_end, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    may_end.set()
    follower.join()
    with os.fdopen(read_end) as answer:
        assert json.loads(answer.read()) == [7.0]
    os.waitpid(child, 0)
    eventually(lambda: make.read(store, "facts:price", keys=["a"])["price"] == [7.0])


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_rows_and_nothing_older_than_it_acknowledged(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    """A process writes rows of equal numbers, ever greater, and says which are done; it is killed at random."""
    done = dict.fromkeys("abcd", 0)
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert writer.stdout is not None
    try:
        for line in writer.stdout:
            _, step, key = line.split()
            done[key] = int(step)
            if int(step) >= 16:
                break
        time.sleep(0.0137)
    finally:
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        writer.wait()
        writer.stdout.close()
    for line in rest.splitlines(keepends=True):
        if line.endswith("\n"):
            _, step, key = line.split()
            done[key] = int(step)
    keys = list(done)

    def rows() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = make.read(store, "facts:price", "facts:stock", keys=keys)
        return found

    def seen() -> bool:
        found = rows()
        assert found["price"] == found["stock"]
        return all((stock or 0) >= done[key] for key, stock in zip(keys, found["stock"], strict=True))

    eventually(seen)
    anew = make.read(make.columnar(tmp_path), "facts:price", "facts:stock", keys=keys)
    assert anew == rows()
