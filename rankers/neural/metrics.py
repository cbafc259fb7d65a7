"""How well scores order held-out rows, to stop training by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ndcg(
    scores: NDArray[np.float64], labels: NDArray[np.float64], groups: NDArray[np.int64], k: int = 10
) -> float:
    """Return the mean NDCG@k over groups with a label above 0, with gain 2^label - 1 (Burges et al., 2005).

    Among equal scores the lower label stands first, so that a ranker which tells nothing apart earns no credit for
    the order that rows came in. NaN where no group has a label above 0.
    """
    request = np.repeat(np.arange(len(groups)), groups)
    reached = _dcg(np.lexsort((labels, -scores, request)), labels, groups, k)
    best = _dcg(np.lexsort((-labels, request)), labels, groups, k)
    some = best > 0
    return float((reached[some] / best[some]).mean()) if some.any() else float("nan")


def log_loss(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Return the weighted mean negative log-likelihood of labels 0 and 1."""
    safe = np.clip(probabilities, 1e-15, 1 - 1e-15)
    return float(-np.average(labels * np.log(safe) + (1 - labels) * np.log1p(-safe), weights=weights))


def _dcg(
    order: NDArray[np.int64], labels: NDArray[np.float64], groups: NDArray[np.int64], k: int
) -> NDArray[np.float64]:
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(groups) - groups, groups)
    gains = np.where(rank < k, (np.exp2(labels[order]) - 1) / np.log2(rank + 2), 0.0)
    return np.add.reduceat(gains, np.cumsum(groups) - groups)
