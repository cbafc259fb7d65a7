"""Pages of mapped files are there before anybody touches them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval._mapped_pages import map_pages

PAGE = 4096
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


def mapped(path: Path, pages: int = 4096) -> np.ndarray:
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.ones(pages * PAGE, np.uint8))
    return np.load(path, mmap_mode="c")


def present(path: Path) -> int:
    """Return how many bytes of the file this process has pages of."""
    _, _, behind = Path("/proc/self/smaps").read_text(encoding="utf-8").partition(f"{path}\n")
    return int(re.search(r"^Rss:\s+(\d+) kB$", behind, re.MULTILINE)[1]) * 1024


def test_all_pages_are_there(tmp_path: Path) -> None:
    first, second = tmp_path / "first/a.npy", tmp_path / "a second/a.npy"
    arrays = [mapped(first), mapped(second)]
    assert present(first) < arrays[0].nbytes / 4
    assert map_pages(tmp_path / "a second") >= arrays[1].nbytes
    assert present(second) >= arrays[1].nbytes
    assert present(first) < arrays[0].nbytes / 4


def test_a_mapping_stays_private(tmp_path: Path) -> None:
    array = mapped(tmp_path / "a.npy", pages=4)
    map_pages(tmp_path)
    array[0] = 7
    assert array[0] == 7
    assert np.load(tmp_path / "a.npy")[0] == 1


def test_a_folder_of_which_nothing_is_mapped_is_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(PAGE))
    assert map_pages(tmp_path) == 0
    assert map_pages(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(
    ("memory", "limit"),
    [
        ("MemTotal: 100000 kB\nMemAvailable:      8 kB\n", "max\n"),
        ("MemTotal: 100000 kB\nMemAvailable:  90000 kB\n", "16384\n"),
    ],
)
def test_files_larger_than_the_memory_that_is_left_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str, limit: str
) -> None:
    for name, text in (("_MEMORY", memory), ("_LIMIT", limit)):
        (tmp_path / name).write_text(text, encoding="ascii")
        monkeypatch.setattr(f"explorank.retrieval._mapped_pages.{name}", tmp_path / name)
    small, large = mapped(tmp_path / "small/a.npy", pages=1), mapped(tmp_path / "large/a.npy", pages=2)
    assert map_pages(tmp_path / "large") == 0
    assert map_pages(tmp_path / "small") >= small.nbytes
    assert large[-1] == 1
