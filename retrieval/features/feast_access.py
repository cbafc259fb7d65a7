"""Feast as the ranking stage sees it: float32 matrices online, the same numbers in training frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.retrieval.errors import FeatureRepositoryError
from explorank.retrieval.features.columnar import ColumnarService, ServiceRead, columnar_service
from explorank.retrieval.features.feast_session import (
    apply_repository,
    materialize_repository,
    open_store,
    quiet,
)
from explorank.retrieval.features.historical import historical_lists, historical_numbers, newest_arrays
from explorank.retrieval.features.meaning import NOT_SERVED, Meaning
from explorank.retrieval.features.online import read_views
from explorank.retrieval.features.served import (
    ServedFeatures,
    meaning_of,
    numbers_from_messages,
    refuse_equal_names,
    served_features,
)
from explorank.retrieval.features.tables import MICROSECONDS, microseconds, require_columns, text_ids
from explorank.retrieval.features.vocabulary import Vocabularies

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore

    from explorank.retrieval.columnar_store import KnownKeys

_HISTORY_ITEMS: Final = "history_items"
_HISTORY_VALUES: Final = "history_values"
_HISTORY_TIMES: Final = "history_times"


@dataclass(frozen=True, slots=True)
class OnlineFeatures:
    """The features of some items, as they stand."""

    names: tuple[str, ...]
    values: NDArray[np.float32]  # (n, d)
    """A missing value is NaN."""
    missing: int = 0
    """How many rows (one for each item and view) the online store lacks."""
    expired: int = 0
    """How many rows are older than their view's ttl; their values are NaN."""
    failed_views: tuple[str, ...] = ()
    """Views that could not be read; their values are NaN, their rows count as missing."""


@dataclass(frozen=True, slots=True)
class OnlineUser:
    """What is known of one user, as it stands."""

    names: tuple[str, ...]
    values: NDArray[np.float32]  # (d,)
    """A missing value is NaN."""
    history: tuple[str, ...] = ()
    """Ids of the latest items, oldest first."""
    history_values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (h,)
    history_times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (h,)
    """In seconds since the Unix epoch."""
    found: bool = False
    """Whether any view holds a row of the user that has not expired."""
    missing: int = 0
    """How many views lack the user."""
    expired: int = 0
    """How many views hold a row of the user that is older than the view's ttl."""
    failed_views: tuple[str, ...] = ()
    """Views that could not be read."""


class FeatureAccess:
    """Reads a Feast repository online and for training, as the same float32 numbers.

    Texts become codes of an append-only vocabulary, times their age in days at the moment of reading,
    booleans 0 and 1; a missing value is NaN. Features of other types (lists, maps) are not for rankers and
    are left out of the names.

    Reading online never raises for what it finds: unknown ids, expired rows and views that fail are NaN and
    counted. Feast itself does not enforce a view's ttl online, this does.

    Args:
        repository: The folder with `feature_store.yaml`; `explorank init` writes one.
        user_service: The feature service whose numbers describe a user.
        item_service: The feature service whose numbers describe an item.
        history_service: The feature service with `history_items` and, optionally, `history_values` and
            `history_times`; `None` where the repository keeps no histories.
        as_of: Read as if at this time, in seconds since the Unix epoch, for ttl and ages; `None` is now.

    """

    def __init__(
        self,
        repository: Path | str,
        *,
        user_service: str = "user_v1",
        item_service: str = "item_v1",
        history_service: str | None = "user_history_v1",
        as_of: float | None = None,
    ) -> None:
        self.repository = Path(repository).resolve()
        self.user_service = user_service
        self.item_service = item_service
        self.history_service = history_service
        self.as_of = as_of
        self._opening = threading.RLock()
        self._opened: _Opened | None = None
        self._known_items: tuple[NDArray[Any], _Opened, KnownKeys | None] | None = None

    @property
    def item_names(self) -> tuple[str, ...]:
        """The names of an item's numbers, in the order of the matrix."""
        return self._open.items.names

    @property
    def user_names(self) -> tuple[str, ...]:
        """The names of a user's numbers, in the order of the vector."""
        return self._open.users.names

    def texts(self, feature: str) -> tuple[str, ...]:
        """Return the texts that the numbers of `feature` are codes of, in that order; none where it is no text."""
        return self._open.vocabularies.texts(feature)

    def user_meanings(self) -> dict[str, Meaning]:
        """Return what each of a user's numbers means, by name; it changes where a number would mean something else."""
        opened = self._open
        return {
            feature.name: meaning_of(feature, opened.vocabularies.texts(feature.name))
            for view in opened.users.views
            for feature in view.features
            if feature.kind != "other"
        }

    def changed_users(self, former: Mapping[str, Meaning]) -> dict[str, Meaning]:
        """Return which of the `former` meanings of a user's numbers hold no more, each with what it is now.

        A feature that is not served any more is `NOT_SERVED`. A text that got its code later changes nothing.
        """
        meanings, texts = self.user_meanings(), self._open.vocabularies.texts
        now = {name: meanings.get(name, NOT_SERVED) for name in former}
        return {
            name: now[name] for name, meaning in former.items() if not meaning.holds(now[name], texts(name))
        }

    @property
    def store(self) -> FeatureStore:
        """Feast's own store, for whatever is not offered here."""
        return self._open.store

    def apply(self) -> None:
        """Register the repository's definitions, as `feast apply` does; take up what changed."""
        apply_repository(self.repository)
        self.refresh()

    def materialize(self, until: datetime) -> None:
        """Load the newest row of every entity up to `until` into the online store.

        An entity without a row by then keeps the one it has: to go back in time, `reset` and `apply` first.
        """
        materialize_repository(self._open.store, self.repository, _aware(until), incremental=False)

    def materialize_incremental(self, until: datetime) -> None:
        """Load what became known since the last time, up to `until`, into the online store."""
        materialize_repository(self._open.store, self.repository, _aware(until), incremental=True)

    def warm_up(self) -> None:
        """Import Feast, open the store and read once, so that the first request does not wait for it."""
        self.user("warm-up")
        self.items(("warm-up",))

    def reset(self) -> None:
        """Delete registry and online store; `apply` and `materialize` begin anew.

        Always both: a new registry over an old store would serve rows of views that changed meanwhile, and
        an old registry over a new store would read tables that are not there.
        """
        with quiet("resetting", self.repository):
            store = open_store(self.repository)
            store.teardown()
            # Feast leaves a registry that still believes in the tables it has just deleted.
            store.registry.teardown()
        self.refresh()

    def refresh(self) -> None:
        """Read registry and vocabularies again at the next use."""
        with self._opening:
            self._opened = None

    def push(self, source: str, rows: pd.DataFrame) -> None:
        """Write fresh rows of the push source `source` to the online store, where they are served at once.

        `rows` holds the join key, `event_timestamp` (in a form that `build_features` takes) and every
        feature of the view. A plain SQLite store replaces a newer row by an older one: push in order of time, or
        use the columnar store. Raises `FeatureRepositoryError` where Feast refuses them, naming the source.
        """
        require_columns(rows, "rows to push", ("event_timestamp",))
        now = pd.Timestamp(datetime.now(UTC)).as_unit("us")
        times = microseconds(rows["event_timestamp"], "rows to push", "event_timestamp")
        rows = rows.assign(
            event_timestamp=pd.to_datetime(times, unit="us", utc=True).as_unit("us"),
            created_timestamp=rows.get("created_timestamp", now),
        )
        try:
            self._open.store.push(source, rows)
        except Exception as error:
            raise FeatureRepositoryError(
                f"Feast could not push {len(rows)} rows to {source!r} of {self.repository}: {error}. They are not "
                "served; push them again, or build and materialise anew."
            ) from error

    def items(self, item_ids: Sequence[str], *, at: float | None = None) -> OnlineFeatures:
        """Return the numbers of `n` items, (n, d) float32, in one read; never raises for an unknown item.

        Ages and ttl are those at the time `at`, in seconds since the Unix epoch; by default now.
        """
        opened = self._open
        return _numbers(opened, opened.items, item_ids, self._now if at is None else at)

    def items_at(
        self, item_ids: NDArray[Any], rows: NDArray[np.int64], *, at: float | None = None
    ) -> OnlineFeatures:
        """Do what `items` does for those at `rows` (n,) of `item_ids` (N,), text.

        The same array should be asked again and again, as that of a catalogue is: where each id stands in the online
        store is then remembered, which spares looking hundreds of texts up.
        """
        opened, now = self._open, self._now if at is None else at
        if opened.columnar_items is not None:
            known = self._known_items
            if known is None or known[0] is not item_ids or known[1] is not opened:
                known = self._known_items = (item_ids, opened, opened.columnar_items.known(item_ids))
            if known[2] is not None:
                read = opened.columnar_items.numbers_known(known[2], rows, now)
                if read is not None:
                    return _told(opened.items, read)
        return self.items(item_ids[rows].tolist(), at=at)

    def user(self, user_id: str, *, at: float | None = None) -> OnlineUser:
        """Return a user's numbers and history; an unknown user has NaN and an empty history.

        Ages and ttl are those at the time `at`, as for `items`.
        """
        opened, now = self._open, self._now if at is None else at
        numbers = _numbers(opened, opened.users, (user_id,), now)
        missing, expired, failed = numbers.missing, numbers.expired, numbers.failed_views
        views = len(opened.users.views)
        lists: dict[str, Any] = {}
        if opened.history is not None and opened.columnar_history is not None:
            stored = opened.columnar_history.lists(user_id, now)
            lists = stored.values
            missing += stored.missing
            expired += stored.expired
            views += len(opened.history.views)
            failed += stored.failed
        elif opened.history is not None:
            read = read_views(opened.store, opened.history, (user_id,))
            for view in opened.history.views:
                found, alive = read.standing(view, now)
                missing += int((~found).sum())
                expired += int((found & ~alive).sum())
                if alive.all():
                    lists |= read.lists(view, row=0)
            views += len(opened.history.views)
            failed += read.failed
        return OnlineUser(
            names=numbers.names,
            values=numbers.values[0],
            history=tuple(lists.get(_HISTORY_ITEMS, ())),
            history_values=np.asarray(lists.get(_HISTORY_VALUES, ()), np.float64),
            history_times=np.asarray(lists.get(_HISTORY_TIMES, ()), np.float64),
            found=missing + expired < views,
            missing=missing,
            expired=expired,
            failed_views=failed,
        )

    def training_frame(self, entities: pd.DataFrame, *, extend_vocabularies: bool = False) -> pd.DataFrame:
        """Return what was known of each user and item at each row's time, in the order of the rows.

        Args:
            entities: `user_id`, `item_id` and `event_timestamp`, in a form that `build_features` takes.
            extend_vocabularies: Give texts without a code one, as training on a repository that
                `build_features` did not write needs.

        Returns:
            One row for each row of `entities`, with its index: `user_names` and `item_names` as float32, and
            `history`, the list of the user's latest item ids, oldest first.

        Raises:
            InvalidTable: Where `entities` breaks the shape above.
            FeatureRepositoryError: Where Feast fails, or returns other rows than it was given.

        """
        require_columns(entities, "entities", ("user_id", "item_id", "event_timestamp"))
        opened = self._open
        times = microseconds(entities["event_timestamp"], "entities", "event_timestamp")
        user_ids = text_ids(entities["user_id"], "entities", "user_id")
        item_ids = text_ids(entities["item_id"], "entities", "item_id")
        columns: dict[str, Any] = {}
        with quiet("joining features from", self.repository):
            for served, ids in ((opened.users, user_ids), (opened.items, item_ids)):
                columns |= historical_numbers(
                    opened.store, served, ids, times, opened.vocabularies, extend=extend_vocabularies
                )
            lists = (
                [[] for _ in times]
                if opened.history is None
                else historical_lists(opened.store, opened.history, _HISTORY_ITEMS, user_ids, times)
            )
        if extend_vocabularies:
            opened.vocabularies.save()
        frame = pd.DataFrame(columns, index=entities.index)
        frame["history"] = pd.Series(lists, index=entities.index, dtype=object)
        return frame

    def past_users(
        self, user_ids: Sequence[str], times: pd.Series[Any], *, extend_vocabularies: bool = False
    ) -> NDArray[np.float32]:
        """Return the numbers of `user_names` as they were known of users (r,) at `times` (r,), (r, d); NaN for missing.

        `extend_vocabularies` and errors are those of `training_frame`.
        """
        opened = self._open
        moments = microseconds(times, "entities", "event_timestamp")
        ids = text_ids(pd.Series(user_ids, dtype=object), "entities", "user_id")
        with quiet("joining features from", self.repository):
            columns = historical_numbers(
                opened.store, opened.users, ids, moments, opened.vocabularies, extend=extend_vocabularies
            )
        if extend_vocabularies:
            opened.vocabularies.save()
        return np.column_stack([columns[name] for name in opened.users.names])

    def item_arrays(
        self, reference: str, until: datetime | None = None
    ) -> tuple[NDArray[Any], pa.ChunkedArray]:
        """Return the ids of the items that have the array feature `VIEW:FEATURE`, (m,) text, and their lists (m,).

        Each item's newest row not later than `until` (now, by default) counts, while its view's ttl has not passed.
        The rows come from Feast's offline store, and memory holds them all. Raises `FeatureRepositoryError` where Feast
        fails, and, naming those there are, where items have no such array of numbers.
        """
        opened = self._open
        time = self._now if until is None else until.timestamp()
        with quiet("reading arrays from", self.repository):
            return newest_arrays(opened.store, opened.items.join_key, reference, round(time * MICROSECONDS))

    @property
    def _now(self) -> float:
        return time.time() if self.as_of is None else self.as_of

    @property
    def _open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            with self._opening:
                opened = self._opened = self._opened or self._read_registry()
        return opened

    def _read_registry(self) -> _Opened:
        store = open_store(self.repository)
        with quiet("reading the registry of", self.repository):
            users = served_features(store, self.user_service)
            items = served_features(store, self.item_service)
            history = None if self.history_service is None else served_features(store, self.history_service)
        refuse_equal_names(
            users.names + items.names, f"The pair of services {self.user_service!r} and {self.item_service!r}"
        )
        vocabularies = Vocabularies.of_repository(self.repository)
        return _Opened(
            store,
            users,
            items,
            history,
            vocabularies,
            columnar_service(store, users, vocabularies),
            columnar_service(store, items, vocabularies),
            None if history is None else columnar_service(store, history, vocabularies),
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    store: FeatureStore
    users: ServedFeatures
    items: ServedFeatures
    history: ServedFeatures | None
    vocabularies: Vocabularies
    columnar_users: ColumnarService | None
    """What reads the users' service from columns; `None` where the online store has none. The same below."""
    columnar_items: ColumnarService | None
    columnar_history: ColumnarService | None


def _numbers(opened: _Opened, served: ServedFeatures, ids: Sequence[str], now: float) -> OnlineFeatures:
    columnar = opened.columnar_users if served is opened.users else opened.columnar_items
    if columnar is not None:
        return _told(served, columnar.numbers(ids, now))
    read = read_views(opened.store, served, ids)
    values = np.full((len(ids), len(served.names)), np.nan, np.float32)
    missing = expired = column = 0
    for view in served.views:
        found, alive = read.standing(view, now)
        missing += int((~found).sum())
        expired += int((found & ~alive).sum())
        for feature in view.features:
            if feature.kind == "other":
                continue
            if alive.any():
                messages = read.messages(view, feature.name)
                numbers = numbers_from_messages(feature, messages, now, opened.vocabularies)
                values[read.positions, column] = numbers
                values[~alive, column] = np.nan
            column += 1
    return OnlineFeatures(served.names, values, missing, expired, read.failed)


def _told(served: ServedFeatures, read: ServiceRead) -> OnlineFeatures:
    missing = read.found.size - np.count_nonzero(read.found)
    expired = np.count_nonzero(read.found) - np.count_nonzero(read.found & read.alive)
    return OnlineFeatures(served.names, read.values, int(missing), int(expired), read.failed)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
