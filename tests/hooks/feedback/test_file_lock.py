"""One holds a lock at a time, and processes that are started meanwhile neither keep it nor let it go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from explorank.hooks.feedback._file_lock import FileLock


def take(path: Path) -> FileLock:
    lock = FileLock.take(path)
    assert lock is not None
    return lock


def test_one_holds_it_until_its_release(tmp_path: Path) -> None:
    lock = take(tmp_path / "lock")
    assert FileLock.take(tmp_path / "lock") is None
    assert lock.held
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()
    assert not lock.held
    take(tmp_path / "lock").release()


def test_a_place_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock.take(tmp_path / "nowhere" / "lock")


def test_programs_on_their_way_keep_nothing(tmp_path: Path) -> None:
    """Closing alone left the lock to a child until it became another program: nine in ten were refused here."""
    stopped = threading.Event()

    def start_programs() -> None:
        while not stopped.is_set():
            subprocess.run([sys.executable, "--version"], stdout=subprocess.DEVNULL, check=True)

    starting = threading.Thread(target=start_programs)
    starting.start()
    try:
        for _ in range(500):
            take(tmp_path / "lock").release()
    finally:
        stopped.set()
        starting.join()


def test_a_forked_child_has_no_part_in_it(tmp_path: Path) -> None:
    lock = take(tmp_path / "lock")
    (told, tells), (may_end, ends) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ends)
        held, another = lock.held, FileLock.take(tmp_path / "lock")
        lock.release()
        os.write(tells, b"refused" if another is None and not held else b"has a part in it")
        os.read(may_end, 1)
        os._exit(0)
    try:
        assert os.read(told, 100) == b"refused"
        assert FileLock.take(tmp_path / "lock") is None
        lock.release()
        take(tmp_path / "lock").release()
    finally:
        for end in (told, tells, may_end, ends):
            os.close(end)
        os.waitpid(child, 0)


HOLDER = """
import os, sys
from pathlib import Path
from explorank.hooks.feedback._file_lock import FileLock

lock = FileLock.take(Path(sys.argv[1]))
if os.fork() == 0:
    print("forked", flush=True)
sys.stdin.read()
"""


def test_it_ends_with_its_process_whoever_was_forked(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "forked\n"
        assert FileLock.take(tmp_path / "lock") is None
        os.kill(holder.pid, signal.SIGKILL)
        give_up_at = time.monotonic() + 60
        while (lock := FileLock.take(tmp_path / "lock")) is None:
            assert time.monotonic() < give_up_at, "the child that was forked holds it"
            time.sleep(0.01)
        lock.release()
