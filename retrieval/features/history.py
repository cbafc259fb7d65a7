"""The latest items of each user, at every instant at which they change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from explorank.retrieval.features.statistics import distinct_instants, first_at_or_after
from explorank.retrieval.features.tables import MICROSECONDS

_ROWS_PER_BATCH: Final = 20_000  # bounds memory: each row repeats up to a whole history


def histories(
    users: NDArray[np.int64],
    times: NDArray[np.int64],
    items: NDArray[Any],
    values: NDArray[np.float64],
    *,
    length: int,
    until: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], dict[str, pa.Array]]]:
    """Yield batches of rows: users' codes (m,), times (m,) in µs, and the list columns of `user_history`.

    A row at t lists the user's last `length` events strictly before t, oldest first. Events of one instant
    enter together, in the order in which they were given.
    """
    order = np.lexsort((times, users))
    users, times, values = users[order], times[order], values[order]
    texts = pa.array(items[order], pa.string())
    row_users, row_times = distinct_instants(users, times + 1)
    kept = row_times <= until
    row_users, row_times = row_users[kept], row_times[kept]
    ends = first_at_or_after(users, times, row_users, row_times)
    starts = np.maximum(np.searchsorted(users, row_users), ends - length)
    for first in range(0, len(ends), _ROWS_PER_BATCH):
        batch = slice(first, first + _ROWS_PER_BATCH)
        rows, offsets = _ranges(starts[batch], ends[batch])
        yield (
            row_users[batch],
            row_times[batch],
            {
                "history_items": pa.ListArray.from_arrays(offsets, texts.take(pa.array(rows))),
                "history_values": pa.ListArray.from_arrays(offsets, pa.array(values[rows])),
                "history_times": pa.ListArray.from_arrays(offsets, pa.array(times[rows] / MICROSECONDS)),
            },
        )


def _ranges(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], pa.Array]:
    lengths = ends - starts
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return rows, pa.array(offsets, pa.int32())
