"""A copy of an index on the GPUs, one thread that owns it, and what many threads ask of it searched together."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._faiss import load_faiss
from explorank.retrieval.errors import InvalidOption

GPU_MAX_K: Final = 2048
"""The most neighbours a classic GPU index returns."""
_SHARED_BYTES: Final = 48 * 1024
"""What a kernel may share within a block without asking for more, which FAISS does not."""
_WARPS: Final = 4
_BYTES_PER_NEIGHBOUR: Final = 12
"""In the queue of each warp: a similarity and a label."""
_BYTES_PER_DIMENSION: Final = 8
"""The range of its codes: where it begins and how wide a step is."""
_MOST_QUERIES: Final = 1_024
"""So many queries are searched at once at most."""

Found: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """How an index lies on the GPUs."""

    spread: Literal["copies", "shards"] = "copies"
    """Over several GPUs: each has the whole index and takes a part of the queries, or each has a part of the index
    and takes all of them. With one GPU both are the same."""
    float16: bool = False
    """Hold what the GPU scans in half precision: half the memory, and similarities good to three digits."""
    wait_ms: float = 100.0
    """How long a search waits for the GPU; after that it is done on the CPU. Above 0."""

    def __post_init__(self) -> None:
        if self.spread not in ("copies", "shards"):
            raise InvalidOption(f"spread={self.spread!r} is neither copies nor shards. Name one of them.")
        if not self.wait_ms > 0:
            raise InvalidOption(
                f"wait_ms={self.wait_ms} leaves the GPU no time, so that every search would be the CPU's. Set "
                "milliseconds above 0, or device='cpu'."
            )


def most_neighbours(kind: str, dim: int) -> int:
    """Return how many neighbours a GPU index finds at most. FAISS ends the process that asks for more.

    To scan lists of 8-bit codes, its kernel shares queues of the next power of two of neighbours and the ranges of all
    dimensions (facebookresearch/faiss#4509). Of 384 dimensions it finds 512, of more than 5,952 none.
    """
    if kind != "ivf_sq8":
        return GPU_MAX_K
    for most in (512, 256, 128, 64, 32):
        if _WARPS * most * _BYTES_PER_NEIGHBOUR + dim * _BYTES_PER_DIMENSION <= _SHARED_BYTES:
            return most
    return 0


Cloner: TypeAlias = Callable[[Any, GpuOptions], Any]
"""Returns a searchable copy of a FAISS index; tests without a GPU pass one of their own."""


def clone_to_gpus(index: Any, options: GpuOptions) -> Any:
    """Return a copy of `index` on all GPUs that FAISS sees."""
    faiss = load_faiss()
    how = faiss.GpuMultipleClonerOptions()
    how.useFloat16 = options.float16
    how.shard = options.spread == "shards"
    how.shard_type = 1  # by the label's remainder: by ranges, labels beyond the number of rows would be lost
    return faiss.index_cpu_to_all_gpus(index, co=how)


class GpuMirror:
    """A copy of an index that lives on the CPU. Not safe for concurrent use.

    A classic GPU index silently ignores a selector, so `search` takes none: the caller asks for more neighbours than
    it needs and drops the unwanted ones.
    """

    def __init__(self, index: Any, options: GpuOptions, clone: Cloner = clone_to_gpus) -> None:
        faiss = load_faiss()
        self._labels: NDArray[np.int64] | None = None
        if isinstance(index, faiss.IndexIDMap):
            # Only the inner index is cloned; its positions become labels here.
            self._labels = faiss.vector_to_array(index.id_map).copy()
            index = faiss.downcast_index(index.index)
        self._index = clone(index, options)

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """Return similarities and labels, both (q, k), with -1 where there is no neighbour."""
        similarities, positions = self._index.search(queries, k)
        if self._labels is None:
            return similarities, positions
        return similarities, np.where(positions < 0, -1, self._labels[np.maximum(positions, 0)])


@dataclass(frozen=True, slots=True)
class _Search:
    queries: NDArray[np.float32]
    k: int
    found: Future[Found]


_Task: TypeAlias = _Search | Callable[[], GpuMirror] | None


class GpuSearcher:
    """Searches of many threads on the one mirror; a GPU index is not safe for concurrent reads.

    One thread owns the mirror. While it searches, requests gather, and it takes all of them at once next: so a
    request waits for the search in progress and for its own, nothing else, and batches grow with the load.
    """

    def __init__(self, options: GpuOptions, clone: Cloner = clone_to_gpus) -> None:
        self._options = options
        self._clone = clone
        self._state = _State()
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._lock = Lock()
        self._asked_for: int | None = None
        self._owner: Thread | None = None

    @property
    def generation(self) -> int | None:
        """Which state of the index the mirror copies; None while there is no mirror."""
        return self._state.generation

    @property
    def error(self) -> Exception | None:
        """Why the last copy or search failed; None after one that succeeded."""
        return self._state.error

    def copy(self, generation: int, read: Callable[[Callable[[Any], None]], int]) -> None:
        """Make a mirror in the background, unless one of this or a later `generation` was asked for already.

        `read(use)` calls `use(index)` while the index cannot change, and returns the generation it has.
        """
        with self._lock:
            if self._asked_for is not None and self._asked_for >= generation:
                return
            self._asked_for = generation
            self._start()
        state, options, clone = self._state, self._options, self._clone

        def make() -> GpuMirror:
            mirrors: list[GpuMirror] = []
            made = read(lambda index: mirrors.append(GpuMirror(index, options, clone)))
            state.generation = made
            return mirrors[0]

        self._tasks.put(make)

    def search(self, queries: NDArray[np.float32], k: int) -> Found | None:
        """Return similarities and labels (q, k), or None where the GPU fails or is late.

        `k` is at most the `most_neighbours` of the index.
        """
        asked = _Search(queries, k, Future())
        self._tasks.put(asked)
        try:
            return asked.found.result(self._options.wait_ms / 1e3)
        except (FutureTimeout, CancelledError):
            asked.found.cancel()
            return None
        except Exception:
            return None

    def _start(self) -> None:
        if self._owner is None:
            # The thread knows the queue and not the searcher, so that it ends with it.
            self._owner = Thread(
                target=_own, args=(self._tasks, self._state), name="explorank-gpu", daemon=True
            )
            weakref.finalize(self, self._tasks.put, None)
            self._owner.start()


class _State:
    """What the owner tells the others."""

    generation: int | None = None
    error: Exception | None = None


def _own(tasks: SimpleQueue[_Task], state: _State) -> None:
    """Do what comes, until None comes; searches that wait together are done at once."""
    mirror: GpuMirror | None = None
    next_ones: list[_Task] = []
    while (task := next_ones.pop() if next_ones else tasks.get()) is not None:
        if isinstance(task, _Search):
            batch = [task]
            while not tasks.empty() and sum(len(search.queries) for search in batch) < _MOST_QUERIES:
                another = tasks.get()
                if not isinstance(another, _Search):
                    next_ones.append(another)
                    break
                batch.append(another)
            _answer(
                mirror, [search for search in batch if search.found.set_running_or_notify_cancel()], state
            )
        else:
            mirror = None  # the new copy wants the memory of the old one
            mirror = _made(task, state)
        del task  # it knows the index, which may go while this waits


def _made(make: Callable[[], GpuMirror], state: _State) -> GpuMirror | None:
    state.generation = None
    try:
        mirror = make()
    except Exception as error:
        state.error = error
        return None
    state.error = None
    return mirror


def _answer(mirror: GpuMirror | None, batch: list[_Search], state: _State) -> None:
    if not batch:
        return
    if mirror is None:
        for search in batch:
            search.found.cancel()
        return
    try:
        queries = np.concatenate([search.queries for search in batch])
        similarities, labels = mirror.search(queries, max(search.k for search in batch))
    except Exception as error:
        state.error = error
        for search in batch:
            search.found.set_exception(error)
        return
    start = 0
    for search in batch:
        rows = slice(start, start + len(search.queries))
        search.found.set_result((similarities[rows, : search.k], labels[rows, : search.k]))
        start = rows.stop
