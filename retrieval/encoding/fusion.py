"""One vector per item from several: its text, and what a graph, an image or a sound says of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._vectors import unit_rows
from explorank.retrieval.errors import InvalidOption, InvalidVectors


def concatenate(
    text: NDArray[np.float32],
    others: Mapping[str, NDArray[np.float32]],
    weights: Mapping[str, float],
) -> NDArray[np.float32]:
    r"""Return unit rows \([\sqrt{1 - \sum w}\, t; \sqrt{w_1}\, x_1; …]\) for text (n, d) and others (n, d_i).

    The cosine of two items is then the weighted mean of their cosines by text and by each of the others. A row of zeros
    or NaN in `others` means that nothing is known of the item there: its other parts count for it. Raises
    `InvalidOption` for weights that are negative or leave the text nothing, and `InvalidVectors` for rows that do not
    fit.
    """
    share = 1.0 - sum(weights.values())
    if set(weights) != set(others) or min(weights.values(), default=0.0) < 0 or not share > 0:
        raise InvalidOption(
            f"weights={dict(weights)} for {sorted(others)}: each of these needs a weight of at least 0, and together "
            "they must stay below 1, what is left being the text's."
        )
    parts = [np.sqrt(share) * text]
    for name, vectors in others.items():
        parts.append(np.sqrt(weights[name]) * _known_units(name, vectors, len(text)))
    return unit_rows(np.concatenate(parts, axis=1, dtype=np.float32), range(len(text)))


def side_by_side(others: Mapping[str, NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    """Return what a gate reads beside the text: the `others` (count, d_i) as unit rows one after another, by name.

    Rows are zeros where nothing is known. Raises `InvalidVectors` for rows that do not fit.
    """
    known = [_known_units(name, others[name], count) for name in sorted(others)]
    return np.concatenate(known, axis=1, dtype=np.float32)


def _known_units(name: str, vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return rows of length 1, and of zeros where nothing is known."""
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) != count:
        raise InvalidVectors(
            f"The vectors {name!r} have shape {rows.shape} for {count} items; rows would belong to the wrong items. "
            "Pass one row per item, of zeros where nothing is known."
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    known = np.isfinite(lengths) & (lengths > 0)
    unit = np.zeros(rows.shape, np.float32)
    np.divide(rows, lengths, out=unit, where=known)
    return unit
