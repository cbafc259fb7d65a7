"""What comes from outside, checked once: vectors made unit rows, ids made a typed array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval.errors import InvalidVectors


def as_ids(ids: Iterable[Any]) -> NDArray[Any]:
    """Return ids as an array (n,) of text or of int64; refuse mixtures, which NumPy would turn into text."""
    if isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind == "U":
        return ids
    if isinstance(ids, str):
        raise InvalidVectors(f"{ids!r} is one id, not several; its letters would become ids. Pass [{ids!r}].")
    listed = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if not listed:
        return np.zeros(0, "<U1")
    if all(isinstance(item, str) for item in listed):
        if any(item.endswith("\0") for item in listed):
            raise InvalidVectors(
                "An id ends in a NUL character, which NumPy drops, so that it would equal another id. "
                "Strip it."
            )
        return np.array(listed)
    if any(isinstance(item, bool) or not isinstance(item, int | np.integer) for item in listed):
        odd = next(
            item for item in listed if isinstance(item, bool) or not isinstance(item, int | np.integer)
        )
        raise InvalidVectors(
            f"Ids are all strings or all integers, and {odd!r} ({type(odd).__name__}) is among them; ids of "
            "several types do not compare. Convert them all to strings."
        )
    try:
        return np.array(listed, np.int64)
    except OverflowError as error:
        raise InvalidVectors("An integer id does not fit into 64 bits. Pass it as a string.") from error


def refuse_duplicates(ids: NDArray[Any]) -> None:
    """Raise `InvalidVectors` naming an id that occurs twice."""
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        twice = unique[counts > 1]
        raise InvalidVectors(
            f"Id {twice[0].item()!r} occurs more than once ({len(twice)} such ids); one of its vectors would "
            "hide the other. Keep one row per id."
        )


def unit_rows(vectors: ArrayLike, names: Sequence[Any] | NDArray[Any]) -> NDArray[np.float32]:
    """Return `vectors` (n, d) as float32 rows of length 1.

    Raises `InvalidVectors`, naming the row by `names` (n,), for NaN, infinity and the zero vector.
    """
    with np.errstate(over="ignore"):  # what overflows float32 becomes infinite, and is refused below
        rows = np.ascontiguousarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) != len(names) or rows.shape[1] == 0:
        raise InvalidVectors(
            f"Vectors of shape {rows.shape} for {len(names)} ids; (n, dimensions) with one row per id is "
            "needed. Pass an array with a row for each id."
        )
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
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
    unit: NDArray[np.float32] = (rows / np.sqrt(squares)[:, None]).astype(np.float32)
    return unit


def _named(names: Sequence[Any] | NDArray[Any], bad: NDArray[np.bool_]) -> str:
    first = names[int(np.flatnonzero(bad)[0])]
    others = int(bad.sum()) - 1
    return f"{str(first)!r}" + (f" and of {others} others" if others else "")
