"""Advisory locks on files: held by one at a time, whatever processes are started meanwhile."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Final, Self

_HELD: Final[set[FileLock]] = set()
_TAKING: Final = threading.Lock()  # no fork between a descriptor's opening and its note in `_HELD`


class FileLock:
    """A lock that ends with its release, or with its process, however that ends.

    The kernel ties it to the open file rather than to the process, so that a child which is forked meanwhile holds it
    too, until it ends. So its copy is closed in a child, and a release lets go for all copies: a child on its way to
    another program has some for a moment.

    The file is one beside whatever is guarded: closing any descriptor of a database drops SQLite's own locks on it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Lock `path`, making the file where there is none; `None` where another holds it. Raises `OSError`."""
        with _TAKING:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            lock = cls(descriptor)
            _HELD.add(lock)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except BlockingIOError:
            lock._close()
            return None
        except BaseException:
            lock._close()
            raise
        return lock

    @property
    def held(self) -> bool:
        """Whether it was neither released nor taken by a process that this one was forked from."""
        return self._descriptor is not None

    def release(self) -> None:
        """Let another take it; nothing happens where it is not held."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        _HELD.discard(self)
        if descriptor is not None:
            os.close(descriptor)


def _close_copies() -> None:
    _TAKING.release()
    for lock in list(_HELD):
        lock._close()


if hasattr(os, "register_at_fork"):  # absent where processes cannot fork
    os.register_at_fork(before=_TAKING.acquire, after_in_parent=_TAKING.release, after_in_child=_close_copies)
