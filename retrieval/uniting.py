"""The union of what several retrievers found, by rows of the catalogue: no id is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval import _id_kernels as kernels


@dataclass(frozen=True, slots=True)
class United:
    """Rows that were found, each once, in order of first appearance."""

    rows: NDArray[np.int64]  # (n,)
    sources: NDArray[np.uint64]  # (n,)
    """Bit j says that part j found the row."""
    scores: NDArray[np.float32]  # (n,)
    """The best score of any part."""


def unite(parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]]) -> United:
    """Return the union of up to 64 parts, each of them rows (m,) and their scores (m,)."""
    if not parts:
        return United(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.float32))
    if len(parts) == 1:
        rows, scores = parts[0]
    else:
        rows = np.concatenate([part[0] for part in parts])
        scores = np.concatenate([part[1] for part in parts])
    united = United(np.empty(len(rows), np.int64), np.zeros(len(rows), np.uint64), np.empty_like(scores))
    ends = np.cumsum([len(part[0]) for part in parts])
    n = kernels.unite(rows, scores, ends, united.rows, united.sources, united.scores)
    return United(united.rows[:n], united.sources[:n], united.scores[:n])
