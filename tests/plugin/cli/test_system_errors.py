"""What the machine refuses is told in a sentence; a bug is not hidden behind one."""

import errno
import sqlite3
from pathlib import Path

import pytest

from explorank.cli.system_errors import refusal_of


def raised_by(action) -> BaseException:
    with pytest.raises((OSError, sqlite3.Error)) as caught:
        action()
    return caught.value


def write_to_a_full_device() -> None:
    with Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_told() -> None:
    error = raised_by(write_to_a_full_device)
    assert "No space is left" in (refusal_of(error) or "")
    wrapped = RuntimeError("a library gave up")
    wrapped.__cause__ = error
    assert "No space is left" in (refusal_of(wrapped) or "")


def test_a_full_database_is_told(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "full.db") as database:
        database.execute("CREATE TABLE rows (content BLOB)")
        database.execute("PRAGMA max_page_count = 2")
        error = raised_by(lambda: database.execute("INSERT INTO rows VALUES (zeroblob(100000))"))
    database.close()
    assert "No space is left" in (refusal_of(error) or "")


def test_a_database_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "read.db"
    sqlite3.connect(path).close()
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    error = raised_by(lambda: database.execute("CREATE TABLE rows (content BLOB)"))
    database.close()
    assert "does not allow it" in (refusal_of(error) or "")


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EROFS, "does not allow it"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOTDIR, "where a file or a folder belongs"),
    ],
)
def test_the_file_is_named(number: int, told: str) -> None:
    message = refusal_of(OSError(number, "the system's words", "/srv/shop/log"))
    assert message is not None
    assert told in message
    assert "/srv/shop/log" in message


def test_a_bug_stays_a_bug() -> None:
    assert refusal_of(TypeError("x")) is None
    assert refusal_of(OSError("without a number")) is None
    assert refusal_of(sqlite3.OperationalError("no such table: rows")) is None
    late = KeyError("a bug in the way out")
    late.__context__ = PermissionError(errno.EACCES, "no", "/srv")
    assert refusal_of(late) is None
