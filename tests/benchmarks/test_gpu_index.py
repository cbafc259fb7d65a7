"""The benchmark of a GPU's index says where there is none, and measures what stands in for one. No speed is judged."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from explorank.retrieval import GpuOptions, _gpu, _index_kinds
from explorank.retrieval._faiss import gpu_count


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    from benchmarks import gpu_index

    with pytest.raises(SystemExit, match=r"sees no GPU here.*explorank\[gpu\]"):
        gpu_index.main(["--quick"])


@pytest.mark.parametrize("kind", ["flat", "ivf_flat"])
def test_both_find_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_index
    from benchmarks.index import Vectors

    def copied(index: faiss.Index, _: GpuOptions) -> faiss.Index:
        return faiss.clone_index(index)

    monkeypatch.setattr(_gpu.GpuSearcher.__init__, "__defaults__", (copied,))
    monkeypatch.setattr(_gpu.GpuMirror.__init__, "__defaults__", (copied,))
    monkeypatch.setattr(_index_kinds, "gpu_count", lambda: 1)
    monkeypatch.setattr(gpu_index, "_used_mib", lambda: 0.0)
    results = gpu_index.run(kind, Vectors(1, 10).draw(2_000), Vectors(2, 10).draw(150), seconds=0.05)
    assert [one.precision for one in results] == ["float32", "float16"]
    for one in results:
        assert one.recall == one.cpu_recall > 0.9
        assert np.isfinite([*one.gpu_ms, *one.bare_ms, *one.cpu_ms, one.gpu_per_s, one.cpu_per_s]).all()
