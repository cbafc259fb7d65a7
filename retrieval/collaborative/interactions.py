"""Who took up what: the table that collaborative models learn from, as rows and columns of a sparse matrix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from explorank.retrieval._ids import IdTable, as_ids
from explorank.retrieval.errors import InvalidTable


@dataclass(frozen=True)
class Interactions:
    """At most one interaction of each user with each item, in order of user, time and item; use `of`."""

    user_ids: NDArray[np.str_]
    """(u,) distinct, rising: the rows."""
    item_ids: NDArray[np.str_]
    """(n,) distinct, rising: the columns; items that nobody took up may be among them."""
    users: NDArray[np.int64]
    """(m,) the row of each interaction."""
    items: NDArray[np.int64]
    """(m,) the column of each interaction."""
    values: NDArray[np.float64]
    """(m,) how much it was worth, 1 unless told: a rating, say."""
    times: NDArray[np.float64] | None
    """(m,) seconds since the Unix epoch, or None where times are not to be used."""
    given: NDArray[np.int64]
    """(m,) where each interaction stood among those that `of` was given."""

    @classmethod
    def of(
        cls,
        user_ids: Iterable[str],
        item_ids: Iterable[str],
        *,
        values: ArrayLike | None = None,
        times: ArrayLike | None = None,
        all_items: Iterable[str] = (),
        all_users: Iterable[str] = (),
    ) -> Self:
        """Return the interactions of `user_ids` (m,) with `item_ids` (m,); of repeated ones the last counts.

        `all_items` and `all_users` add columns and rows for those without interactions. Raises `InvalidTable` for
        columns of different lengths, for values or times that are not finite, and where there is nothing.
        """
        who, what = _text("user_ids", user_ids), _text("item_ids", item_ids)
        count = len(who)
        if not count or len(what) != count:
            raise InvalidTable(
                f"{count} user_ids and {len(what)} item_ids; interactions are pairs of both, at least one. "
                "Pass two columns of the same length."
            )
        worth = np.ones(count) if values is None else _numbers("values", values, count)
        when = None if times is None else _numbers("times", times, count)
        rows, users = np.unique(np.concatenate([who, _text("all_users", all_users)]), return_inverse=True)
        columns, items = np.unique(np.concatenate([what, _text("all_items", all_items)]), return_inverse=True)
        users, items = users[:count].astype(np.int64), items[:count].astype(np.int64)
        order = np.lexsort((np.arange(count) if when is None else when, items, users))
        last = np.ones(count, np.bool_)
        last[:-1] = (np.diff(users[order]) != 0) | (np.diff(items[order]) != 0)
        kept = order[last]
        kept = kept[
            np.lexsort((items[kept], np.zeros(len(kept)) if when is None else when[kept], users[kept]))
        ]
        times_kept = None if when is None else when[kept]
        return cls(rows, columns, users[kept], items[kept], worth[kept], times_kept, kept)

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def matrix(self) -> csr_matrix:
        """(u, n) float32 with 1 for each interaction."""
        return self._sparse(np.ones(len(self), np.float32))

    @cached_property
    def valued(self) -> csr_matrix:
        """(u, n) float32 with the value of each interaction."""
        return self._sparse(self.values.astype(np.float32))

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """(n,) how many users took up each item."""
        return np.bincount(self.items, minlength=len(self.item_ids))

    @cached_property
    def activity(self) -> NDArray[np.int64]:
        """(u,) how many items each user took up."""
        return np.bincount(self.users, minlength=len(self.user_ids))

    def take(self, chosen: NDArray[Any]) -> Self:
        """Return some of the interactions, by a mask (m,) or by rising positions; rows and columns stay."""
        return replace(
            self,
            users=self.users[chosen],
            items=self.items[chosen],
            values=self.values[chosen],
            times=None if self.times is None else self.times[chosen],
            given=self.given[chosen],
        )

    def without_times(self) -> Self:
        """Return the same interactions with their times forgotten, and with them the order of each user's."""
        order = np.lexsort((self.items, self.users))
        return replace(self.take(order), times=None)

    def _sparse(self, data: NDArray[np.float32]) -> csr_matrix:
        return csr_matrix((data, (self.users, self.items)), (len(self.user_ids), len(self.item_ids)))


class ItemRows:
    """The columns of known items, by id."""

    def __init__(self, item_ids: NDArray[np.str_]) -> None:
        self._table = IdTable(item_ids)

    def known(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the columns of those ids that are known, each once, rising."""
        rows = self._table.find(item_ids)
        found: NDArray[np.int64] = np.unique(rows[rows >= 0])
        return found


def _text(what: str, ids: Iterable[str]) -> NDArray[np.str_]:
    found = as_ids(ids)
    if found.dtype.kind != "U":
        raise InvalidTable(
            f"{what} holds the integer {found[0].item()!r}; items and users are known by strings, and they would "
            "never meet. Pass `map(str, ids)`."
        )
    return found


def _numbers(what: str, values: ArrayLike, count: int) -> NDArray[np.float64]:
    column = np.asarray(values, np.float64)
    if column.shape != (count,) or not np.isfinite(column).all():
        raise InvalidTable(
            f"{what} of shape {column.shape} for {count} interactions, or not all finite; each interaction needs a "
            "number. Pass one per interaction, and leave out those without."
        )
    return column
