"""Vectors from outside, checked once and made unit rows, without a second copy of what is one already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval.errors import InvalidVectors

_ROWS_AT_ONCE: Final = 16_384
_UNIT: Final = 2e-6
"""How far the square of a float32 row's length may be from 1 by rounding alone."""
_SAFE_SQUARES: Final = (1e-18, 1e18)
"""Between these the square of a length is exact enough in float32."""


def unit_rows(vectors: ArrayLike, names: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
    """Return `vectors` (n, d) as float32 rows of length 1; the very array where it is that already.

    Raises `InvalidVectors`, naming the row by `names` (n,), for NaN, infinity and the zero vector.
    """
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite, and is refused below
        # A memory map stays one, so that whoever saves it knows which file it is.
        as_array = np.asanyarray if isinstance(vectors, np.memmap) else np.asarray
        rows = as_array(vectors, np.float32, order="C")
    if rows.ndim != 2 or len(rows) != len(names) or rows.shape[1] == 0:
        raise InvalidVectors(
            f"Vectors of shape {rows.shape} for {len(names)} ids; (n, dimensions) with one row per id is "
            "needed. Pass an array with a row for each id."
        )
    squares = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS_AT_ONCE):  # a mapped file is read once, and not held in memory
        part = rows[start : start + _ROWS_AT_ONCE]
        np.einsum("ij,ij->i", part, part, out=squares[start : start + _ROWS_AT_ONCE], dtype=np.float64)
    bad = ~np.isfinite(squares)
    if bad.any():
        raise InvalidVectors(
            f"The vector of {_named(names, bad)} holds NaN or infinity, so its similarity to anything is "
            "undefined. Leave the item out or encode it again."
        )
    bad = squares == 0
    if bad.any():
        raise InvalidVectors(
            f"The vector of {_named(names, bad)} is zero and points nowhere, so its cosine is undefined. "
            "Leave the item out or give it a text to encode."
        )
    if (np.abs(squares - 1.0) <= _UNIT).all():
        return rows
    lengths, unit = np.sqrt(squares)[:, None], np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        these = slice(start, start + _ROWS_AT_ONCE)
        np.divide(rows[these], lengths[these], out=unit[these], casting="same_kind")
    return unit


def unit_query(query: NDArray[Any]) -> NDArray[np.float32]:
    """Return one `query` (d,) as a float32 row (1, d) of length 1; raise `InvalidVectors` as `unit_rows` does."""
    if query.dtype == np.float32:
        square = float(np.dot(query, query))
        if _SAFE_SQUARES[0] < square < _SAFE_SQUARES[1]:
            return (query * np.float32(1.0 / math.sqrt(square)))[None, :]
    return unit_rows(query[None, :], ["query 0"])


def _named(names: Sequence[Any] | NDArray[Any], bad: NDArray[np.bool_]) -> str:
    first = names[int(np.flatnonzero(bad)[0])]
    others = int(bad.sum()) - 1
    return f"{str(first)!r}" + (f" and of {others} others" if others else "")
