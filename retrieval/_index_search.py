"""How an index of each kind is asked for neighbours."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._faiss import load_faiss
from explorank.retrieval._full_vectors import FullVectors
from explorank.retrieval._index_kinds import IVF_KINDS, Effort, Kind, Vectors

Neighbours: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Similarities and labels (q, k), the nearest first; -1 where fewer were found."""


class IndexSearch:
    """Asks indexes of one kind with one effort; safe from many threads."""

    def __init__(self, kind: Kind, effort: Effort, full: FullVectors | None) -> None:
        """Take the `full` vectors of the labels where the `kind` is `ivf_pq`."""
        self._kind: Final = kind
        self._effort: Final = effort
        self._full: Final = full
        self._unfiltered = None if kind == "hnsw" else self._parameters(1, None, effort.lists)

    def nearest(self, index: Any, rows: Vectors, k: int, selector: Any | None = None) -> Neighbours:
        """Return the `k` nearest of each of `rows` (q, d) among what `selector` lets through and the effort reaches."""
        parameters = self._unfiltered if selector is None else None
        if parameters is None:
            parameters = self._parameters(k, selector, self._effort.lists)
        return self._search(index, rows, k, parameters)

    def nearest_of_all(self, index: Any, rows: Vectors, k: int, selector: Any | None) -> Neighbours:
        """Do what `nearest` does, and leave out no list and no node."""
        faiss = load_faiss()
        if self._kind == "hnsw":
            vectors = faiss.downcast_index(index.storage)
            return _found(vectors.search(rows, k, params=faiss.SearchParameters(sel=selector)))
        every_list = index.nlist if self._kind in IVF_KINDS else None
        return self._search(index, rows, k, self._parameters(k, selector, every_list))

    def _parameters(self, k: int, selector: Any | None, lists: int | None) -> Any:
        faiss = load_faiss()
        if self._kind in IVF_KINDS:
            return faiss.SearchParametersIVF(sel=selector, nprobe=lists)
        if self._kind == "hnsw":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=max(self._effort.breadth or 0, 2 * k))
        return faiss.SearchParameters(sel=selector)

    def _search(self, index: Any, rows: Vectors, k: int, parameters: Any) -> Neighbours:
        if self._full is None:
            return _found(index.search(rows, k, params=parameters))
        among = min(self._effort.rescored_for(k), index.ntotal)
        _, labels = index.search(rows, among, params=parameters)
        if len(rows) == 1:
            similarities, nearest = self._full.nearest(rows[0], labels[0], k)
            return similarities[None], nearest[None]
        found = [self._full.nearest(row, near, k) for row, near in zip(rows, labels, strict=True)]
        return np.stack([similarity for similarity, _ in found]), np.stack([label for _, label in found])


def _found(answer: Any) -> Neighbours:
    similarities, labels = answer
    return similarities, labels
