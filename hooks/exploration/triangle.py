"""Symmetric matrices by their lower triangle: half the memory, and half the work to add them up."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.compiled import FLOAT, MATRIX, WRITTEN_MATRIX, inlined, kernel
from explorank.hooks.types import FloatArray, IndexArray


class Triangle:
    """Symmetric matrices (d, d) packed as their lower triangle (t,), row by row: LAPACK's packed `U`."""

    def __init__(self, dim: int) -> None:
        rows, columns = np.tril_indices(dim)
        self.dim: Final = dim
        self.size: Final = len(rows)
        self.diagonal: Final[IndexArray] = np.flatnonzero(rows == columns)
        self._flat: Final = rows * dim + columns
        whole = np.empty((dim, dim), np.int64)
        whole[rows, columns] = whole[columns, rows] = np.arange(len(rows))
        self._whole: Final = whole.ravel()

    def pack(self, matrix: FloatArray) -> FloatArray:
        """Return (d, d) as (t,)."""
        packed: FloatArray = matrix.ravel().take(self._flat)
        return packed

    def unpack(self, packed: NDArray[Any]) -> NDArray[Any]:
        """Return (..., t) as (..., d, d), of the same precision."""
        matrices: NDArray[Any] = packed.take(self._whole, axis=-1)
        return matrices.reshape(*packed.shape[:-1], self.dim, self.dim)


@kernel((MATRIX, MATRIX, FLOAT, WRITTEN_MATRIX, WRITTEN_MATRIX))
def solve(
    grams: FloatArray, information: FloatArray, ridge: float, inverses: FloatArray, solutions: FloatArray
) -> bool:
    """Write (S + ridge·I)⁻¹ (k, t) and (S + ridge·I)⁻¹ b (k, d) of each packed S (k, t) and b (k, d).

    By Cholesky; return False, with neither of use, where one is not positive definite or not finite.
    """
    dim = information.shape[1]
    factor, inverse = np.empty((dim, dim)), np.empty((dim, dim))
    projected, total = np.empty(dim), 0.0
    for matrix in range(len(grams)):
        _spread_out(grams[matrix], ridge, factor)
        if not _cholesky(factor):
            return False
        _invert(factor, inverse)
        # With U = `factor` and V = `inverse` transposed: UᵀU = S + ridge·I, V = U⁻¹, V Vᵀ is its inverse.
        for row in range(dim):
            projected[row] = 0.0
            for column in range(row + 1):
                projected[row] += inverse[row, column] * information[matrix, column]
        solutions[matrix] = 0.0
        for row in range(dim):
            for column in range(row + 1):
                solutions[matrix, column] += inverse[row, column] * projected[row]
        inverses[matrix] = 0.0
        for row in range(dim):
            at = 0
            for column in range(row + 1):
                scale = inverse[row, column]
                for other in range(column + 1):
                    inverses[matrix, at + other] += scale * inverse[row, other]
                at += column + 1
        for column in range(dim):
            total += solutions[matrix, column]
        for entry in range(grams.shape[1]):
            total += inverses[matrix, entry]
    return bool(np.isfinite(total))


@inlined
def _spread_out(packed: FloatArray, ridge: float, matrix: FloatArray) -> None:
    """Write the packed S (t,), with `ridge` on its diagonal, into the upper triangle of `matrix` (d, d)."""
    at = 0
    for row in range(len(matrix)):
        for column in range(row + 1):
            matrix[column, row] = packed[at]
            at += 1
        matrix[row, row] += ridge


@inlined
def _cholesky(matrix: FloatArray) -> bool:
    """Replace the upper triangle of `matrix` (d, d) by U with UᵀU the matrix; False where there is none."""
    dim = len(matrix)
    for pivot in range(dim):
        if not matrix[pivot, pivot] > 0.0:
            return False
        root = np.sqrt(matrix[pivot, pivot])
        for column in range(pivot, dim):
            matrix[pivot, column] /= root
        for row in range(pivot + 1, dim):
            scale = matrix[pivot, row]
            for column in range(row, dim):
                matrix[row, column] -= scale * matrix[pivot, column]
    return True


@inlined
def _invert(factor: FloatArray, inverse: FloatArray) -> None:
    """Write the transpose of U⁻¹ (d, d), a lower triangle, for the upper triangle U of `factor` (d, d)."""
    dim = len(factor)
    for row in range(dim):
        # Row by row of UᵀX = I, whose solution is the transpose of U⁻¹.
        for column in range(row):
            inverse[row, column] = 0.0
        inverse[row, row] = 1.0
        for above in range(row):
            scale = factor[above, row]
            for column in range(above + 1):
                inverse[row, column] -= scale * inverse[above, column]
        for column in range(row + 1):
            inverse[row, column] /= factor[row, row]


@lru_cache(maxsize=32)
def triangle(dim: int) -> Triangle:
    """Return the layout of packed matrices (dim, dim)."""
    return Triangle(dim)
