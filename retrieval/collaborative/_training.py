"""What trained models share: torch, which is imported for training alone, and the events that tell when to stop."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Final, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.errors import EncoderUnavailable

Arrays = TypeVar("Arrays")
"""What serving needs of a model."""
Scores: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Returns the scores (m, n) of all items for some users, rows (m,) of the interactions."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]

_CUTOFF: Final = 100
_VALIDATION_USERS: Final = 2_000
_USERS_AT_ONCE: Final = 128
"""So many are scored at once, or a million items would take 8 GB for them all."""


def training_module(package: str, what: str) -> ModuleType:
    """Return the module `training` of `package`; raise `EncoderUnavailable` where torch is missing."""
    try:
        return import_module(f"{package}.training")
    except ImportError as error:
        raise EncoderUnavailable(
            f"{what} cannot be trained: {error}. Serving works without torch, training does not. Install it with "
            "`pip install 'explorank[train]'`."
        ) from error


def best_epoch(
    train: Callable[[], None],
    arrays: Callable[[], Arrays],
    scores: Callable[[Arrays], Scores],
    known: Interactions,
    held_out: Interactions,
    *,
    epochs: int,
    patience: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Arrays, dict[str, float]]:
    """Return the `arrays` of the epoch with the best `recall`, of the last where nothing is held out, and how it went.

    `train` runs one of at most `epochs`; after `patience` without a better one the rest is left. `progress` is told
    after each how many are done, and of how many at most.
    """
    best, best_recall, best_at, epoch = arrays(), -1.0, 0, 0
    for epoch in range(1, epochs + 1):
        train()
        if progress is not None:
            progress(epoch, epochs)
        trained = arrays()
        found = recall(scores(trained), known, held_out)
        if found > best_recall or not len(held_out):
            best, best_recall, best_at = trained, found, epoch
        elif epoch - best_at >= patience:
            break
    metrics = {"epochs": epoch, "best_epoch": best_at, f"recall@{_CUTOFF}": max(best_recall, 0.0)}
    return best, {name: float(value) for name, value in metrics.items()}


def cut(
    interactions: Interactions, share: float, generator: np.random.Generator
) -> tuple[Interactions, Interactions]:
    """Return the interactions apart from `share` of each user's, the latest or random ones; one at least stays."""
    times = interactions.times
    keys = generator.random(len(interactions)) if times is None else times
    order = np.lexsort((keys, interactions.users))
    rank = np.empty(len(interactions), np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(
        interactions.users[order], interactions.users[order]
    )
    activity = interactions.activity[interactions.users]
    known = rank < np.maximum(np.round((1.0 - share) * activity), 1)
    return interactions.take(known), interactions.take(~known)


def recall(scores: Scores, known: Interactions, held_out: Interactions) -> float:
    """Return the mean share of held-out items among the best of all but the known; 0 where nothing is held out.

    The best are the 100 first, and of fewer than 1,000 items a tenth.
    """
    users = np.unique(held_out.users)[:_VALIDATION_USERS]
    if not len(users):
        return 0.0
    k = min(_CUTOFF, max(len(known.item_ids) // 10, 1))
    shares = []
    for start in range(0, len(users), _USERS_AT_ONCE):
        part = users[start : start + _USERS_AT_ONCE]
        found = scores(part)
        found[known.matrix[part].nonzero()] = -np.inf
        wanted = held_out.matrix[part].toarray() > 0
        best = np.argpartition(-found, k - 1, axis=1)[:, :k]
        hits = np.take_along_axis(wanted, best, axis=1).sum(axis=1)
        shares.append(hits / np.minimum(wanted.sum(axis=1), k))
    return float(np.concatenate(shares).mean())
