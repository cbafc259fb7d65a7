"""What users liked, one thing after another, as rows of a list of items: what an encoder can learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from explorank.retrieval.errors import InvalidTable

NO_ITEM: Final = -1
"""Fills up histories that are shorter than others."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Pairs (what a user had liked, what they liked next), of items whose texts are known.

    Make it with `from_histories`; its arrays are not copied, and must not change.
    """

    item_ids: tuple[str, ...]
    """(n,) distinct."""
    texts: tuple[str, ...]
    """(n,) what the encoder reads of each item."""
    histories: NDArray[np.int64]
    """(p, h) rows of the items liked before, oldest first; shorter ones begin with `NO_ITEM`."""
    positives: NDArray[np.int64]
    """(p,) the row of an item that was liked next."""
    users: NDArray[np.int64]
    """(p,) whose pair it is: a row of `liked`."""
    liked: sparse.csr_array
    """(u, n) true where the user liked the item, at any time that the encoder may learn from."""
    window: tuple[float, float] | None = None
    """First and last moment of what it was made from, in seconds since the Unix epoch."""

    @classmethod
    def from_histories(
        cls,
        histories: Iterable[Sequence[str]],
        texts: Mapping[str, str],
        *,
        history: int = 10,
        next_items: int = 1,
        from_event: Iterable[int] | None = None,
        window: tuple[float, float] | None = None,
    ) -> Self:
        """Return the pairs in `histories`: the liked items of each user, oldest first.

        Each of the `next_items` items that follow a place in a history is paired with the at most `history` items
        before that place. Items without a text in `texts` are passed over. `from_event`, one number per user, leaves
        out pairs whose liked item stands before that place in the user's history: so a later slice knows what came
        before it. Raises `InvalidTable` where no pair is left.
        """
        rows = {item: row for row, item in enumerate(texts)}
        before: list[NDArray[np.int64]] = []
        positives: list[int] = []
        users: list[int] = []
        likes: list[NDArray[np.int64]] = []
        begins = _starts(from_event)
        for user, items in enumerate(histories):
            first = next(begins)
            # What is unknown goes, and `first` still means the same item.
            known = np.array([rows.get(item, NO_ITEM) for item in items], np.int64)
            first = int((known[:first] != NO_ITEM).sum())
            known = known[known != NO_ITEM]
            likes.append(np.unique(known))
            for place in range(1, len(known)):
                for positive in known[max(place, first) : place + next_items].tolist():
                    context = known[max(0, place - history) : place]
                    if positive not in context:
                        before.append(context)
                        positives.append(positive)
                        users.append(user)
        if not positives:
            raise InvalidTable(
                f"None of {len(likes)} users liked two different items whose texts are known, so there is no pair to "
                "learn from. Bring more interactions or the items' texts, or lower the value from which an interaction "
                "counts as liked."
            )
        width = max(len(context) for context in before)
        padded = np.full((len(before), width), NO_ITEM, np.int64)
        for row, context in enumerate(before):
            padded[row, width - len(context) :] = context
        counts = [len(items) for items in likes]
        liked = sparse.csr_array(
            (
                np.ones(sum(counts), np.bool_),
                (np.repeat(np.arange(len(likes)), counts), np.concatenate(likes)),
            ),
            shape=(len(likes), len(rows)),
        )
        return cls(
            item_ids=tuple(rows),
            texts=tuple(texts.values()),
            histories=padded,
            positives=np.array(positives, np.int64),
            users=np.array(users, np.int64),
            liked=liked,
            window=window,
        )

    def __len__(self) -> int:
        return len(self.positives)

    @property
    def digest(self) -> str:
        """A hash of all of it: an interrupted run goes on only with the same pairs."""
        digest = hashlib.sha256("\0".join((*self.item_ids, *self.texts)).encode())
        for array in (
            self.histories,
            self.positives,
            self.users,
            self.liked.indptr.astype(np.int64),
            self.liked.indices.astype(np.int64),
        ):
            digest.update(f"{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def popularity(self) -> NDArray[np.float64]:
        """Return the share of the pairs that each item is the positive of, (n,)."""
        counts = np.bincount(self.positives, minlength=len(self.item_ids))
        return counts / len(self)

    def interests(
        self, pairs: NDArray[np.int64], vectors: NDArray[np.float32], decay: float
    ) -> NDArray[np.float32]:
        """Return what the user of each pair was interested in, (b, d): their history's vectors, decayed.

        `vectors` (n, d) are the items'; the newest item weighs 1, each step back multiplies by `decay`.
        """
        histories = self.histories[pairs]
        weights = history_weights(histories, decay)
        interests: NDArray[np.float32] = np.einsum("bh,bhd->bd", weights, vectors[histories])
        return interests


def history_weights(histories: NDArray[np.int64], decay: float) -> NDArray[np.float32]:
    """Return the weight of each item of `histories` (b, h), as `interest_vector` has it; 0 for `NO_ITEM`."""
    ages = np.arange(histories.shape[1] - 1, -1, -1)
    return np.where(histories == NO_ITEM, 0.0, decay**ages).astype(np.float32)


def recall_at(
    vectors: ArrayLike, behaviour: Behaviour, *, decay: float, k: int = 100, least: int = 0
) -> float:
    """Return the share of pairs whose liked item is among the `k` items nearest to the history.

    What the user liked otherwise is not ranked, and an item that was found stands before others that are as near.
    `vectors` is (n, d). `least` passes over pairs with a history of fewer items.
    """
    rows = np.asarray(vectors, np.float32)
    pairs = np.flatnonzero((behaviour.histories != NO_ITEM).sum(axis=1) >= least)
    if not len(pairs):
        return float("nan")
    found = 0
    for start in range(0, len(pairs), 1_024):
        part = pairs[start : start + 1_024]
        scores = behaviour.interests(part, rows, decay) @ rows.T
        wanted = scores[np.arange(len(part)), behaviour.positives[part]].copy()
        scores[behaviour.liked[behaviour.users[part]].toarray()] = -np.inf
        found += int(((scores > wanted[:, None]).sum(axis=1) < k).sum())
    return found / len(pairs)


def judged_at(items: int) -> int:
    """Return the `k` at which recall tells a good encoder from a bad one: 100, or a tenth of a small catalogue."""
    return min(100, max(1, items // 10))


def _starts(from_event: Iterable[int] | None) -> Iterator[int]:
    if from_event is not None:
        yield from from_event
    while True:
        yield 0
