"""The shared lock: who excludes whom, and that nobody waits for ever."""

from __future__ import annotations

import threading
import time

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
        thread.join(30)
    stop.set()
    for thread in readers:
        thread.join(30)
    assert not any(thread.is_alive() for thread in (*readers, *writers))
    assert wrong == []
    assert max(seen_together) > 1


def test_readers_have_their_turn_between_writers_without_a_pause() -> None:
    lock, stop = SharedLock(), threading.Event()
    writes = 0

    def write() -> None:
        nonlocal writes
        while not stop.is_set():
            with lock.writing():
                time.sleep(0.001)
            writes += 1

    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in writers:
        thread.start()
    try:
        waits = []
        for _ in range(50):
            before = writes
            with lock.reading():
                waits.append(writes - before)
    finally:
        stop.set()
        for thread in writers:
            thread.join(30)
    # The write in progress ends first; on its way there the reader may miss another few, never all of them.
    assert sorted(waits)[25] <= 3
    assert max(waits) <= 25


def test_a_writer_is_not_shut_out_by_readers() -> None:
    lock, stop = SharedLock(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            with lock.reading():
                time.sleep(0.001)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in readers:
        thread.start()
    try:
        start = time.monotonic()
        for _ in range(20):
            with lock.writing():
                pass
        assert time.monotonic() - start < 10
    finally:
        stop.set()
        for thread in readers:
            thread.join(30)
