"""What one step of contrastive learning looks at: some pairs, and the items they are told apart from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.encoding.behaviour import NO_ITEM, Behaviour
from explorank.retrieval.faiss_index import FaissIndex


@dataclass(frozen=True, slots=True)
class Batch:
    """`b` pairs whose `u` distinct items are encoded once each, however many pairs they occur in."""

    items: NDArray[np.int64]
    """(u,) rows of the items; the arrays below count places in it."""
    histories: NDArray[np.int64]
    """(b, h), `NO_ITEM` where a history is shorter."""
    positives: NDArray[np.int64]
    """(b,) places in `columns`."""
    columns: NDArray[np.int64]
    """(c,) places of the items that each pair's liked item is told apart from: the batch's liked items and the
    hard negatives, each once."""
    masked: NDArray[np.bool_]
    """(b, c) true where a column is no negative for a pair: its user liked the item too, or it is in the history."""
    log_share: NDArray[np.float32]
    """(c,) the logarithm of each item's share of all pairs; of no pair counts as of half a pair."""


class HardNegatives:
    """The items nearest to a pair's history by the untouched encoder, less what the user liked.

    They look right and were not taken up. The very nearest may be right and not yet discovered, so the search
    leaves out the first `after` ones. What nobody at all liked is never among them: it may never have been offered, and
    pushed away it would teach that new items are bad ones.
    """

    def __init__(
        self, vectors: NDArray[np.float32], behaviour: Behaviour, *, decay: float, after: int
    ) -> None:
        self._vectors = vectors
        self._behaviour = behaviour
        self._decay = decay
        self._after = after
        known = np.unique(behaviour.liked.indices).astype(np.int64)
        self._index = FaissIndex.build(vectors[known], known, device="cpu", tune_s=5.0)

    def of(self, pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Return rows of at most `count` items for each pair, (b, count), `NO_ITEM` where there are fewer."""
        behaviour = self._behaviour
        found = np.full((len(pairs), count), NO_ITEM, np.int64)
        queries = behaviour.interests(pairs, self._vectors, self._decay)
        for row, (user, query) in enumerate(zip(behaviour.users[pairs].tolist(), queries, strict=True)):
            if not query.any():
                continue
            start, end = behaviour.liked.indptr[user : user + 2]
            liked = behaviour.liked.indices[start:end].astype(np.int64)
            nearest, _ = self._index.search(query, self._after + count, liked)
            negatives = nearest[self._after :] if len(nearest) >= self._after + count else nearest[-count:]
            found[row, : len(negatives)] = negatives
        return found


class Batches:
    """Draws the pairs of each step; which ones follows from the seed and the step alone."""

    def __init__(
        self,
        behaviour: Behaviour,
        size: int,
        *,
        seed: int,
        hard: HardNegatives | None = None,
        hard_negatives: int = 0,
    ) -> None:
        self._behaviour = behaviour
        self._size = min(size, len(behaviour))
        self._seed = seed
        self._hard = hard
        self._hard_negatives = hard_negatives if hard is not None else 0
        self._log_share = np.log(np.maximum(behaviour.popularity(), 0.5 / len(behaviour))).astype(np.float32)

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step, from 0: each epoch goes through all pairs in an order of its own."""
        per_epoch = len(self._behaviour) // self._size
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._behaviour))
        return self.of(order[place * self._size : (place + 1) * self._size])

    def of(self, pairs: NDArray[np.int64]) -> Batch:
        """Return the batch of these pairs."""
        behaviour = self._behaviour
        histories, positives = behaviour.histories[pairs], behaviour.positives[pairs]
        columns = positives
        if self._hard is not None and self._hard_negatives:
            columns = np.concatenate([columns, self._hard.of(pairs, self._hard_negatives).ravel()])
        columns = np.unique(columns[columns != NO_ITEM])
        items = np.unique(np.concatenate([columns, histories[histories != NO_ITEM]]))
        in_columns = np.searchsorted(columns, positives)
        masked = behaviour.liked[behaviour.users[pairs]].toarray()[:, columns].astype(np.bool_)
        masked |= (histories[:, :, None] == columns).any(axis=1)
        masked[np.arange(len(pairs)), in_columns] = False
        return Batch(
            items=items,
            histories=np.where(histories == NO_ITEM, NO_ITEM, np.searchsorted(items, histories)),
            positives=in_columns,
            columns=np.searchsorted(items, columns),
            masked=masked,
            log_share=self._log_share[columns],
        )
