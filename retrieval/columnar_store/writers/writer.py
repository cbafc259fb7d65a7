"""What the columnar store asks of whoever writes to a backing store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from explorank.retrieval.columnar_store.keys import stored_key
from explorank.retrieval.columnar_store.sources.source import StoredView

Row: TypeAlias = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""As Feast has it: key, values, event time, time of creation."""
WriteProgress: TypeAlias = Callable[[int], Any]
"""Told how many rows more are done."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = 1_000_000  # microseconds


@dataclass(frozen=True, slots=True)
class TimedRow:
    """A row to write."""

    time: int
    """Event time, microseconds since the epoch."""
    row: Row


class Writer(Protocol):
    """Writes to a backing store; called by one thread at a time."""

    def write(self, view: StoredView, rows: Mapping[bytes, TimedRow], progress: WriteProgress | None) -> None:
        """Write those of these rows that are no older than what is in store, and see that readers notice.

        Args:
            view: Where to.
            rows: At most one row of each entity, by its stored key.
            progress: Called with 1 for each row that is written.

        """

    def close(self) -> None:
        """Close what is open; the next write opens it anew."""


def newest_rows(data: Sequence[Row]) -> dict[bytes, TimedRow]:
    """Return the row with the newest event time of each entity, of equally new ones the last, by stored key."""
    newest: dict[bytes, TimedRow] = {}
    for row in data:
        key, moment = stored_key(row[0]), _microseconds(row[2])
        other = newest.get(key)
        if other is None or moment >= other.time:
            newest[key] = TimedRow(moment, row)
    return newest


def _microseconds(moment: datetime) -> int:
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * _SECOND + since.microseconds
