"""Which candidates are in a set of ids."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np

from explorank.hooks.types import BoolArray, RankingBatch


def among(batch: RankingBatch, ids: AbstractSet[str]) -> BoolArray:
    """Return which candidates are in `ids`, (n,) bool; ids that are not text count by their text."""
    n = len(batch)
    texts = batch.id_list if batch.item_ids.dtype.kind == "U" else [str(item) for item in batch.id_list]
    # Mostly nobody is. Hashing beats `numpy.isin`, which sorts text, and costs the same however many `ids` are.
    if not ids or ids.isdisjoint(texts):
        return np.zeros(n, np.bool_)
    return np.fromiter(map(ids.__contains__, texts), np.bool_, count=n)
