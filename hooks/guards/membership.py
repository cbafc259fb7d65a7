"""Which candidates are in a set of ids."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np

from explorank.hooks.types import BoolArray, Ids


def among(item_ids: Ids, ids: AbstractSet[str]) -> BoolArray:
    """Return which of `item_ids` (n,) are in `ids`, (n,) bool; ids that are not text count by their text."""
    if not ids:
        return np.zeros(len(item_ids), dtype=np.bool_)
    texts = item_ids if item_ids.dtype.kind == "U" else item_ids.astype(str)
    # Hashing beats `numpy.isin`, which sorts text, and costs the same however long the list is.
    return np.fromiter(map(ids.__contains__, texts.tolist()), np.bool_, count=len(texts))
