"""Counts and means over windows, at every instant at which any of them changes.

An event at time e is known from e + 1 µs on, and it leaves a window of length w at e + w + 1 µs: a row at t
is made of the events strictly before t, its window w of those in [t - w, t). Between two rows nothing
changes, so looking up the last row at or before any t gives exactly what could have been computed at t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.features.tables import MICROSECONDS

DAY = 86_400 * MICROSECONDS


@dataclass(frozen=True, slots=True)
class WindowStatistics:
    """Statistics of the events of some entities; m rows, ordered by entity and time."""

    entities: NDArray[np.int64]  # (m,) codes
    times: NDArray[np.int64]  # (m,) microseconds
    events: dict[int | None, NDArray[np.int64]]  # window in days, None for all time: (m,)
    mean_value: dict[int | None, NDArray[np.float64]]  # NaN where a window is empty
    positive_rate: dict[int | None, NDArray[np.float64]]  # NaN where a window is empty
    first_event: NDArray[np.int64]  # (m,) microseconds
    last_event: NDArray[np.int64]  # (m,) microseconds


def window_statistics(
    entities: NDArray[np.int64],
    times: NDArray[np.int64],
    values: NDArray[np.float64],
    positive: NDArray[np.bool_],
    *,
    windows_days: tuple[int, ...],
    until: int,
) -> WindowStatistics:
    """Return the statistics of `n` events, each array (n,), in any order, with no row after `until`.

    Means are differences of running sums in double precision: exact for whole numbers, else to about
    1e-16 of the largest running sum.
    """
    order = np.lexsort((times, entities))
    entities, times, values, positive = entities[order], times[order], values[order], positive[order]
    row_entities, row_times = _instants(entities, times, windows_days, until)
    ends = first_at_or_after(entities, times, row_entities, row_times)
    starts = np.searchsorted(entities, row_entities)
    value_sums = np.concatenate(([0.0], np.cumsum(values)))
    positive_sums = np.concatenate(([0], np.cumsum(positive)))
    events: dict[int | None, NDArray[np.int64]] = {}
    mean_value: dict[int | None, NDArray[np.float64]] = {}
    positive_rate: dict[int | None, NDArray[np.float64]] = {}
    for window in (*windows_days, None):
        since = (
            starts
            if window is None
            else first_at_or_after(entities, times, row_entities, row_times - window * DAY)
        )
        count = ends - since
        divisor = np.where(count, count, np.nan)
        events[window] = count
        mean_value[window] = (value_sums[ends] - value_sums[since]) / divisor
        positive_rate[window] = (positive_sums[ends] - positive_sums[since]) / divisor
    return WindowStatistics(
        row_entities, row_times, events, mean_value, positive_rate, times[starts], times[ends - 1]
    )


def _instants(
    entities: NDArray[np.int64], times: NDArray[np.int64], windows_days: tuple[int, ...], until: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    delays = np.array([0, *(window * DAY for window in windows_days)], np.int64) + 1
    changes = (times[:, None] + delays).ravel()
    changing = np.repeat(entities, len(delays))
    kept = changes <= until
    return distinct_instants(changing[kept], changes[kept])


def distinct_instants(
    entities: NDArray[np.int64], times: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each pair once, ordered by entity and time."""
    order = np.lexsort((times, entities))
    entities, times = entities[order], times[order]
    new = np.ones(len(times), bool)
    new[1:] = (entities[1:] != entities[:-1]) | (times[1:] != times[:-1])
    return entities[new], times[new]


def first_at_or_after(
    entities: NDArray[np.int64],
    times: NDArray[np.int64],
    asked_entities: NDArray[np.int64],
    asked_times: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return, for each asked pair, the position of the first (entity, time) that is not less.

    `entities` and `times`, (n,), must be ordered by entity and time. The result for an entity's pair never
    lies before the entity's first position, nor after its last one plus one.
    """
    # Ranks instead of times keep the composite key within 64 bits.
    moments, ranks = np.unique(np.concatenate((times, asked_times)), return_inverse=True)
    keys = entities * len(moments) + ranks[: len(times)]
    asked = asked_entities * len(moments) + ranks[len(times) :]
    return np.searchsorted(keys, asked, side="left")
