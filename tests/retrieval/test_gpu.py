"""The path of GPU searches on any machine: what stands in for the GPU's copy ignores filters and threads as it does."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank.retrieval import FaissIndex, GpuOptions, InvalidOption
from explorank.retrieval._faiss import load_faiss
from explorank.retrieval._gpu import GPU_MAX_K, GpuSearcher, most_neighbours
from explorank.retrieval._index_files import load_index

DIM = 16
COUNT = 1_500
PATIENT = GpuOptions(wait_ms=10_000)


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(rows: int, start: int = 0) -> list[str]:
    return [f"item-{row}" for row in range(start, start + rows)]


class StandIn:
    """Clones an index as the GPU would, and notes what is asked of the clone."""

    def __init__(self) -> None:
        self.options: list[GpuOptions] = []
        self.asked: list[tuple[int, int]] = []
        self.threads: set[int] = set()
        self.before_search: Callable[[], None] = lambda: None
        self.before_clone: Callable[[], None] = lambda: None

    def __call__(self, index: Any, options: GpuOptions) -> StandIn.Copy:
        self.before_clone()
        self.options.append(options)
        return StandIn.Copy(self, load_faiss().clone_index(index))

    class Copy:
        def __init__(self, owner: StandIn, index: Any) -> None:
            self.owner = owner
            self.index = index

        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            self.owner.before_search()
            self.owner.asked.append((len(queries), k))
            self.owner.threads.add(threading.get_ident())
            return self.index.search(queries, k)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(COUNT, seed=1)


@pytest.fixture(scope="module", params=["flat", "ivf_sq8", "ivf_flat"])
def saved(request: pytest.FixtureRequest, vectors: np.ndarray, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    FaissIndex.build(vectors, names(COUNT), kind=request.param, device="cpu").save(folder)
    return folder


@pytest.fixture
def gpu() -> StandIn:
    return StandIn()


def served(saved: Path, gpu: StandIn, options: GpuOptions = PATIENT) -> FaissIndex:
    index = FaissIndex(load_index(saved, "mapped"), "gpu", GpuSearcher(options, gpu))
    index.search(unit(1, seed=2)[0], 1)  # asks for the copy
    until(lambda: copied(index))
    return index


def copied(index: FaissIndex) -> bool:
    return index._gpu is not None and index._gpu.generation == index._generation


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("k", [1, 50, GPU_MAX_K - 100])
def test_answers_are_those_of_the_cpu(saved: Path, gpu: StandIn, vectors: np.ndarray, k: int) -> None:
    index, cpu = served(saved, gpu), FaissIndex.load(saved, device="cpu")
    for exclude in ([], names(7), names(60, start=1_000)):
        for each in (index, cpu):
            each.remove([f"item-{len(exclude)}", "item-9"])
        before = len(gpu.asked)
        ids, similarities = index.search(vectors[7:10], k, exclude)
        truth, cosines = cpu.search(vectors[7:10], k, exclude)
        np.testing.assert_array_equal(ids, truth)
        np.testing.assert_allclose(similarities, cosines, atol=1e-6)
        assert not set(ids.ravel().tolist()) & {"item-9", *exclude}
        if k < 100:
            assert len(gpu.asked) == before + 1
        assert all(asked <= most_neighbours(index.kind, DIM) for _, asked in gpu.asked)
    assert len(gpu.options) == 1  # removals need no new copy


def test_more_than_a_gpu_returns_is_left_to_the_cpu(saved: Path, gpu: StandIn, vectors: np.ndarray) -> None:
    index = served(saved, gpu)
    index.add(unit(2_000, seed=3), names(2_000, start=COUNT))
    index.search(vectors[0], 1)
    until(lambda: copied(index))
    before = len(gpu.asked)
    assert len(index.search(vectors[0], GPU_MAX_K + 1)[0]) == GPU_MAX_K + 1
    assert len(gpu.asked) == before


@pytest.mark.parametrize(
    ("kind", "dim", "most"),
    [
        ("flat", 9_000, 2_048),
        ("ivf_flat", 384, 2_048),
        # 4 warps * 512 neighbours * 12 bytes are half of 48 KiB; the other half holds 8 bytes for each of 3,072.
        ("ivf_sq8", 384, 512),
        ("ivf_sq8", 3_072, 512),
        ("ivf_sq8", 3_073, 256),
        ("ivf_sq8", 4_608, 256),
        ("ivf_sq8", 4_609, 128),
        ("ivf_sq8", 5_952, 32),
        ("ivf_sq8", 5_953, 0),
    ],
)
def test_how_many_neighbours_a_gpu_may_be_asked_for(kind: str, dim: int, most: int) -> None:
    assert most_neighbours(kind, dim) == most


def test_the_cpu_answers_until_additions_are_copied(saved: Path, gpu: StandIn) -> None:
    index = served(saved, gpu)
    hold = threading.Event()
    gpu.before_clone = hold.wait
    new = unit(1, seed=5)
    index.add(new, ["new"])
    asked = len(gpu.asked)
    for _ in range(3):
        assert index.search(new[0], 1)[0].tolist() == ["new"]
    assert len(gpu.asked) == asked
    hold.set()
    until(lambda: copied(index))
    assert len(gpu.options) == 2
    assert index.search(new[0], 1)[0].tolist() == ["new"]
    assert len(gpu.asked) == asked + 1


def test_one_thread_searches_for_all_and_takes_together_what_waits(saved: Path, gpu: StandIn) -> None:
    index, cpu = served(saved, gpu), FaissIndex.load(saved, device="cpu")
    gpu.before_search = lambda: time.sleep(0.05)
    queries = unit(64, seed=6)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda row: index.search(queries[row], 5 + row % 7, names(row % 3)), range(64)))
    for row, (ids, _) in enumerate(found):
        assert ids.tolist() == cpu.search(queries[row], 5 + row % 7, names(row % 3))[0].tolist()
    assert len(gpu.threads) == 1
    assert threading.get_ident() not in gpu.threads
    assert sum(count for count, _ in gpu.asked) == 64
    assert (
        len(gpu.asked) <= 32
    )  # up to 16 wait at a time, fewer on a busy machine: some searches do for all of them


def test_a_search_waits_no_longer_than_it_may(saved: Path, gpu: StandIn, vectors: np.ndarray) -> None:
    index = served(saved, gpu, GpuOptions(wait_ms=30))
    hold = threading.Event()
    gpu.before_search = hold.wait
    start = time.monotonic()
    for _ in range(3):
        assert index.search(vectors[4], 1)[0].tolist() == ["item-4"]
    assert time.monotonic() - start < 30
    assert gpu.asked == []
    hold.set()
    until(lambda: len(gpu.asked) == 1)  # what nobody waits for any more is not searched


def test_a_gpu_that_fails_costs_no_answer(saved: Path, gpu: StandIn, vectors: np.ndarray) -> None:
    index = served(saved, gpu)

    def fail() -> None:
        raise RuntimeError("out of memory")

    gpu.before_search = fail
    assert index.search(vectors[4], 1)[0].tolist() == ["item-4"]
    assert str(index.gpu_error) == "out of memory"
    gpu.before_search, gpu.before_clone = lambda: None, fail
    index.add(unit(1, seed=5), ["new"])
    for _ in range(3):
        assert index.search(unit(1, seed=5)[0], 1)[0].tolist() == ["new"]
        until(lambda: str(index.gpu_error) == "out of memory")
    assert len(gpu.options) == 1
    gpu.before_clone = lambda: None
    index.add(unit(1, seed=6), ["newer"])  # the next change asks for a copy again
    index.search(vectors[0], 1)
    until(lambda: copied(index))
    assert index.gpu_error is None


def test_changes_and_searches_from_many_threads(saved: Path, gpu: StandIn) -> None:
    index = served(saved, gpu)
    gone: set[str] = set()
    stop = threading.Event()

    def search(seed: int) -> int:
        query, count = unit(1, seed)[0], 0
        while not stop.is_set():
            before = set(gone)
            ids, _ = index.search(query, 20, names(3, start=1_400))
            assert not (before | set(names(3, start=1_400))) & set(ids.tolist())
            assert len(set(ids.tolist())) == 20
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(search, seed) for seed in range(4)]
        for start in range(0, 400, 20):
            index.remove(names(20, start))
            gone.update(names(20, start))
            index.update(unit(4, seed=start), names(4, start=500 + start))
        stop.set()
        assert all(search.result() > 0 for search in searches)
    assert index.gpu_error is None


def test_the_owner_ends_with_its_index(saved: Path, gpu: StandIn) -> None:
    index = served(saved, gpu)
    owner = index._gpu._owner
    assert owner.is_alive()
    del index
    gc.collect()
    owner.join(60)
    assert not owner.is_alive()


def test_options_are_handed_to_the_cloner(saved: Path, gpu: StandIn) -> None:
    options = GpuOptions(spread="shards", float16=True)
    served(saved, gpu, options)
    assert gpu.options == [options]


@pytest.mark.parametrize(
    ("options", "said"), [({"spread": "both"}, "neither copies nor shards"), ({"wait_ms": 0}, "no time")]
)
def test_options_outside_their_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        GpuOptions(**options)
