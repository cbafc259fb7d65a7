"""For each item the few that are most like it by use, ready to be served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from explorank.retrieval._ids import IdTable
from explorank.retrieval.collaborative._arrays import load_arrays, save_arrays
from explorank.retrieval.errors import InvalidOption

_FORMAT: Final = "explorank.neighbours/1"


class NeighbourTable:
    """The nearest items of each item and their weights; what a history's neighbours sum to costs O(history · width)."""

    def __init__(self, item_ids: NDArray[np.str_], table: csr_matrix) -> None:
        """Take the items (n,) and a sparse matrix (n, n) of weights above 0; use `of` or `load`."""
        self.item_ids = item_ids
        self.table = table
        self._ids = IdTable(item_ids)

    @classmethod
    def of(cls, item_ids: NDArray[np.str_], weights: NDArray[np.float32] | csr_matrix, count: int) -> Self:
        """Return the `count` greatest weights above 0 of each row of `weights` (n, n), dense or sparse."""
        if count < 1:
            raise InvalidOption(
                f"count={count} keeps no neighbour of any item, so nothing would be found. Set 1 or more."
            )
        kept = [_greatest(weights, row, count) for row in range(len(item_ids))]
        lengths = np.array([len(columns) for columns, _ in kept], np.int64)
        table = csr_matrix(
            (
                np.concatenate([values for _, values in kept]),
                np.concatenate([columns for columns, _ in kept]),
                np.concatenate([[0], np.cumsum(lengths)]),
            ),
            (len(item_ids), len(item_ids)),
        )
        return cls(item_ids, table)

    def like(
        self, history: Sequence[str], k: int, exclude: Iterable[str] = ()
    ) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
        """Return up to `k` items of the greatest summed weight, and the sums divided by the length of the history.

        Neither items of the history, nor of `exclude`, nor those that are nobody's neighbour are among them; unknown
        ids are passed over.
        """
        rows = self._ids.find(history)
        rows = np.unique(rows[rows >= 0])
        starts, ends = self.table.indptr[rows], self.table.indptr[rows + 1]
        places = np.concatenate(
            [np.arange(a, b) for a, b in zip(starts, ends, strict=True)] or [np.arange(0)]
        )
        columns, where = np.unique(self.table.indices[places], return_inverse=True)
        sums = np.bincount(where, self.table.data[places], len(columns))
        left_out = self._ids.find(tuple(exclude))
        allowed = ~np.isin(columns, np.concatenate([rows, left_out]))
        columns, sums = columns[allowed], sums[allowed]
        best = np.argsort(-sums, kind="stable")[:k]
        return self.item_ids[columns[best]], (sums[best] / max(len(rows), 1)).astype(np.float32)

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`."""
        table = self.table
        arrays = {"data": table.data, "indices": table.indices, "indptr": table.indptr}
        save_arrays(folder, _FORMAT, {}, {"item_ids": self.item_ids, **arrays})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the table that `save` wrote; raise `CorruptArtefact` naming the file that is not intact."""
        names = ("item_ids", "data", "indices", "indptr")
        _, arrays = load_arrays(folder, _FORMAT, *names)
        ids, data, indices, indptr = (arrays[name] for name in names)
        return cls(ids, csr_matrix((data, indices, indptr), (len(ids), len(ids))))


def _greatest(
    weights: NDArray[np.float32] | csr_matrix, row: int, count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    columns: NDArray[Any]
    values: NDArray[Any]
    if isinstance(weights, csr_matrix):
        start, end = weights.indptr[row], weights.indptr[row + 1]
        columns, values = weights.indices[start:end], weights.data[start:end]
    else:
        columns, values = np.arange(weights.shape[1]), weights[row]
    above = values > 0
    columns, values = columns[above], values[above]
    if len(values) > count:
        best = np.sort(np.argsort(-values, kind="stable")[:count])
        columns, values = columns[best], values[best]
    return columns.astype(np.int32), values.astype(np.float32)
