"""Which arms there are, and where each stands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any, Final

import numpy as np

from explorank.hooks.types import Ids, IndexArray, RankingBatch


class Roster:
    """Distinct item ids in an order that never changes; states that know the same arms share one."""

    __slots__ = ("_asked", "_row_of", "item_ids")

    def __init__(self, item_ids: Ids) -> None:
        """Take the ids, (A,)."""
        self.item_ids: Final = item_ids
        self._row_of: Final[dict[Any, int]] = {item: row for row, item in enumerate(item_ids.tolist())}
        # Many hosts ask for the same arms each time, and to compare is much cheaper than to look up.
        self._asked = (item_ids, np.arange(len(item_ids)))

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item: Any) -> bool:
        return item in self._row_of

    def rows(self, items: Iterable[Any], count: int) -> IndexArray:
        """Return where each of `count` items stands, (count,), -1 for one that is not there."""
        return np.fromiter(map(self._row_of.get, items, repeat(-1)), np.int64, count=count)

    def rows_of(self, batch: RankingBatch) -> IndexArray:
        """Return where each candidate stands, (n,), -1 for one that is not there; not to be written to."""
        asked, rows = self._asked
        if not _same(asked, batch.item_ids):
            rows = self.rows(batch.id_list, len(batch))
            # One assignment, so that another thread sees ids and rows that belong together.
            self._asked = (batch.item_ids.copy(), rows)
        return rows


def _same(ids: Ids, others: Ids) -> bool:
    if ids.shape != others.shape or ids.dtype != others.dtype:
        return False
    if ids.dtype.kind == "U" and ids.itemsize and others.flags.c_contiguous:
        # As numbers they compare several times faster than as text.
        ids, others = ids.view(np.uint32), others.view(np.uint32)
    return bool((ids == others).all())
