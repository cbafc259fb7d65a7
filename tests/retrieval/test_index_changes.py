"""Adding, replacing and removing while others search, in memory and in an index mapped from its file."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import FaissIndex, InvalidVectors

KINDS = ("flat", "sq8", "hnsw", "ivf_pq", "ivf_sq8", "ivf_flat")
DIM = 16
COUNT = 1_500


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(rows: int, start: int = 0) -> list[str]:
    return [f"item-{row}" for row in range(start, start + rows)]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(COUNT, seed=1)


@pytest.fixture(scope="module", params=KINDS)
def saved(request: pytest.FixtureRequest, vectors: np.ndarray, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    FaissIndex.build(vectors, names(COUNT), kind=request.param, device="cpu").save(folder)
    return folder


@pytest.fixture(params=["mapped", "copied"])
def index(request: pytest.FixtureRequest, saved: Path) -> FaissIndex:
    return FaissIndex.load(saved, device="cpu", memory=request.param)


def in_threads(
    searching: Callable[[], None], change: Callable[[], None], readers: int = 3
) -> list[BaseException]:
    """Let `change` run beside threads that go on `searching`; return what these raised."""
    problems: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                searching()
            searching()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=search) for _ in range(readers)]
    for thread in threads:
        thread.start()
    try:
        change()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return problems


def test_an_update_is_never_seen_by_half(index: FaissIndex, vectors: np.ndarray) -> None:
    """Items 0 and 1 hold opposite vectors and change places, again and again, in one update."""
    both = np.stack([vectors[0], -vectors[0]])
    index.update(both, names(2))
    seen: set[str] = set()

    def search() -> None:
        ids, similarities = index.search(vectors[0], COUNT)
        assert len(set(ids.tolist())) == len(ids) == COUNT
        place = {name: row for row, name in enumerate(ids.tolist())}
        first, second = sorted((place["item-0"], place["item-1"]))
        assert (first, second) == (0, COUNT - 1)
        np.testing.assert_allclose(similarities[[0, -1]], [1, -1], atol=0.05)
        seen.add(ids[0])

    def change() -> None:
        turn, give_up_at = 0, time.monotonic() + 60
        while turn < 40 or (len(seen) < 2 and time.monotonic() < give_up_at):
            assert index.update(both[:: -1 if turn % 2 == 0 else 1], names(2)) == 2
            turn += 1

    assert in_threads(search, change) == []
    assert seen == {"item-0", "item-1"}
    assert len(index) == COUNT


def test_what_is_removed_or_blocked_never_comes_back(index: FaissIndex, vectors: np.ndarray) -> None:
    """What was gone before a search began is not in its answer, whatever else changes meanwhile."""
    gone: set[str] = set()
    query = unit(1, seed=9)[0]

    def search() -> None:
        before, blocked = set(gone), names(40, start=COUNT - 40)
        for k in (5, 60, COUNT + 200):
            ids, _ = index.search(query, k, exclude=blocked)
            assert not (before | set(blocked)) & set(ids.tolist())
            assert len(set(ids.tolist())) == len(ids)

    def change() -> None:
        for start in range(0, 600, 20):
            removed = names(20, start)
            index.add(unit(5, seed=start), names(5, start=COUNT + start))
            assert index.remove(removed) == 20
            gone.update(removed)
            index.update(unit(3, seed=start + 1), names(3, start=700 + start))

    assert in_threads(search, change) == []
    assert len(index) == COUNT - 600 + 30 * 5 + sum(
        700 + s + i >= COUNT for s in range(0, 600, 20) for i in range(3)
    )


def test_a_changed_index_finds_what_a_new_one_would(index: FaissIndex, vectors: np.ndarray) -> None:
    fresh = unit(300, seed=4)
    current = dict(zip(names(COUNT), vectors, strict=True))
    for start in range(0, 300, 60):
        part = fresh[start : start + 60]
        index.update(part[:30], names(30, start))
        index.add(part[30:], names(30, start=COUNT + start))
        index.remove(names(20, start=700 + start))
        current |= dict(zip(names(30, start), part[:30], strict=True))
        current |= dict(zip(names(30, start=COUNT + start), part[30:], strict=True))
        for name in names(20, start=700 + start):
            del current[name]
    rows = np.stack(list(current.values()))
    recalls = []
    for query in unit(40, seed=5):
        truth = {list(current)[row] for row in np.argsort(-(rows @ query))[:30]}
        recalls.append(len(truth & set(index.search(query, 30)[0].tolist())) / 30)
    assert np.mean(recalls) >= 0.96
    assert len(index) == len(current)


def test_changes_that_went_on_for_long_cost_neither_recall_nor_memory(vectors: np.ndarray) -> None:
    """Each item is replaced four times over."""
    index = FaissIndex.build(vectors, names(COUNT), "ivf_sq8", device="cpu", recall=0.95)
    final = vectors
    for turn in range(4):
        final = unit(COUNT, seed=20 + turn)
        for start in range(0, COUNT, 100):
            index.update(final[start : start + 100], names(100, start))
    assert index.changed_share == 8
    assert index.rebuild_advised
    assert index._index.ntotal <= 1.3 * COUNT
    assert len(index._book.ids) <= 1.3 * COUNT
    recalls = []
    for query in unit(40, seed=5):
        truth = names_of(np.argsort(-(final @ query))[:100])
        recalls.append(len(truth & set(index.search(query, 100)[0].tolist())) / 100)
    assert np.mean(recalls) >= 0.9


def names_of(rows: np.ndarray) -> set[str]:
    return {f"item-{row}" for row in rows}


def test_the_share_of_changes_is_kept_with_the_index(vectors: np.ndarray, tmp_path: Path) -> None:
    index = FaissIndex.build(vectors, names(COUNT), "sq8", device="cpu")
    assert (index.changed_share, index.rebuild_advised) == (0, False)
    index.remove(names(300))
    index.add(vectors[:150], names(150))
    index.save(tmp_path)
    loaded = FaissIndex.load(tmp_path, device="cpu")
    assert loaded.changed_share == index.changed_share == 450 / COUNT
    assert not loaded.rebuild_advised
    loaded.remove(names(1))
    assert loaded.rebuild_advised
    exact = FaissIndex.build(vectors[:10], names(10), device="cpu")
    exact.remove(names(9))
    assert not exact.rebuild_advised


def test_removing_leaves_a_mapped_index_mapped_and_adding_copies_it(saved: Path, vectors: np.ndarray) -> None:
    index, other = FaissIndex.load(saved, device="cpu"), FaissIndex.load(saved, device="cpu")
    index.remove(["item-3"])
    assert index.is_mapped
    assert "item-3" not in index.search(vectors[3], 5)[0].tolist()
    index.update(-vectors[3][None, :], ["item-3"])
    assert not index.is_mapped
    assert index.search(-vectors[3], 1)[0].tolist() == ["item-3"]
    # Whoever else loaded the file has it as it was.
    assert other.is_mapped
    assert other.search(vectors[3], 1)[0].tolist() == ["item-3"]
    assert FaissIndex.load(saved, device="cpu").search(vectors[3], 1)[0].tolist() == ["item-3"]


def test_a_file_may_be_written_anew_or_deleted_while_it_is_mapped(
    saved: Path, vectors: np.ndarray, tmp_path
) -> None:
    FaissIndex.load(saved, device="cpu").save(tmp_path)
    index = FaissIndex.load(tmp_path, device="cpu")
    FaissIndex.build(unit(40, seed=3), names(40), device="cpu").save(tmp_path)
    assert index.search(vectors[3], 1)[0].tolist() == ["item-3"]
    for file in tmp_path.iterdir():
        file.unlink()
    index.add(unit(1, seed=8), ["new"])
    assert index.search(vectors[3], 1)[0].tolist() == ["item-3"]
    assert index.search(unit(1, seed=8)[0], 1)[0].tolist() == ["new"]


def test_an_index_saves_over_the_file_it_is_mapped_from(
    saved: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    FaissIndex.load(saved, device="cpu").save(tmp_path)
    index = FaissIndex.load(tmp_path, device="cpu")
    index.remove(["item-3"])
    index.save(tmp_path)
    for each in (index, FaissIndex.load(tmp_path, device="cpu")):
        assert len(each) == COUNT - 1
        assert "item-3" not in each.search(vectors[3], COUNT)[0].tolist()


def test_another_process_searches_the_same_file(saved: Path, vectors: np.ndarray) -> None:
    code = (
        "import sys, numpy as np; from explorank.retrieval import FaissIndex;"
        "index = FaissIndex.load(sys.argv[1], device='cpu');"
        "print(*index.search(np.array(eval(sys.argv[2])), 5)[0].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved), str(vectors[7].tolist())],
        capture_output=True,
        text=True,
        check=True,
    )
    index = FaissIndex.load(saved, device="cpu")
    assert done.stdout.split() == index.search(vectors[7], 5)[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_addition_that_fails_half_way_leaves_everything_as_it_was(
    kind: str, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = FaissIndex.build(vectors, names(COUNT), kind, device="cpu")
    name = "add" if kind == "hnsw" else "add_with_ids"
    real, calls = getattr(index._index, name), []

    def failing(*rows_and_labels: np.ndarray) -> None:
        calls.append(len(rows_and_labels[0]))
        if len(calls) == 2:
            raise MemoryError
        real(*rows_and_labels)

    monkeypatch.setattr(index._index, name, failing)
    with pytest.raises(MemoryError):
        index.update(unit(600, seed=6), names(600, start=COUNT - 10))
    assert len(index) == COUNT
    assert index.search(vectors[COUNT - 1], 1)[0].tolist() == [f"item-{COUNT - 1}"]
    assert len(index.search(vectors[0], 5_000)[0]) == COUNT
    index.save(tmp_path)
    assert len(FaissIndex.load(tmp_path, device="cpu")) == COUNT
    index.update(unit(600, seed=6), names(600, start=COUNT - 10))
    assert sorted(index.search(vectors[0], 5_000)[0].tolist()) == sorted(names(COUNT + 590))
    found = index.search(unit(600, seed=6), 1)[0][:, 0].tolist()
    assert np.mean(np.array(found) == np.array(names(600, start=COUNT - 10))) >= 0.95


def test_an_update_that_does_not_fit_changes_nothing(index: FaissIndex, vectors: np.ndarray) -> None:
    with pytest.raises(InvalidVectors, match="'b' is zero"):
        index.update(np.stack([vectors[1], np.zeros(DIM)]), ["item-0", "b"])
    with pytest.raises(InvalidVectors, match="'item-0' occurs more than once"):
        index.update(vectors[:2], ["item-0", "item-0"])
    with pytest.raises(InvalidVectors, match="by strings"):
        index.update(vectors[:1], [7])
    assert index.search(vectors[0], 1)[0].tolist() == ["item-0"]
    assert len(index) == COUNT
