"""The folder in which workers share their counters, and what becomes of those whose processes were all killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "explorank-metrics-"
_USED: Final = "in-use"
_YOUNG_S: Final = 60.0
"""A folder that nobody holds may be about to be: it is left alone for so long after it was made."""


@contextmanager
def metrics_folder(root: Path | None = None) -> Iterator[Path]:
    """Yield a new folder below `root`, the system's for temporary files by default, and remove it at the end.

    First those are removed whose parent and workers have all gone without doing so, as after a SIGKILL.
    """
    root = Path(tempfile.gettempdir()) if root is None else root
    _remove_abandoned(root)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root) as name:
        folder = Path(name)
        descriptor = hold(folder)
        try:
            yield folder
        finally:
            os.close(descriptor)


def hold(folder: Path) -> int:
    """Keep the folder from being removed as long as this process lives, or until the descriptor is closed."""
    descriptor = os.open(folder / _USED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with suppress(OSError):  # without locks on this file system nobody can tell that it is abandoned either
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # the kernel lets go of it however the process ends
    return descriptor


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another's, or gone by now
            if _is_ours_and_old(folder) and _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_ours_and_old(folder: Path) -> bool:
    found = folder.lstat()  # a link that somebody laid there leads nowhere
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and found.st_mtime < time.time() - _YOUNG_S


def _is_abandoned(folder: Path) -> bool:
    descriptor = os.open(folder / _USED, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
