"""What the machine refused a command, in a sentence: a full disk, a file that may not be written."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from typing import Final

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IN_THE_WAY: Final = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST})
_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})
_SQLITE: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}
"""The low byte of SQLite's codes, which their extended forms keep."""


def refusal_of(error: BaseException) -> str | None:
    """Return what a user is told who can mend it, or `None` for an error that is a bug of somebody's.

    Libraries wrap what the system said in errors of their own, so causes count too. What was merely being handled
    (`__context__`) does not: the way out of it may be what has the bug.
    """
    for one in _chain(error):
        number = _number(one)
        if number in _FULL:
            return (
                f"No space is left on the disk ({one}). The command was given up halfway; what was published before "
                "is as it was. Free space, and run it again."
            )
        if number in _FORBIDDEN:
            return (
                f"The system does not allow it ({one}). The command was given up; what was published before is as it "
                "was. Run it as a user who may write there, or name another `folder` in the settings."
            )
        if number in _IN_THE_WAY:
            return (
                f"Something else stands where a file or a folder belongs ({one}). The command was given up; what was "
                "published before is as it was. Move that away, or name another `folder` in the settings."
            )
        if number in _TOO_MANY:
            return (
                f"No more files may be open at once ({one}). The command was given up; what was published before is "
                "as it was. Raise the limit (`ulimit -n`), and run it again."
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, sqlite3.Error):
        return _SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return None
