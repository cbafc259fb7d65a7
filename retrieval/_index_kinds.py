"""The kinds of FAISS index used here: which one suits, how each is made, filled and asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._faiss import gpu_count, load_faiss
from explorank.retrieval._list_finder import assigning, find_lists_by_codes, pays
from explorank.retrieval.errors import FaissUnavailable, InvalidOption

Kind: TypeAlias = Literal["flat", "sq8", "hnsw", "ivf_pq", "ivf_sq8", "ivf_flat"]
"""`flat`: exact. `sq8`: 8 bits per dimension, scanned whole. `hnsw`: a graph, for items that rarely change.
`ivf_sq8`: 8 bits, and only the closest lists are scanned. `ivf_pq`: the same with 2 bits per dimension, and what
these find closest is compared again in full precision; for a million items. `ivf_flat`: lists in full precision, for
a recall that codes cannot give."""
Device: TypeAlias = Literal["cpu", "gpu"]
Vectors: TypeAlias = NDArray[np.float32]

IVF_KINDS: Final = ("ivf_pq", "ivf_sq8", "ivf_flat")
GPU_KINDS: Final = ("flat", "ivf_sq8", "ivf_flat")
KINDS_THAT_KEEP_ROWS: Final = ("hnsw", "ivf_pq")
"""A graph holds together by its removed rows; full vectors are kept by labels that are never given away again."""
_LEARNING_KINDS: Final = ("sq8", *IVF_KINDS)
_LEAST_TO_LEARN_FROM: Final = 1_000
"""Fewer vectors do not span the value ranges that later ones take; those would be cut off."""
_FLAT_UP_TO: Final = 10_000
_SQ8_UP_TO: Final = 100_000
_GPU_FLAT_UP_TO: Final = 100_000
"""Up to here one query takes about half a millisecond, and of a million 5, where lists take 0.3 (on an H100)."""

_HNSW_NEIGHBOURS: Final = 32
_HNSW_EF_CONSTRUCTION: Final = 200
_LEAST_POINTS_PER_LIST: Final = 39
"""Below this FAISS calls its k-means undersampled."""
_DIMS_PER_CODE: Final = 2
"""Codes have 4 bits, so that FAISS looks distances up in registers ("fast scan"): 2 bits per dimension."""
_MOST_POINTS_PER_LIST: Final = 40
"""More make the clustering slower in proportion, and recall no better."""
_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of an index is looked at in a search."""

    lists: int | None = None
    """How many lists of `ivf_pq`, `ivf_sq8` and `ivf_flat` are scanned (`nprobe`); None for other kinds."""
    breadth: int | None = None
    """How many nodes of `hnsw` are kept in sight (`efSearch`), at least twice k; None for other kinds."""
    rescored: int | None = None
    """How many rows that `ivf_pq` finds closest by their codes are compared again; None for other kinds."""
    neighbours: int | None = None
    """The k that `rescored` is meant for; None where that is."""

    def rescored_for(self, k: int) -> int:
        """Return how many rows `ivf_pq` compares again for the `k` nearest.

        The fewer are wanted, the more of the others a code's error can put before them: by a binomial's spread,
        the square root of their number.
        """
        assert self.rescored is not None  # noqa: S101 - for the type checker
        assert self.neighbours is not None  # noqa: S101 - for the type checker
        share = k / self.neighbours
        return max(k, math.ceil(self.rescored * max(share, math.sqrt(share))))

    def __str__(self) -> str:
        if self.rescored is not None:
            return f"nprobe {self.lists}, {self.rescored} rescored"
        if self.lists is not None:
            return f"nprobe {self.lists}"
        return "all" if self.breadth is None else f"efSearch {self.breadth}"


def choose_device(device: str, kind: str) -> Device:
    """Return where to search; raise `FaissUnavailable` for a GPU that is asked for and not there."""
    if device not in ("auto", *get_args(Device)):
        raise InvalidOption(f"device={device!r} is none of auto, cpu and gpu. Name one of them.")
    runs_on_gpu = kind == "auto" or kind in GPU_KINDS
    if device == "gpu":
        if not runs_on_gpu:
            raise InvalidOption(
                f"kind={kind!r} has no GPU form in FAISS. Use {' or '.join(GPU_KINDS)}, or device='cpu'."
            )
        if gpu_count() == 0:
            raise FaissUnavailable(
                "device='gpu' was asked for, and FAISS sees no GPU: this is a CPU build, or there is no GPU "
                "or driver. Install `explorank[gpu]` on a machine with one, or use device='auto'."
            )
        return "gpu"
    return "gpu" if device == "auto" and runs_on_gpu and gpu_count() > 0 else "cpu"


def candidate_kinds(kind: str, count: int, dim: int, device: Device) -> tuple[Kind, ...]:
    """Return the kinds that suit `count` vectors of `dim`, in the order in which `tune_index` tries them.

    `auto` leaves out `hnsw`: it holds every vector in float32 beside its graph, and cannot give rows back.
    """
    if kind == "auto":
        if count <= (_FLAT_UP_TO if device == "cpu" else _GPU_FLAT_UP_TO):
            return ("flat",)
        if (
            device == "gpu"
        ):  # its memory is fast enough for full vectors, and of 8-bit codes it finds few neighbours
            return ("ivf_flat",)
        by_pairs: tuple[Kind, ...] = () if dim % _DIMS_PER_CODE else ("ivf_pq",)
        whole: tuple[Kind, ...] = ("sq8",) if count <= _SQ8_UP_TO else ()
        return (*by_pairs, "ivf_sq8", *whole, "ivf_flat")
    if kind == "ivf_pq" and dim % _DIMS_PER_CODE:
        raise InvalidOption(
            f"kind='ivf_pq' has a code for every two dimensions, and {dim} is odd. Use 'ivf_sq8', or 'auto', which "
            "does."
        )
    for known in get_args(Kind):
        if kind == known:
            if known in _LEARNING_KINDS and count < _LEAST_TO_LEARN_FROM:
                raise InvalidOption(
                    f"kind={kind!r} learns from its vectors what later ones look like, and {count} are too few: "
                    "those would be cut off, or lie in the wrong lists. Use 'auto' or 'flat' below "
                    f"{_LEAST_TO_LEARN_FROM}."
                )
            chosen: Kind = known
            return (chosen,)
    raise InvalidOption(f"kind={kind!r} is none of auto, {', '.join(get_args(Kind))}. Name one of them.")


def make(kind: Kind, vectors: Vectors, centroids: Vectors | None = None) -> Any:
    """Return a FAISS index that holds the unit rows `vectors` (n, d) under the labels 0 to n - 1.

    It learns from a sample and takes the rows in parts, so that `vectors` may be mapped from a file that does
    not fit into memory. As many threads work as OpenMP has. `centroids` (lists, d) of an IVF index made before
    save the clustering.
    """
    faiss = load_faiss()
    count, dim = vectors.shape
    inner_product = faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _HNSW_NEIGHBOURS, inner_product)
        index.hnsw.efConstruction = _HNSW_EF_CONSTRUCTION
    elif kind in IVF_KINDS:
        lists = list_count(count)
        codes = {"ivf_pq": f"PQ{dim // _DIMS_PER_CODE}x4fs", "ivf_sq8": "SQ8", "ivf_flat": "Flat"}[kind]
        index = faiss.index_factory(dim, f"IVF{lists},{codes}", inner_product)
        if kind == "ivf_pq":
            index.by_residual = True  # half the error, and no slower: products add up
        if centroids is not None:
            index.quantizer.add(centroids)
        index.cp.max_points_per_centroid = _MOST_POINTS_PER_LIST
        index.train(_sample(vectors, lists * _MOST_POINTS_PER_LIST))
        if kind == "ivf_pq" and pays(lists, dim):
            find_lists_by_codes(index)
    else:
        index = faiss.index_factory(dim, "IDMap,Flat" if kind == "flat" else "IDMap,SQ8", inner_product)
        if kind == "sq8":
            index.train(_sample(vectors, _SQ8_UP_TO))
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = np.ascontiguousarray(vectors[start : start + _ROWS_AT_ONCE])
        add(index, kind, rows, np.arange(start, start + len(rows)))
    return index


def list_count(count: int) -> int:
    """Return into how many lists `count` vectors are parted: about 4 √n, a power of two where that many suffice."""
    return min(1 << round(math.log2(4 * math.sqrt(count))), count // _LEAST_POINTS_PER_LIST)


def add(index: Any, kind: Kind, rows: Vectors, labels: NDArray[np.int64]) -> None:
    """Add `rows` (m, d) under `labels` (m,); a graph numbers its rows itself, in the order they come."""
    if kind == "hnsw":
        index.add(rows)
    elif kind == "ivf_pq":
        with assigning(index):
            index.add_with_ids(rows, labels)
    else:
        index.add_with_ids(rows, labels)


def _sample(vectors: Vectors, count: int) -> Vectors:
    """Return `count` rows, or all where there are no more; the same ones each time."""
    if count >= len(vectors):
        return np.ascontiguousarray(vectors)
    # Rising, so that a mapped file is read from front to back.
    chosen = np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))
    return np.ascontiguousarray(vectors[chosen])
