"""Columns of a candidate from when things happened: age, and popularity of late."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.errors import InvalidTable

_DAY: Final = 86_400.0
_WINDOWS: Final = (1, 3, 7, 14, 30, 90)
"""Days over which popularity is counted."""
_LATELY: Final = 14


class TimeColumns:
    """What the times of interactions tell of a user and an item at one moment."""

    def __init__(self, interactions: Interactions, now: float) -> None:
        """Take interactions that all happened before `now`, in seconds since the Unix epoch."""
        times = interactions.times
        if times is None or (times >= now).any():
            raise InvalidTable(
                "An interaction has no time before the moment of asking; columns would know the future. Leave it out."
            )
        users, items = len(interactions.user_ids), len(interactions.item_ids)
        self._by_item: dict[str, NDArray[np.float64]] = {}
        for days in _WINDOWS:
            recent = times >= now - days * _DAY
            count = np.bincount(interactions.items[recent], minlength=items)
            # As a share: how much happens in a window differs from one moment of asking to the next.
            self._by_item[f"popularity_{days}d"] = np.log1p(1_000.0 * count / max(int(recent.sum()), 1))
            if days == _LATELY:
                self.recent_popularity = count.astype(np.float32)
        popularity = interactions.popularity
        self._by_item["popularity_rise"] = self._by_item["popularity_14d"] - np.log1p(
            1_000.0 * popularity / max(len(times), 1)
        )
        self._by_item["item_age_days"] = (now - _extreme(np.minimum, interactions.items, times, items)) / _DAY
        self._by_item["item_idle_days"] = (
            now - _extreme(np.maximum, interactions.items, times, items)
        ) / _DAY
        self._by_user = {
            "user_age_days": (now - _extreme(np.minimum, interactions.users, times, users)) / _DAY,
            "user_idle_days": (now - _extreme(np.maximum, interactions.users, times, users)) / _DAY,
        }

    def of(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Return the columns (r,) of pairs of users (r,) and items (r,), by name."""
        columns = {name: values[items] for name, values in self._by_item.items()}
        return columns | {name: values[users] for name, values in self._by_user.items()}


def _extreme(
    which: np.ufunc, rows: NDArray[np.int64], times: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Return the first or last time (count,) of each row, NaN for rows without any."""
    start = np.inf if which is np.minimum else -np.inf
    found = np.full(count, start)
    which.at(found, rows, times)
    return np.where(np.isfinite(found), found, np.nan)
