"""The nearest items by FAISS: exactly, or as fast as a good choice finds nearly all of them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

_RECALL: Final = 0.99
_POINTS_PER_LIST: Final = 40
_SCANNED_UP_TO: Final = 200_000
"""Beyond, looking at every vector is slower than any lists."""


class Nearest:
    """A FAISS index, and how many of its lists are searched."""

    def __init__(self, name: str, index: Any, lists: int = 0) -> None:
        """Search `index`; one with lists searches `lists` of them."""
        self.name = name
        self._index = index
        if lists:
            self._index.nprobe = lists

    def __call__(self, query: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return the rows of the `k` nearest items, (k,)."""
        rows: NDArray[np.int64] = self._index.search(query[None, :], k)[1][0]
        return rows


def flat(vectors: NDArray[np.float32]) -> Nearest:
    """Return exact search over `vectors` (n, d)."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return Nearest("flat", index)


def exact(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the rows of the true `k` nearest of each query, (q, k)."""
    rows: NDArray[np.int64] = faiss.knn(
        queries, np.ascontiguousarray(vectors), k, metric=faiss.METRIC_INNER_PRODUCT
    )[1]
    return rows


def recall(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Return the share of `truth` (q, k) that is among `found` (q, k)."""
    return float(np.mean([np.isin(true, other).mean() for true, other in zip(truth, found, strict=True)]))


def well_chosen(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], truth: NDArray[np.int64], folder: Path
) -> Nearest:
    """Return the fastest of 8-bit vectors, all or the closest lists of them, that find 99 % of `truth`.

    An inverted file has about 4 sqrt(n) lists, clustered on 40 vectors each. Indexes are kept in `folder`.
    """
    k = truth.shape[1]
    contestants = []
    if len(vectors) <= _SCANNED_UP_TO:
        contestants.append(Nearest("SQ8", _built(vectors, "SQ8", folder)))
    lists = 2 ** round(math.log2(4.0 * math.sqrt(len(vectors))))
    index = _built(vectors, f"IVF{lists},SQ8", folder)
    probed = 1
    while probed < lists:
        index.nprobe = probed
        if recall(truth, index.search(queries, k)[1]) >= _RECALL:
            break
        probed *= 2
    contestants.append(Nearest(f"IVF{lists},SQ8, {probed} lists", index, probed))
    return min(contestants, key=lambda nearest: _seconds(nearest, queries, k))


def _built(vectors: NDArray[np.float32], description: str, folder: Path) -> Any:
    path = folder / f"{description.replace(',', '-').lower()}.faiss"
    if not path.exists():
        n, dim = vectors.shape
        index = faiss.index_factory(dim, description, faiss.METRIC_INNER_PRODUCT)
        wanted = min(n, _POINTS_PER_LIST * getattr(index, "nlist", 1_000))
        sample = np.random.default_rng(0).choice(n, wanted, replace=False)
        if hasattr(index, "cp"):
            index.cp.min_points_per_centroid = (
                1  # a small catalogue has fewer, and FAISS would say so each time
            )
        index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
        for start in range(0, n, 50_000):
            index.add(np.ascontiguousarray(vectors[start : start + 50_000]))
        faiss.write_index(index, str(path))
    return faiss.read_index(str(path))


def _seconds(nearest: Nearest, queries: NDArray[np.float32], k: int) -> float:
    taken = []
    for query in queries:
        begin = time.perf_counter()
        nearest(query, k)
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))
