"""The items that a network has an embedding of, and the columns that say which ones a request is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining

ITEM_CODE: Final = "item_code"
UNKNOWN_ITEM: Final = 0
SHORTEST: Final = 2
"""How many places of a history are read at the least, be they padding."""
_MOST_ITEMS: Final = 1 << 24
"""Codes travel as float32, which holds whole numbers exactly below this."""


class ItemVocabulary:
    """Item ids and their codes: 1 for the first in ascending order, and so on; 0 is any other item."""

    def __init__(self, ids: NDArray[np.str_]) -> None:
        """Take distinct ids, ascending."""
        self._ids = ids

    @classmethod
    def of(cls, ids: Iterable[str], min_count: int, *, also: Iterable[str] = ()) -> Self:
        """Return the vocabulary of the items that occur at least `min_count` times among `ids`, and of those `also`."""
        frequent = sorted({*also, *(item for item, count in Counter(ids).items() if count >= min_count)})
        if len(frequent) >= _MOST_ITEMS:
            raise InvalidTraining(
                f"{len(frequent)} items would have an embedding each, and columns of float32 tell {_MOST_ITEMS} codes "
                "apart. Raise min_count, so that seldom ones share one."
            )
        return cls(np.array(frequent, np.str_) if frequent else np.empty(0, "U1"))

    @property
    def ids(self) -> NDArray[np.str_]:
        """(v,) ascending; the item of code c stands at c - 1."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def codes(self, ids: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
        """Return the code of each item (n,), 0 where it is not in the vocabulary."""
        wanted = np.asarray(ids, np.str_)
        if not len(self._ids) or not len(wanted):
            return np.zeros(len(wanted), np.int64)
        nearest = np.searchsorted(self._ids, wanted)
        found = np.take(self._ids, nearest, mode="clip") == wanted
        return np.where(found, nearest + 1, UNKNOWN_ITEM)

    def histories(self, histories: Sequence[Sequence[str]], length: int) -> NDArray[np.int64]:
        """Return the codes (g, length) of the latest known items of each history, the newest last, 0 before them."""
        flat = self.codes([item for history in histories for item in history])
        owner = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        known = flat != UNKNOWN_ITEM
        flat, owner = flat[known], owner[known]
        sizes = np.bincount(owner, minlength=len(histories))
        from_end = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(flat))
        recent = from_end <= length
        codes = np.zeros((len(histories), length), np.int64)
        codes[owner[recent], length - from_end[recent]] = flat[recent]
        return codes


def without_padding(histories: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return histories (u, l) without the padding that all of them begin with, (u, SHORTEST) at the least."""
    length = histories.shape[1]
    used = np.flatnonzero(histories.any(axis=0))
    first = int(used[0]) if len(used) else length
    return histories[:, max(0, min(first, length - SHORTEST)) :]


def history_columns(length: int) -> tuple[str, ...]:
    """Return the names of the columns that hold a history: `history_01`, the oldest, and so on."""
    digits = max(2, len(str(length)))
    return tuple(f"history_{place:0{digits}d}" for place in range(1, length + 1))


def item_ids_of(data: RankingData, ranker: str) -> NDArray[np.str_]:
    """Return the item ids (n,) of the data; raise `InvalidTraining` where it has none."""
    if data.item_ids is None:
        raise InvalidTraining(
            f"The {data.called} data has no item_ids, and {ranker} learns an embedding of each item. Pass the id of "
            "each row's item."
        )
    return data.item_ids


def histories_of(data: RankingData, ranker: str) -> tuple[tuple[str, ...], ...]:
    """Return the histories (g,) of the data; raise `InvalidTraining` where it has none."""
    if data.histories is None:
        raise InvalidTraining(
            f"The {data.called} data has no histories, and {ranker} reads what the user took up before. Pass one "
            "per request, oldest first."
        )
    return data.histories


def check_free(names: Sequence[str], columns: Sequence[str]) -> None:
    """Raise `InvalidTraining` where a feature has the name of a column that is made from ids."""
    taken = sorted(set(names) & set(columns))
    if taken:
        raise InvalidTraining(
            f"Feature {taken[0]!r} has the name of a column that the ranker makes from ids; one would be read for the "
            "other. Rename the feature."
        )
