"""Models that are one matrix of weights between items: a user's scores are the sum over what they took up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from explorank.retrieval.collaborative._arrays import load_arrays, save_arrays
from explorank.retrieval.collaborative.interactions import ItemRows
from explorank.retrieval.collaborative.neighbours import NeighbourTable


class ItemWeights:
    """Scores s_j = Σ W_ij over the items i of a history, with W (n, n), dense or sparse, its diagonal 0."""

    _format: ClassVar[str]

    def __init__(self, item_ids: NDArray[np.str_], weights: NDArray[np.float32] | csr_matrix) -> None:
        """Take the items (n,) and their weights (n, n); use `fit` or `load`."""
        self._item_ids = item_ids
        self._weights = weights
        self._rows = ItemRows(item_ids)

    @property
    def item_ids(self) -> NDArray[np.str_]:
        """(n,) the items, in the order of the scores."""
        return self._item_ids

    @property
    def weights(self) -> NDArray[np.float32] | csr_matrix:
        """(n, n) float32; row i is what having taken up item i adds to each score."""
        return self._weights

    def scores(self, history: Sequence[str]) -> NDArray[np.float32]:
        """Return (n,) scores, the higher the better; unknown items of the history are passed over."""
        taken = self._weights[self._rows.known(history)]
        summed: NDArray[np.float32] = np.asarray(taken.sum(axis=0), np.float32).ravel()
        return summed

    def scores_of_many(self, histories: csr_matrix) -> NDArray[np.float32]:
        """Return (m, n) scores for histories (m, n) with 1 where an item was taken up."""
        found = histories @ self._weights
        dense: NDArray[np.float32] = np.asarray(found.toarray() if issparse(found) else found, np.float32)
        return dense

    def neighbours(self, count: int) -> NeighbourTable:
        """Return the `count` items of greatest weight above 0 for each item."""
        return NeighbourTable.of(self._item_ids, self._weights, count)

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`."""
        weights = self._weights
        if issparse(weights):
            arrays = {"data": weights.data, "indices": weights.indices, "indptr": weights.indptr}
        else:
            arrays = {"weights": np.asarray(weights)}
        save_arrays(
            folder, self._format, {"sparse": bool(issparse(weights))}, {"item_ids": self._item_ids, **arrays}
        )

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the model that `save` wrote; raise `CorruptArtefact` naming the file that is not intact."""
        facts, arrays = load_arrays(folder, cls._format, "item_ids")
        ids = arrays["item_ids"]
        if not facts["sparse"]:
            return cls(ids, arrays["weights"])
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        return cls(ids, csr_matrix(parts, (len(ids), len(ids))))
