"""Symmetric matrices by their lower triangle: half the memory, and half the work to add them up."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.types import FloatArray, IndexArray


class Triangle:
    """Symmetric matrices (d, d) packed as their lower triangle (t,), row by row: LAPACK's packed `U`."""

    def __init__(self, dim: int) -> None:
        rows, columns = np.tril_indices(dim)
        self.dim: Final = dim
        self.size: Final = len(rows)
        self.diagonal: Final[IndexArray] = np.flatnonzero(rows == columns)
        self._rows: Final = rows
        self._columns: Final = columns
        self._flat: Final = rows * dim + columns
        whole = np.empty((dim, dim), np.int64)
        whole[rows, columns] = whole[columns, rows] = np.arange(len(rows))
        self._whole: Final = whole.ravel()
        self._twice: Final = np.where(rows == columns, np.float32(1.0), np.float32(2.0))

    def pack(self, matrix: FloatArray) -> FloatArray:
        """Return (d, d) as (t,)."""
        packed: FloatArray = matrix.ravel().take(self._flat)
        return packed

    def unpack(self, packed: NDArray[Any]) -> NDArray[Any]:
        """Return (..., t) as (..., d, d), of the same precision."""
        matrices: NDArray[Any] = packed.take(self._whole, axis=-1)
        return matrices.reshape(*packed.shape[:-1], self.dim, self.dim)

    def squares(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return q (..., t) such that the packed S has q · S = xᵀSx for each x of `vectors` (..., d)."""
        products: NDArray[Any] = vectors.take(self._rows, axis=-1)
        products *= vectors.take(self._columns, axis=-1)
        products *= self._twice
        return products


@lru_cache(maxsize=32)
def triangle(dim: int) -> Triangle:
    """Return the layout of packed matrices (dim, dim)."""
    return Triangle(dim)
