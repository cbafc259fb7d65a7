"""What only a GPU can show: that its answers are the CPU's. `make test-gpu` runs this where there is one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from explorank.retrieval import FaissIndex, GpuOptions
from explorank.retrieval._faiss import gpu_count, load_faiss
from explorank.retrieval._gpu import GPU_MAX_K, GpuMirror, most_neighbours

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(gpu_count() == 0, reason="FAISS sees no GPU here")]

DIM = 64
COUNT = 20_000
KINDS = ("flat", "ivf_sq8", "ivf_flat")
OPTIONS = [
    GpuOptions(wait_ms=60_000),
    GpuOptions(wait_ms=60_000, spread="shards"),
    GpuOptions(wait_ms=60_000, float16=True),
    GpuOptions(wait_ms=60_000, spread="shards", float16=True),
]


def unit(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((200, DIM))
    vectors = centres[rng.integers(0, 200, rows)] + 0.5 * rng.standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def names(rows: int, start: int = 0) -> list[str]:
    return [f"item-{row}" for row in range(start, start + rows)]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(COUNT, seed=1)


@pytest.fixture(scope="module", params=KINDS)
def cpu(request: pytest.FixtureRequest, vectors: np.ndarray, tmp_path_factory) -> FaissIndex:
    folder = tmp_path_factory.mktemp(request.param)
    FaissIndex.build(vectors, names(COUNT), request.param, "cpu").save(folder)
    index = FaissIndex.load(folder, "cpu")
    index.folder = folder
    return index


@pytest.fixture(params=OPTIONS, ids=str)
def gpu(request: pytest.FixtureRequest, cpu: FaissIndex, vectors: np.ndarray) -> FaissIndex:
    index = FaissIndex.load(cpu.folder, "gpu", gpu=request.param)
    wait_for_copy(index, vectors)
    return index


def wait_for_copy(index: FaissIndex, vectors: np.ndarray) -> None:
    index.search(vectors[0], 1)
    deadline = time.monotonic() + 120
    while index._gpu.generation != index._generation:
        assert index.gpu_error is None, index.gpu_error
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_equal(found: tuple, truth: tuple, *, float16: bool) -> None:
    """Similarities agree; ids too, but for places that rounding may exchange."""
    (ids, similarities), (true_ids, true_similarities) = found, truth
    tolerance = 2e-3 if float16 else 1e-4
    np.testing.assert_allclose(similarities, true_similarities, atol=tolerance)
    for row, true_row, cosines in zip(ids, true_ids, true_similarities, strict=True):
        surely = cosines > cosines[-1] + 2 * tolerance
        assert set(true_row[surely].tolist()) <= set(row.tolist())


@pytest.mark.parametrize("k", [1, 100, 512, GPU_MAX_K - 400])
@pytest.mark.parametrize("hidden", [0, 20, 300])
def test_answers_are_the_cpus(cpu: FaissIndex, gpu: FaissIndex, k: int, hidden: int) -> None:
    queries, exclude = unit(16, seed=2), names(hidden)
    found = gpu.search(queries, k, exclude)
    assert gpu.gpu_error is None
    assert not set(found[0].ravel().tolist()) & set(exclude)
    assert_equal(found, cpu.search(queries, k, exclude), float16=gpu._gpu._options.float16)


@pytest.mark.parametrize(
    ("kind", "dim"),
    [
        ("flat", 64),
        ("ivf_flat", 64),
        ("ivf_flat", 4_096),
        ("ivf_sq8", 64),
        ("ivf_sq8", 3_072),
        ("ivf_sq8", 4_608),
    ],
)
def test_it_finds_as_many_as_it_may_be_asked_for(kind: str, dim: int) -> None:
    """In a process of its own: FAISS ends one that asks for more than the GPU can do."""
    code = f"""if True:
        import numpy as np
        from explorank.retrieval import GpuOptions
        from explorank.retrieval._gpu import GpuMirror
        from explorank.retrieval._index_kinds import make

        rows = np.random.default_rng(0).standard_normal((3_000, {dim}), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        index = make({kind!r}, rows)
        if {kind!r} != "flat":
            index.nprobe = index.nlist
        most = {most_neighbours(kind, dim)}
        found, labels = GpuMirror(index, GpuOptions()).search(rows[:3], most)
        true, _ = index.search(rows[:3], most)
        assert (labels >= 0).all()
        np.testing.assert_allclose(found, true, atol=1e-3)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_selector_is_ignored_by_the_gpu_itself(cpu: FaissIndex, vectors: np.ndarray) -> None:
    """The reason for asking for more and dropping the unwanted; where this fails, selectors have come to work."""
    faiss = load_faiss()
    mirror = GpuMirror(cpu._index, GpuOptions())
    selector = faiss.IDSelectorBatch(np.array([5], np.int64))
    kind = faiss.SearchParametersIVF if cpu.kind != "flat" else faiss.SearchParameters
    try:
        _, labels = mirror._index.search(vectors[:1], 10, params=kind(sel=selector))
    except RuntimeError:
        return  # refused aloud is as good: nothing is silently let through
    assert set(labels[0].tolist()) != {5, -1}


def test_removed_and_added_items(cpu: FaissIndex, gpu: FaissIndex, vectors: np.ndarray) -> None:
    index = FaissIndex.load(cpu.folder, "gpu", gpu=gpu._gpu._options)
    wait_for_copy(index, vectors)
    index.remove(names(100))
    assert not set(index.search(vectors[:50], 50)[0].ravel().tolist()) & set(names(100))
    new = unit(300, seed=7)
    index.update(new, names(300, start=COUNT - 10))
    wait_for_copy(index, vectors)
    found = index.search(new, 1)[0][:, 0].tolist()
    assert np.mean([name == true for name, true in zip(found, names(300, COUNT - 10), strict=True)]) >= 0.98
    assert index.gpu_error is None


def test_many_threads_share_it(cpu: FaissIndex, gpu: FaissIndex) -> None:
    queries = unit(400, seed=3)
    barrier = threading.Barrier(16)

    def search(part: int) -> list[tuple]:
        barrier.wait()
        return [gpu.search(queries[row][None, :], 50) for row in range(part, 400, 16)]

    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(search, range(16)))
    for part, found in enumerate(parts):
        for row, answer in zip(range(part, 400, 16), found, strict=True):
            truth = cpu.search(queries[row][None, :], 50)
            assert_equal(answer, truth, float16=gpu._gpu._options.float16)
    assert gpu.gpu_error is None
