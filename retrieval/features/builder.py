"""Writes the parquet sources of a feature repository from interactions, items and users."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from explorank.retrieval.errors import FeatureRepositoryError, InvalidOption, InvalidTable
from explorank.retrieval.features.columns import FeatureColumns, feature_columns
from explorank.retrieval.features.history import histories
from explorank.retrieval.features.statistics import WindowStatistics, window_statistics
from explorank.retrieval.features.tables import (
    MICROSECONDS,
    Interactions,
    interactions_of,
    microseconds,
    refuse_rows,
    require_columns,
    text_ids,
)
from explorank.retrieval.features.vocabulary import DATA_FOLDER, Vocabularies

# DuckDB fails on nanosecond times with a zone.
_TIME: Final = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What was read, what was written, and all that could not be used."""

    interactions: int
    users: int
    """Distinct users of the interactions and of the users table."""
    items: int
    """Items of the catalogue."""
    first_event: datetime
    last_event: datetime
    rows: Mapping[str, int] = field(default_factory=dict)
    """Feature view: rows written."""
    repeated_interactions: int = 0
    """Interactions equal to an earlier one in all columns; each of them counts."""
    unknown_item_interactions: int = 0
    """Interactions with items that the catalogue lacks; they count for users and in histories."""
    unknown_items: int = 0
    """How many such items there are."""
    unprofiled_users: int = 0
    """Users of the interactions that the users table lacks."""
    items_without_text: int = 0
    """Items whose text is missing or empty; retrieval by content can't find them."""
    bad_numbers: Mapping[str, int] = field(default_factory=dict)
    """`table.column`: how many of its values are no finite numbers and became missing."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """`table.column`: why it, or a part of it, became no feature."""
    seconds: float = 0.0


def build_features(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    users: pd.DataFrame | None,
    repository: Path | str,
    *,
    windows_days: Iterable[int] = (7, 30),
    history_length: int = 200,
    positive_from: float = 1.0,
    until: datetime | None = None,
    created: datetime | None = None,
) -> BuildReport:
    """Write the point-in-time rows of every feature view into `repository`/data.

    A row at time t is made of the interactions strictly before t, and rows are written at every instant at
    which a value changes, so that the latest row at or before any t holds what was known at t.

    Args:
        interactions: `user_id`, `item_id`, `timestamp` (datetimes, naive ones in UTC; ISO text; or seconds
            since 1970), and optionally `value` (1.0 where there is no such column).
        items: `item_id`, each once, and `text` or `title`; every further column becomes features, but for
            `available_from`, the time from which the item's content was known.
        users: `user_id`, each once; every further column becomes features, but for `available_from`.
            `None` if nothing is known of users.
        repository: The folder of a Feast repository such as `copy_repository` writes.
        windows_days: The lengths of the windows of the statistics, in days.
        history_length: How many of a user's latest items the history holds.
        positive_from: An interaction is positive if its value is at least this.
        until: The last instant for which rows are written; 1 µs after the last interaction by default.
        created: When the rows were made, recorded with each; now by default.

    Raises:
        InvalidTable: Where a table breaks the shape above; the message names column and rows.
        InvalidOption: Where an option is out of its range.
        FeatureRepositoryError: Where `repository` is no Feast repository.

    """
    began = time.perf_counter()
    windows = _checked_windows(windows_days)
    if history_length < 1:
        raise InvalidOption(f"`history_length` is {history_length}; a history holds at least 1 item.")
    folder = Path(repository)
    if not (folder / "feature_store.yaml").is_file():
        raise FeatureRepositoryError(
            f"{folder} holds no feature_store.yaml, so it is no Feast repository and nothing would read the "
            "rows. Write one with `copy_repository` or `explorank init`."
        )
    events = interactions_of(interactions)
    item_ids = _catalogue_ids(items, "items", "item_id")
    user_ids = None if users is None else _catalogue_ids(users, "users", "user_id")
    known_from = int(events.times[0]) - MICROSECONDS
    last = int(events.times[-1]) + 1 if until is None else _instant(until)
    if last <= events.times[0]:
        raise InvalidOption(
            f"`until` is {until}, not after the first interaction at "
            f"{_moment(events.times[0])}; there would be no rows at all. Choose a later time."
        )
    stamp = datetime.now(UTC) if created is None else created

    content = _item_content(items)
    profile = _user_profile(users)
    _refuse_reserved_names(content, "items", "item", windows)
    _refuse_reserved_names(profile, "users", "user", windows)
    user_names, user_codes = _codes(events.user_ids)
    item_names, item_codes = _codes(events.item_ids)
    positive = events.values >= positive_from
    with _Writer(folder / DATA_FOLDER, stamp) as writer:
        writer.write("item_content", "item_id", item_ids, _available(items, "items", known_from), content)
        writer.write(
            "user_profile",
            "user_id",
            np.zeros(0, object) if user_ids is None else user_ids,
            np.zeros(0, np.int64) if users is None else _available(users, "users", known_from),
            profile,
        )
        for entity, names, codes in (("item", item_names, item_codes), ("user", user_names, user_codes)):
            statistics = window_statistics(
                codes, events.times, events.values, positive, windows_days=windows, until=last
            )
            writer.write(
                f"{entity}_statistics",
                f"{entity}_id",
                names[statistics.entities],
                statistics.times,
                _statistics_columns(entity, statistics),
            )
        for codes, times, lists in histories(
            user_codes, events.times, events.item_ids, events.values, length=history_length, until=last
        ):
            writer.write("user_history", "user_id", user_names[codes], times, FeatureColumns(arrays=lists))
        rows = writer.publish()
    _extend_vocabularies(folder, content, profile)

    unknown = ~np.isin(events.item_ids.astype(str), item_ids.astype(str))
    profiled = set() if user_ids is None else set(user_ids)
    return BuildReport(
        interactions=len(events),
        users=len(profiled.union(user_names)),
        items=len(item_ids),
        first_event=_moment(events.times[0]),
        last_event=_moment(events.times[-1]),
        rows=rows,
        repeated_interactions=_repeated(events),
        unknown_item_interactions=int(unknown.sum()),
        unknown_items=len(set(events.item_ids[unknown])),
        unprofiled_users=len(set(user_names) - profiled),
        items_without_text=int((items[_text_column(items)].fillna("").astype(str).str.strip() == "").sum()),
        bad_numbers=_by_table(content.bad_numbers, profile.bad_numbers),
        left_out=_by_table(content.left_out, profile.left_out),
        seconds=time.perf_counter() - began,
    )


def _checked_windows(windows_days: Iterable[int]) -> tuple[int, ...]:
    windows = tuple(sorted(set(windows_days)))
    if any(days != int(days) or days < 1 for days in windows):
        raise InvalidOption(
            f"`windows_days` is {windows}; each window is a whole number of days, at least 1."
        )
    return tuple(int(days) for days in windows)


def _instant(moment: datetime) -> int:
    return int(microseconds(pd.Series([moment]), "the options", "until")[0])


def _moment(microseconds_: np.int64) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds_))


def _codes(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    names, codes = np.unique(ids.astype(str), return_inverse=True)
    return names.astype(object), codes.astype(np.int64)


def _catalogue_ids(frame: pd.DataFrame, table: str, name: str) -> NDArray[Any]:
    require_columns(frame, table, (name,))
    ids = text_ids(frame[name], table, name)
    refuse_rows(
        pd.Series(ids).duplicated().to_numpy(bool),
        frame[name],
        table,
        name,
        "each id stands in this table once (12 and '12' are the same id), or its features would be ambiguous",
        "Keep one row of each",
    )
    return ids


def _text_column(items: pd.DataFrame) -> str:
    for column in ("text", "title"):
        if column in items.columns:
            return column
    raise InvalidTable(
        f"The table of items has neither a column 'text' nor 'title', only "
        f"{', '.join(map(repr, items.columns))}. Retrieval by content needs one of them: rename the column "
        "that describes an item."
    )


def _item_content(items: pd.DataFrame) -> FeatureColumns:
    column = _text_column(items)
    content = feature_columns(
        items.drop(columns=["item_id", "available_from", column], errors="ignore"), "item"
    )
    content.add("item_text", pa.array(items[column].astype("string"), pa.string()), f"Column {column!r}.")
    return content


def _user_profile(users: pd.DataFrame | None) -> FeatureColumns:
    profile = FeatureColumns()
    if users is not None:
        profile = feature_columns(users.drop(columns=["user_id", "available_from"], errors="ignore"), "user")
    count = 0 if users is None else len(users)
    profile.add(
        "user_has_profile", pa.array(np.ones(count), pa.float32()), "1 for a user of the users table."
    )
    return profile


def _refuse_reserved_names(
    columns: FeatureColumns, table: str, entity: str, windows: tuple[int, ...]
) -> None:
    reserved = _statistics_names(entity, windows)
    for name in columns.arrays:
        if name in reserved:
            raise InvalidTable(
                f"The table of {table} has a column that becomes the feature {name!r}, which is a statistic "
                "of the interactions; one would hide the other. Rename the column."
            )


def _available(frame: pd.DataFrame, table: str, known_from: int) -> NDArray[np.int64]:
    times = np.full(len(frame), known_from, np.int64)
    if "available_from" in frame:
        given = frame["available_from"].notna().to_numpy(bool)
        times[given] = microseconds(frame["available_from"][given], table, "available_from")
    return times


def _statistics_names(entity: str, windows: Iterable[int | None]) -> frozenset[str]:
    return frozenset(
        {f"{entity}_first_event", f"{entity}_last_event"}
        | {
            f"{entity}_{statistic}{_suffix(window)}"
            for window in (*windows, None)
            for statistic in ("events", "mean_value", "positive_rate")
        }
    )


def _suffix(window: int | None) -> str:
    return "" if window is None else f"_{window}d"


def _statistics_columns(entity: str, statistics: WindowStatistics) -> FeatureColumns:
    columns = FeatureColumns()
    for window, counts in statistics.events.items():
        columns.arrays[f"{entity}_events{_suffix(window)}"] = pa.array(counts)
        for name, values in (
            ("mean_value", statistics.mean_value[window]),
            ("positive_rate", statistics.positive_rate[window]),
        ):
            columns.arrays[f"{entity}_{name}{_suffix(window)}"] = pa.array(values, from_pandas=True)
    columns.arrays[f"{entity}_first_event"] = pa.array(statistics.first_event).cast(_TIME)
    columns.arrays[f"{entity}_last_event"] = pa.array(statistics.last_event).cast(_TIME)
    return columns


def _extend_vocabularies(repository: Path, *tables: FeatureColumns) -> None:
    vocabularies = Vocabularies.of_repository(repository)
    for columns in tables:
        for name, array in columns.arrays.items():
            if array.type == pa.string() and name != "item_text":
                vocabularies.extend(name, array.drop_null().unique().to_pylist())
    vocabularies.save()


def _repeated(events: Interactions) -> int:
    rows = pd.DataFrame(
        {"user": events.user_ids, "item": events.item_ids, "time": events.times, "value": events.values}
    )
    return int(rows.duplicated().sum())


def _by_table(items: Mapping[str, Any], users: Mapping[str, Any]) -> dict[str, Any]:
    return {f"items.{name}": value for name, value in items.items()} | {
        f"users.{name}": value for name, value in users.items()
    }


class _Writer:
    """Writes all views beside their places and moves them there together, once all of them are whole."""

    def __init__(self, folder: Path, created: datetime) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._created = pa.scalar(_instant(created)).cast(pa.int64())
        self._files: dict[str, pq.ParquetWriter] = {}
        self._rows: dict[str, int] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> _Writer:
        self._temporary = Path(
            self._cleanup.enter_context(tempfile.TemporaryDirectory(dir=self._folder, prefix=".build-"))
        )
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._cleanup.close()

    def write(
        self, view: str, key: str, ids: NDArray[Any], times: NDArray[np.int64], columns: FeatureColumns
    ) -> None:
        """Append rows to `view`; the same columns at every call."""
        fields = [
            pa.field(key, pa.string()),
            pa.field("event_timestamp", _TIME),
            pa.field("created_timestamp", _TIME),
        ]
        for name, array in columns.arrays.items():
            description = columns.descriptions.get(name)
            fields.append(pa.field(name, array.type, metadata=description and {"description": description}))
        table = pa.table(
            [
                pa.array(ids, pa.string()),
                pa.array(times).cast(_TIME),
                pa.array(np.full(len(ids), self._created.as_py(), np.int64)).cast(_TIME),
                *columns.arrays.values(),
            ],
            schema=pa.schema(fields),
        )
        if view not in self._files:
            self._files[view] = pq.ParquetWriter(self._temporary / f"{view}.parquet", table.schema)
            self._rows[view] = 0
        self._files[view].write_table(table)
        self._rows[view] += len(table)

    def publish(self) -> dict[str, int]:
        """Move the files to their places; return the rows of each view."""
        for view, file in self._files.items():
            file.close()
            (self._temporary / f"{view}.parquet").replace(self._folder / f"{view}.parquet")
        self._files.clear()
        return dict(self._rows)
