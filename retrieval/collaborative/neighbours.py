"""For each item the few that are most like it by use, ready to be served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from explorank.retrieval._files import Checksums
from explorank.retrieval._ids import IdTable
from explorank.retrieval.collaborative import _sums as kernels
from explorank.retrieval.collaborative._arrays import load_arrays, save_arrays
from explorank.retrieval.errors import CorruptArtefact, InvalidOption

_FORMAT: Final = "explorank.neighbours/1"
_NAMES: Final = ("item_ids", "starts", "neighbours", "weights")
_NONE: Final[NDArray[np.int64]] = np.zeros(0, np.int64)


class NeighbourTable:
    """The nearest of n items to each of them, with weights above 0; immutable, and safe for use from many threads.

    What a history's neighbours sum to costs O(history · neighbours), however many items there are.
    """

    item_ids: NDArray[np.str_]
    """(n,) the items; their rows are how the arrays below know them."""
    starts: NDArray[np.int64]
    """(n + 1,) where each item's neighbours begin, and the end of the last one's."""
    neighbours: NDArray[np.int32]
    """(m,) rows of items, rising for each item."""
    weights: NDArray[np.float32]
    """(m,) what having taken up the item adds to each neighbour's score."""

    def __init__(
        self,
        item_ids: NDArray[np.str_],
        starts: NDArray[np.int64],
        neighbours: NDArray[np.int32],
        weights: NDArray[np.float32],
    ) -> None:
        """Take checked arrays; use `of` or `load`."""
        # Plain arrays where they are mapped: the class of a memory map slows every use.
        self.item_ids, self.starts = np.asarray(item_ids), np.asarray(starts)
        self.neighbours, self.weights = np.asarray(neighbours), np.asarray(weights)
        self.best(_NONE, 1)  # compiled before the first request
        self.means(_NONE, _NONE)

    @classmethod
    def of(cls, item_ids: NDArray[np.str_], weights: NDArray[np.float32] | csr_matrix, count: int) -> Self:
        """Return the `count` greatest weights above 0 of each row of `weights` (n, n), dense or sparse."""
        if count < 1:
            raise InvalidOption(
                f"count={count} keeps no neighbour of any item, so nothing would be found. Set 1 or more."
            )
        kept = [_greatest(weights, row, count) for row in range(len(item_ids))]
        lengths = np.array([len(columns) for columns, _ in kept], np.int64)
        return cls(
            item_ids,
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([np.zeros(0, np.int32), *(columns for columns, _ in kept)]),
            np.concatenate([np.zeros(0, np.float32), *(values for _, values in kept)]),
        )

    @property
    def known(self) -> int:
        """How many items have a neighbour."""
        return int((np.diff(self.starts) > 0).sum())

    def in_rows_of(self, item_ids: NDArray[np.str_]) -> Self:
        """Return the same table for `item_ids` (n,), in their order; what is not among them is left out."""
        rows = IdTable(item_ids).find(self.item_ids)
        ones = np.repeat(rows, np.diff(self.starts))
        others = rows[self.neighbours]
        kept = (ones >= 0) & (others >= 0)
        ones, others, weights = ones[kept], others[kept], self.weights[kept]
        order = np.lexsort((others, ones))
        starts = np.searchsorted(ones[order], np.arange(len(item_ids) + 1))
        return type(self)(item_ids, starts.astype(np.int64), others[order].astype(np.int32), weights[order])

    def best(
        self, history: NDArray[np.int64], k: int, exclude: NDArray[np.int64] = _NONE
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return up to `k` rows of greatest mean weight over `history` (h,), the best first, and those means.

        Neither rows of the history, nor of `exclude` (e,), nor those that are nobody's neighbour are among them. A
        row of -1 stands for an unknown item and is passed over; one that stands twice counts once.
        """
        rows = _distinct(history)
        left_out = np.concatenate([rows, exclude[exclude >= 0]])
        found, sums = kernels.neighbour_sums(self.starts, self.neighbours, self.weights, rows, left_out)
        if 0 < k < len(sums):
            likely = np.flatnonzero(sums >= np.partition(sums, len(sums) - k)[len(sums) - k])
            found, sums = found[likely], sums[likely]
        order = np.lexsort((found, -sums))[:k]
        return found[order], sums[order] / np.float32(max(len(rows), 1))

    def means(self, history: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the mean weight (n,) over `history` (h,) of each row of `wanted` (n,).

        NaN for a row of -1, and throughout where nothing of the history is known; see `best`.
        """
        rows = _distinct(history)
        if not len(rows):
            return np.full(len(wanted), np.nan, np.float32)
        sums = kernels.sums_at(self.starts, self.neighbours, self.weights, rows, wanted)
        sums[wanted < 0] = np.nan
        return sums / np.float32(len(rows))

    def like(
        self, history: Sequence[str], k: int, exclude: Iterable[str] = ()
    ) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
        """Return what `best` finds for items by their ids; unknown ids are passed over."""
        rows, means = self.best(self._ids.find(history), k, self._ids.find(tuple(exclude)))
        return self.item_ids[rows], means

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`."""
        save_arrays(folder, _FORMAT, {}, {name: getattr(self, name) for name in _NAMES})

    @classmethod
    def load(cls, folder: str | Path, *, checksums: Checksums | None = None) -> Self:
        """Return the table that `save` wrote, memory-mapped: processes that load the same folder share it.

        `checksums`, where the files were read just before, spare reading them again. Raises `CorruptArtefact` naming
        the file that is not intact.
        """
        _, arrays = load_arrays(folder, _FORMAT, *_NAMES, mapped=True, checksums=checksums)
        ids, starts, neighbours, weights = (arrays[name] for name in _NAMES)
        if len(starts) != len(ids) + 1 or not starts[-1] == len(neighbours) == len(weights):
            raise CorruptArtefact(
                f"The arrays in {folder} do not belong together: {len(ids)} items, {len(neighbours)} neighbours, "
                f"{len(weights)} weights. Restore an older copy of the folder, or build it again."
            )
        return cls(ids, starts, neighbours, weights)

    @cached_property
    def _ids(self) -> IdTable:
        return IdTable(self.item_ids)


def _distinct(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    known: NDArray[np.int64] = np.unique(rows)
    return known[np.searchsorted(known, 0) :]


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
