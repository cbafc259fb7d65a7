"""Where a training saves how far it is: one folder for each combination of data, options and seed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from explorank.pipeline.libraries import library_versions
from explorank.rankers import RankingData, run_identity

_ABANDONED_AFTER_S: Final = 7 * 86_400.0


def fingerprint(name: str, data: Sequence[RankingData], options: Any, seed: int) -> str:
    """Return 16 hex digits that are the same for the same ranker, data, options, seed and libraries."""
    return run_identity(name, *data, options, seed, sorted(library_versions().items()))[:16]


@contextmanager
def checkpoint_folder(root: Path, run: str) -> Iterator[Path]:
    """Yield the folder of a run under `root`, which holds something where the run was cut off before.

    It is removed once the block succeeds, and stays where it fails; what nobody came back for goes after a week.
    """
    folder = root / run
    if root.is_dir():
        for other in root.iterdir():
            if other != folder and other.stat().st_mtime < time.time() - _ABANDONED_AFTER_S:
                shutil.rmtree(other, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def is_resumed(folder: Path) -> bool:
    """Say whether a run that was cut off has left something in its folder."""
    return folder.is_dir() and any(folder.iterdir())
