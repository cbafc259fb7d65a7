"""The vectors behind an index of short codes: what the codes found is compared again in full precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._huge_pages import create_rows
from explorank.retrieval._ids import Labels
from explorank.retrieval._nearest_first import nearest_first
from explorank.retrieval._products import products


class FullVectors:
    """Unit rows in float32 by label: those an index was built from, where they lie, and later ones in memory.

    Reading is safe from many threads; `put` runs alone, as its caller sees to.
    """

    def __init__(self, built: NDArray[np.float32]) -> None:
        """Take the rows (n, d) of the labels 0 to n - 1; they may be mapped from a file, and must not change."""
        self._built = np.asarray(built)
        self._added = np.empty((0, self._built.shape[1]), np.float32)
        nothing = np.empty(0, np.int64)
        for rows in (self._built, self._added):  # compiled before the first search
            products(rows, nothing, np.empty(rows.shape[1], np.float32), np.empty(0, np.float32))
        nearest_first(np.empty(0, np.float32), nothing, 0)

    def put(self, labels: Labels, rows: NDArray[np.float32]) -> None:
        """Let `rows` (m, d) be those of `labels` (m,), which are new, or were free when the index was loaded."""
        loaded = labels < len(self._built)
        if loaded.any():
            self._built[labels[loaded]] = rows[loaded]
            labels, rows = labels[~loaded], rows[~loaded]
        places = labels - len(self._built)
        needed = int(places.max(initial=-1)) + 1
        if needed > len(self._added):
            room = np.empty((max(needed, 2 * len(self._added)), self._added.shape[1]), np.float32)
            room[: len(self._added)] = self._added
            self._added = room
        self._added[places] = rows

    def nearest(
        self, query: NDArray[np.float32], labels: Labels, k: int
    ) -> tuple[NDArray[np.float32], Labels]:
        """Return the products with `query` (d,) and the labels of the best `k` of `labels` (m,), the best first.

        Labels of -1 come last, with -inf. There are at least `k`.
        """
        return nearest_first(self._products(query, labels), labels, k)

    def _products(self, query: NDArray[np.float32], labels: Labels) -> NDArray[np.float32]:
        found = np.empty(len(labels), np.float32)
        if not len(self._added) and labels.min(initial=0) >= 0:  # as almost always
            products(self._built, labels, query, found)
            return found
        products(self._built, np.where(labels < len(self._built), labels, -1), query, found)
        if len(self._added):
            later = np.empty(len(labels), np.float32)
            products(self._added, np.maximum(labels - len(self._built), -1), query, later)
            np.copyto(found, later, where=labels >= len(self._built))
        np.copyto(found, -np.inf, where=labels < 0)
        return found

    def save(self, path: Path, count: int) -> None:
        """Write the rows of the labels 0 to `count` - 1 as NumPy's own file; those never put are anything."""
        shape = (count, self._built.shape[1])
        if not count:  # an empty file cannot be mapped
            with path.open("wb") as empty:
                np.save(empty, np.empty(shape, np.float32), allow_pickle=False)
            return
        file = create_rows(path, shape)
        built = len(self._built)
        file[:built] = self._built
        later = self._added[: count - built]
        file[built : built + len(later)] = later
        file.flush()
