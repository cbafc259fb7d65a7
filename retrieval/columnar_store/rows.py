"""The lists of a single row: a user's history, say, which no matrix of numbers can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from feast.protos.feast.types.Value_pb2 import Value

from explorank.retrieval.columnar_store.cells import PRESENT
from explorank.retrieval.columnar_store.columns import FIRST, MessageColumn
from explorank.retrieval.columnar_store.keys import Key
from explorank.retrieval.columnar_store.memory import Memory
from explorank.retrieval.columnar_store.requests import FOREVER
from explorank.retrieval.columnar_store.sources.source import StoredView

_SECOND: Final = 1_000_000


class RowReader:
    """Reads the same lists again and again.

    Args:
        memory: The columns.
        stored: The view.
        features: Which of its features to read; those that are no lists are left out.
        ttl: How long a row may be used, in microseconds; `FOREVER` where rows do not expire.

    """

    def __init__(self, memory: Memory, stored: StoredView, features: Sequence[str], ttl: int) -> None:
        self._memory = memory
        self._stored = (stored,)
        self._features = tuple(features)
        self._ttl = ttl

    def lists(self, key: Key, time_s: float) -> tuple[bool, dict[str, list[Any]] | None]:
        """Return whether there is a row, and its lists as they were stored, `None` if it has expired by `time_s`.

        Times within lists are whole seconds. Raises what the backing store raises where the row has to be read.
        """
        [(table, slots)] = self._memory.find(self._stored, (key,))
        slot = int(slots[0])
        if slot < FIRST:
            return False, None
        if self._ttl != FOREVER and table.times[slot] < round(time_s * _SECOND) - self._ttl:
            return True, None
        lists = {}
        for name in self._features:
            column = table.columns[name]
            if isinstance(column, MessageColumn) and column.status[slot] == PRESENT:
                message = Value.FromString(column.cells[slot])
                kind = message.WhichOneof("val") or ""
                if kind.endswith("list_val"):
                    lists[name] = list(getattr(message, kind).val)
        return True, lists
