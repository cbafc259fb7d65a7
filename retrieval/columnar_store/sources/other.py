"""Any other online store of Feast: read through its own interface, read again by a sweep."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.repo_config import RepoConfig

from explorank.retrieval.columnar_store.cells import Cell
from explorank.retrieval.columnar_store.sources.source import Changes, StoredRows, StoredView, column_cells


class OtherSource:
    """Reads any online store by the keys that were asked for; it can't list what it holds."""

    sweeps = True

    def __init__(self, config: RepoConfig, store: OnlineStore) -> None:
        self._config = config
        self._store = store
        self._written: list[bytes] = []
        self._dropped: set[str] = set()

    def prepare(self, views: Iterable[StoredView]) -> None:
        """Do nothing: such a store can't tell of changes."""

    def follow(self, view: StoredView) -> None:
        """Do nothing: such a store can't tell of changes."""

    def read(self, view: StoredView, keys: Sequence[bytes]) -> StoredRows:
        """Return the rows that exist."""
        answers = self._store.online_read(
            self._config, view.view, [deserialize_entity_key(key) for key in keys], list(view.features)
        )
        found = [
            (key, moment, values)
            for key, (moment, values) in zip(keys, answers, strict=True)
            if moment is not None and values is not None
        ]
        cells: dict[str, list[Cell]] = column_cells(view.features, len(found))
        for row, (_, _, values) in enumerate(found):
            for name, value in values.items():
                if name in cells:
                    cells[name][row] = value.SerializeToString()
        times = np.array([_microseconds(moment) for _, moment, _ in found], np.int64)
        return StoredRows([key for key, _, _ in found], times, cells)

    def pages(self) -> bool:
        """Return whether `page` can walk through a view."""
        return False

    def page(self, view: StoredView, after: Any) -> tuple[StoredRows, Any] | None:
        """Return the next rows and where to go on."""
        return None

    def changes(self) -> Changes:
        """Return what this process wrote."""
        changes = Changes(list(dict.fromkeys(self._written)), frozenset(self._dropped))
        self._written.clear()
        self._dropped.clear()
        return changes

    def times(self, view: StoredView, keys: Sequence[bytes]) -> Sequence[int | None]:
        """Return the event times in store."""
        rows = self.read(view, keys)
        stored = dict(zip(rows.keys, rows.times.tolist(), strict=True))
        return [stored.get(key) for key in keys]

    def wrote(self, view: StoredView, keys: Sequence[bytes]) -> None:
        """Tell others of written rows."""
        self._written.extend(keys)

    def dropped(self, views: Iterable[str]) -> None:
        """Tell others of deleted views."""
        self._dropped.update(views)

    def close(self) -> None:
        """Leave the store as it is: it has no connection of ours."""

    def abandon(self) -> None:
        """Leave the store as it is: it has no connection of ours."""


def _microseconds(moment: Any) -> int:
    return calendar.timegm(moment.utctimetuple()) * 1_000_000 + int(moment.microsecond)
