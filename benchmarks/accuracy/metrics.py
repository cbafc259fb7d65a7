"""Accuracy of ranked lists with binary relevance, for all users at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Each user's figures, NaN for users without a test item; and the share of items that anybody was shown."""

    ndcg: NDArray[np.float64]
    """(m,) Σ over hits at place r of 1 / log2(1 + r), by that of the best list (Järvelin and Kekäläinen 2002)."""
    recall: NDArray[np.float64]
    """(m,) the share of the user's test items that are in the list."""
    mrr: NDArray[np.float64]
    """(m,) 1 / place of the first hit, 0 without one."""
    coverage: float


def accuracy(lists: NDArray[np.int64], test: csr_matrix) -> Accuracy:
    """Return the figures of `lists` (m, k), columns of items, the best first and -1 for no item; `test` is (m, n)."""
    relevant = test.toarray() > 0
    count = relevant.sum(axis=1)
    hits = np.take_along_axis(relevant, np.maximum(lists, 0), axis=1) & (lists >= 0)
    k = lists.shape[1]
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[np.nan], np.cumsum(discounts)])[np.minimum(count, k)]
    asked = count > 0
    first = np.where(hits.any(axis=1), 1.0 / (1 + hits.argmax(axis=1)), 0.0)
    return Accuracy(
        ndcg=(hits * discounts).sum(axis=1) / best,
        recall=np.where(asked, hits.sum(axis=1) / np.maximum(count, 1), np.nan),
        mrr=np.where(asked, first, np.nan),
        coverage=len(np.unique(lists[lists >= 0])) / test.shape[1],
    )


def best_of(scores: NDArray[np.floating], taken: csr_matrix, k: int) -> NDArray[np.int64]:
    """Return the `k` columns of greatest finite score in each row of `scores` (m, n), but for what is in `taken`.

    Equal scores go by column; -1 where there are too few.
    """
    masked = np.array(scores, np.float64)
    masked[taken.nonzero()] = -np.inf
    order = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    return np.where(np.isfinite(np.take_along_axis(masked, order, axis=1)), order, -1)
