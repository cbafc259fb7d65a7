"""The rows of greatest inner product, exactly, without an index: the longest rows are looked at first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._files import Checksums
from explorank.retrieval.collaborative import _greatest_products as kernels
from explorank.retrieval.collaborative._arrays import load_arrays, save_arrays

_FORMAT: Final = "explorank.length_ordered_scan/1"
_NAMES: Final = ("rows", "vectors", "lengths")
_ROUNDED_UP: Final = 1.0 + 1e-6
"""A length in float32 must not be less than the true one."""


class LengthOrderedScan:
    """Vectors of different lengths by row, searched by inner product; immutable, safe for use from many threads.

    Factors of popular items are long, and those of the many others short, so that a scan by falling length ends early,
    and exactly. An index by cosine cannot replace it: augmented to one length (Bachrach et al. 2014), factors with a
    long tail lie nearly in one direction, and an index tuned to find 99 % of the items nearest to items found 60 to
    80 % of the best of users (`benchmarks.embedding_search`).
    """

    def __init__(
        self, rows: NDArray[np.int64], vectors: NDArray[np.float32], lengths: NDArray[np.float32]
    ) -> None:
        """Take rows (m,), their vectors (m, d) and lengths (m,), the longest first; use `build` or `load`."""
        # Plain arrays where they are mapped: the class of a memory map slows every use.
        self._rows, self._vectors, self._lengths = np.asarray(rows), np.asarray(vectors), np.asarray(lengths)
        self.search(np.zeros(self.dim, np.float32), 1)  # compiled before the first request

    @classmethod
    def build(cls, vectors: NDArray[Any], rows: NDArray[np.int64]) -> Self:
        """Return a scan of `vectors` (m, d), known as `rows` (m,)."""
        lengths = np.sqrt(np.einsum("md,md->m", vectors, vectors, dtype=np.float64))
        order = np.argsort(-lengths, kind="stable")
        return cls(
            rows[order],
            np.ascontiguousarray(vectors[order], np.float32),
            (lengths[order] * _ROUNDED_UP).astype(np.float32),
        )

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def search(
        self, query: NDArray[np.float32], k: int, exclude: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the `k` rows of greatest product with `query` (d,), and the products, without those of `exclude` (e,).

        The greatest comes first, equal ones by row; there are fewer than `k` where there are no more rows.
        """
        unwanted = np.unique(exclude) if exclude is not None else np.zeros(0, np.int64)
        count = min(k + len(unwanted), len(self._rows))
        if k == 0 or count == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        positions, products = kernels.greatest_products(self._vectors, self._lengths, query, count)
        rows = self._rows[positions]
        if len(unwanted):
            allowed = ~np.isin(rows, unwanted)
            rows, products = rows[allowed], products[allowed]
        order = np.lexsort((rows, -products))[:k]
        return rows[order], products[order]

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`."""
        save_arrays(
            folder,
            _FORMAT,
            {},
            {"rows": self._rows, "vectors": self._vectors, "lengths": self._lengths},
        )

    @classmethod
    def load(cls, folder: str | Path, *, checksums: Checksums | None = None) -> Self:
        """Return the scan that `save` wrote, memory-mapped; `load_arrays` says what `checksums` mean."""
        _, arrays = load_arrays(folder, _FORMAT, *_NAMES, mapped=True, checksums=checksums)
        return cls(*(arrays[name] for name in _NAMES))
