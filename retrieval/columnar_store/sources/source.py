"""How rows come from a backing store, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from feast import FeatureView
from feast.value_type import ValueType
from numpy.typing import NDArray

from explorank.retrieval.columnar_store.cells import Cell
from explorank.retrieval.columnar_store.keys import EntityKeys


@dataclass(frozen=True)
class StoredView:
    """What a source has to know of a feature view."""

    name: str
    """As the backing store calls it: project, view and, where Feast keeps them apart, version."""
    view: FeatureView
    features: Mapping[str, ValueType]
    """All of the view's features and their declared types."""
    keys: EntityKeys


@dataclass(frozen=True)
class StoredRows:
    """n rows of a view, each key once."""

    keys: Sequence[bytes]
    times: NDArray[np.int64]  # (n,) microseconds since the epoch
    cells: Mapping[str, Sequence[Cell]]
    """Feature: n cells."""


@dataclass(frozen=True)
class Changes:
    """What has changed since the last time this was asked."""

    keys: Sequence[bytes] = ()
    """Entities some of whose rows may have changed, in any view."""
    views: frozenset[str] = field(default_factory=frozenset)
    """Names of views all of whose rows may have changed."""
    everything: bool = False


@dataclass(frozen=True)
class PageTimes:
    """When the rows of one page of a view happened."""

    after: Any
    """Where the next page begins."""
    mark: bytes
    """Stands for keys and times: another one says that some of them changed."""
    keys: list[bytes] | None
    """Of n rows; `None` where the page has the mark that was asked with."""
    times: NDArray[np.int64]  # (n,) microseconds since the epoch


class Source(Protocol):
    """Reads a backing store on connections of its own; called by one thread at a time."""

    sweeps: bool
    """Whether some writers can only be noticed by reading everything again from time to time."""

    def prepare(self, views: Iterable[StoredView]) -> None:
        """Set up the notice of changes; called when views are applied."""

    def follow(self, view: StoredView) -> None:
        """Begin to notice changes of a view; called before its first row is read."""

    def read(self, view: StoredView, keys: Sequence[bytes]) -> StoredRows:
        """Return the rows that exist of these distinct keys."""

    def page(self, view: StoredView, after: Any) -> tuple[StoredRows, Any] | None:
        """Return the next rows and where to go on; `None` after the last, and at once if it can't be done."""

    def pages(self) -> bool:
        """Return whether `page` can walk through a view."""

    def changes(self) -> Changes:
        """Return what changed since the last call, by any writer that can be noticed."""

    def dropped(self, views: Iterable[str]) -> None:
        """Tell other processes of views that were just deleted."""

    def close(self) -> None:
        """Close all connections; the next call opens them anew."""

    def abandon(self) -> None:
        """Let go of connections that a parent process opened, without closing them."""


@runtime_checkable
class SweptSource(Source, Protocol):
    """One that can tell when its rows happened without reading them."""

    def page_times(self, view: StoredView, after: Any, mark: bytes) -> PageTimes | None:
        """Return the times of the next page and where to go on; `None` after the last.

        Pages that begin at the same place hold the same keys for as long as none is added or removed.
        """


class ToldSource(Source, Protocol):
    """One whose backing store is written by its own class, which knows nothing of other readers: they are told."""

    def times(self, view: StoredView, keys: Sequence[bytes]) -> Sequence[int | None]:
        """Return the event times in store, in microseconds; `None` for a row that anything may replace."""

    def wrote(self, view: StoredView, keys: Sequence[bytes]) -> None:
        """Tell other processes of rows that were just written, before the writer is told that they are."""


def column_cells(features: Iterable[str], rows: int) -> dict[str, list[Cell]]:
    """Return n empty cells for each feature."""
    return {feature: [None] * rows for feature in features}
