"""The shared lock: who excludes whom, and that nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from explorank.retrieval._locks import SharedLock


def test_writers_exclude_everybody_and_readers_only_writers() -> None:
    lock = SharedLock()
    inside = {"readers": 0, "writers": 0}
    seen_together, wrong = [], []
    guard, stop = threading.Lock(), threading.Event()

    def enter(what: str) -> None:
        with guard:
            inside[what] += 1
            if inside["writers"] > 1 or (inside["writers"] and inside["readers"]):
                wrong.append(dict(inside))
            seen_together.append(inside["readers"])
        time.sleep(0.0002)
        with guard:
            inside[what] -= 1

    def read() -> None:
        while not stop.is_set():
            with lock.reading():
                enter("readers")

    def write() -> None:
        for _ in range(150):
            with lock.writing():
                enter("writers")

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    stop.set()
    for thread in readers:
        thread.join(60)
    assert not any(thread.is_alive() for thread in (*readers, *writers))
    assert wrong == []
    assert max(seen_together) > 1


def test_readers_have_their_turn_between_writers_without_a_pause() -> None:
    """Who waits to read waits for the write in progress, and for none of the writers that wait as well."""
    lock, order = SharedLock(), []
    first_may_end = threading.Event()

    def write(name: str) -> None:
        with lock.writing():
            order.append(name)
            if name == "first":
                first_may_end.wait()

    def read() -> None:
        with lock.reading():
            order.append("reader")

    for _ in range(20):
        order.clear()
        first_may_end.clear()
        threads = [threading.Thread(target=write, args=("first",))]
        threads[0].start()
        until(lambda: order == ["first"])
        for target, waiting in ((partial(write, "second"), "_writers_waiting"), (read, "_readers_waiting")):
            threads.append(threading.Thread(target=target))
            threads[-1].start()
            until(lambda: getattr(lock, waiting) == 1)  # noqa: B023
        first_may_end.set()
        for thread in threads:
            thread.join(60)
        assert order == ["first", "reader", "second"]


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.0001)


def test_a_writer_is_not_shut_out_by_readers() -> None:
    lock, stop = SharedLock(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            with lock.reading():
                time.sleep(0.001)

    def write() -> None:
        for _ in range(20):
            with lock.writing():
                pass

    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in readers:
        thread.start()
    try:
        written = threading.Thread(target=write)
        written.start()
        written.join(60)
        assert not written.is_alive()
    finally:
        stop.set()
        for thread in readers:
            thread.join(60)
