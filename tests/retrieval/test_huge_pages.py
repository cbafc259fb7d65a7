"""Huge pages change nothing but how long it takes: what is found, what is written, and who may forbid them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank.retrieval import Catalogue
from explorank.retrieval import _huge_pages as huge_pages
from explorank.retrieval._huge_pages import create_rows, huge_page_size, move_lists
from explorank.retrieval._index_kinds import make
from explorank.retrieval.catalogue import vectors_to_fill

COUNT, DIM = 50_000, 256
TO_LEARN_FROM = 1_000
needs_huge_pages = pytest.mark.skipif(not huge_page_size(), reason="there are no huge pages here")


def on_huge_pages() -> int:
    """Return how many bytes of this process's own memory lie on huge pages."""
    told = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    return int(re.search(r"^AnonHugePages:\s+(\d+) kB$", told, re.MULTILINE)[1]) * 1024


def unit(count: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(COUNT, DIM, seed=0)


@pytest.fixture(scope="module")
def index(vectors: np.ndarray) -> Any:
    """Return an index of few lists, which are soon learnt, with 3 MB of codes."""
    index = make("ivf_pq", vectors[:TO_LEARN_FROM])
    index.add_with_ids(vectors[TO_LEARN_FROM:], np.arange(TO_LEARN_FROM, COUNT))
    index.nprobe = 8
    return index


@needs_huge_pages
def test_every_code_lies_on_a_page_that_is_moved_and_finds_what_it_found(
    index: Any, vectors: np.ndarray
) -> None:
    queries = vectors[:50]
    before = index.search(queries, 20)
    size = huge_page_size()
    pages = set(huge_pages._pages(index, size))
    moved = move_lists(index)
    assert 0 < moved <= len(pages) * size
    assert on_huge_pages() >= moved
    for found, found_before in zip(index.search(queries, 20), before, strict=True):
        np.testing.assert_array_equal(found, found_before)
    bytes_of_codes = 0
    for number in range(index.nlist):
        begin, count = int(index.invlists.get_codes(number)), index.invlists.list_size(number)
        stored = -(-count // 32) * 32 * DIM // 4  # 2 bits a dimension, in blocks of 32 vectors
        bytes_of_codes += stored
        assert {begin // size, (begin + stored - 1) // size} <= pages
    assert bytes_of_codes >= COUNT * DIM // 4


def test_lists_that_hold_nothing_lie_nowhere() -> None:
    empty = make("ivf_pq", unit(TO_LEARN_FROM, 8, seed=1))
    empty.reset()
    assert huge_pages._pages(empty, 4_096) == []
    assert move_lists(empty) == 0


@pytest.mark.parametrize("enabled", ["always madvise [never]\n", None])
def test_an_administrator_who_wants_none_and_a_system_without_get_none(
    index: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str | None
) -> None:
    monkeypatch.setattr(huge_pages, "_SYSTEM", tmp_path)
    if enabled is not None:
        (tmp_path / "enabled").write_text(enabled, encoding="ascii")
        (tmp_path / "hpage_pmd_size").write_text("2097152\n", encoding="ascii")
    assert huge_page_size() == 0
    assert move_lists(index) == 0
    rows = create_rows(tmp_path / "rows.npy", (3, 2))
    rows[:] = 7.0
    assert np.load(tmp_path / "rows.npy").tolist() == [[7.0, 7.0]] * 3


def test_the_size_is_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "enabled").write_text("always [madvise] never\n", encoding="ascii")
    (tmp_path / "hpage_pmd_size").write_text("33554432\n", encoding="ascii")
    monkeypatch.setattr(huge_pages, "_SYSTEM", tmp_path)
    assert huge_page_size() == 33_554_432


def test_vectors_that_were_filled_in_place_are_those_of_the_saved_catalogue(tmp_path: Path) -> None:
    filled = vectors_to_fill(tmp_path, (300, 8))
    filled[:] = unit(300, 8, seed=2)
    file = (tmp_path / "vectors.npy").stat().st_ino
    Catalogue.build([f"item-{row}" for row in range(300)], filled, device="cpu").save(tmp_path)
    assert (tmp_path / "vectors.npy").stat().st_ino == file
    np.testing.assert_array_equal(Catalogue.load(tmp_path, device="cpu").vectors, unit(300, 8, seed=2))
