"""The single place that imports FAISS, and the few calls that depend on which build of it is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.errors import FaissUnavailable

_DISTRIBUTION: Final = re.compile(r"faiss[-_.](cpu|gpu([-_.](cu\d+|cuvs))*)", re.IGNORECASE)
GPU_MAX_K: Final = 2048
"""The most neighbours a classic GPU index returns."""


def installed_distributions() -> list[str]:
    """Return the installed distributions that provide the module `faiss`."""
    names = (distribution.metadata["Name"] for distribution in metadata.distributions())
    return sorted({name for name in names if name and _DISTRIBUTION.fullmatch(name)})


@cache
def load_faiss() -> ModuleType:
    """Return the module `faiss`; raise `FaissUnavailable` where none or more than one provides it."""
    found = installed_distributions()
    if len(found) > 1:
        raise FaissUnavailable(
            f"{' and '.join(found)} are both installed; all of them write into the same module `faiss`, and "
            "what loads is a mixture. Remove them with `pip uninstall "
            + " ".join(found)
            + "` and install one "
            "with `pip install 'explorank[cpu]'` or `pip install 'explorank[gpu]'`."
        )
    try:
        return import_module("faiss")
    except ImportError as error:
        raise FaissUnavailable(
            "No usable FAISS is installed, and candidates are searched with it. Install it with "
            "`pip install 'explorank[cpu]'`, or `pip install 'explorank[gpu]'` for a CUDA GPU (that one runs "
            "without a GPU too)."
        ) from error


def gpu_count() -> int:
    """Return how many GPUs FAISS can use: 0 in a CPU build, and in a GPU build without a GPU."""
    return int(getattr(load_faiss(), "get_num_gpus", int)())


@contextmanager
def one_thread() -> Iterator[None]:
    """Search on the calling thread only: OpenMP threads beside request threads cost more than they bring.

    OpenMP keeps the setting per thread, so it is set at each use; that takes a quarter of a microsecond.
    """
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class GpuMirror:
    """A copy on the first GPU of an index that lives on the CPU. Not safe for concurrent use.

    A classic GPU index silently ignores a selector, so `search` takes none: the caller asks for more
    neighbours than it needs and drops the unwanted ones.
    """

    def __init__(self, index: Any) -> None:
        faiss = load_faiss()
        self._labels: NDArray[np.int64] | None = None
        if isinstance(index, faiss.IndexIDMap):
            # Only the inner index is cloned; its positions become labels here.
            self._labels = faiss.vector_to_array(index.id_map).copy()
            index = faiss.downcast_index(index.index)
        self._resources = faiss.StandardGpuResources()
        self._index = faiss.index_cpu_to_gpu(self._resources, 0, index)

    def search(
        self, queries: NDArray[np.float32], k: int, nprobe: int | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return similarities and labels, both (q, k), with -1 where there is no neighbour."""
        if nprobe is not None:
            self._index.nprobe = nprobe
        similarities, positions = self._index.search(queries, k)
        if self._labels is None:
            return similarities, positions
        return similarities, np.where(positions < 0, -1, self._labels[np.maximum(positions, 0)])
