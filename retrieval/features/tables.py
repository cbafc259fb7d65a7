"""Checks the tables that features are built from, and brings ids and times to one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.retrieval.errors import InvalidTable

MICROSECONDS: Final = 1_000_000
"""Per second: all times are int64 microseconds since the Unix epoch, UTC."""

_LATEST_SECONDS: Final = 1e11  # the year 5138; epoch milliseconds of this century lie above it


@dataclass(frozen=True, slots=True)
class Interactions:
    """Checked interactions, ordered by time; those of one instant keep their given order."""

    user_ids: NDArray[Any]  # (n,) str objects
    item_ids: NDArray[Any]  # (n,) str objects
    times: NDArray[np.int64]  # (n,) microseconds
    values: NDArray[np.float64]  # (n,)

    def __len__(self) -> int:
        return len(self.times)


def interactions_of(frame: pd.DataFrame) -> Interactions:
    """Return the checked rows of `frame`: `user_id`, `item_id`, `timestamp` and, optional, `value` (1.0).

    Raises `InvalidTable` for a missing column, an empty table, and any id, time or value that cannot be
    read; the message names the column and the first such rows.
    """
    require_columns(frame, "interactions", ("user_id", "item_id", "timestamp"))
    times = microseconds(frame["timestamp"], "interactions", "timestamp")
    order = np.argsort(times, kind="stable")
    return Interactions(
        text_ids(frame["user_id"], "interactions", "user_id")[order],
        text_ids(frame["item_id"], "interactions", "item_id")[order],
        times[order],
        _values(frame)[order],
    )


def _values(frame: pd.DataFrame) -> NDArray[np.float64]:
    if "value" not in frame:
        return np.ones(len(frame))
    refuse_rows(
        unreadable_values(frame["value"]),
        frame["value"],
        "interactions",
        "value",
        "a value must be a finite number, or means over windows are lost",
        "Correct those rows, or drop the column: each interaction then counts as 1.0",
    )
    return _numbers(frame["value"])


def _numbers(column: pd.Series[Any]) -> NDArray[np.float64]:
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def unreadable_values(column: pd.Series[Any]) -> NDArray[np.bool_]:
    """Return which values (n,) are no finite numbers."""
    return ~np.isfinite(_numbers(column))


def unreadable_ids(column: pd.Series[Any]) -> NDArray[np.bool_]:
    """Return which ids (n,) are missing, empty, or numbers that are not whole."""
    bad: NDArray[np.bool_] = column.isna().to_numpy(bool)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_bool_dtype(column):
        return np.ones(len(column), bool)
    if pd.api.types.is_float_dtype(column):
        numbers = column.to_numpy(np.float64, na_value=np.nan)
        bad |= numbers != np.floor(numbers)
        return bad
    if pd.api.types.is_integer_dtype(column):
        return bad
    known = ~bad  # comparing a missing value says neither yes nor no
    bad[known] = column.to_numpy(object)[known] == ""
    return bad


def unreadable_times(column: pd.Series[Any]) -> NDArray[np.bool_]:
    """Return which times (n,) are missing, in no known form, or numbers that cannot be seconds."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        seconds: NDArray[np.float64] = column.to_numpy(np.float64, na_value=np.nan)
        return ~(np.abs(seconds) < _LATEST_SECONDS)
    missing: NDArray[np.bool_] = _parsed(column).isna().to_numpy(bool)
    return missing


def _parsed(column: pd.Series[Any]) -> pd.Series[pd.Timestamp]:
    return pd.to_datetime(column, utc=True, errors="coerce", format=None if _is_time(column) else "ISO8601")


def require_columns(frame: pd.DataFrame, table: str, columns: tuple[str, ...]) -> None:
    """Raise `InvalidTable` unless `frame` has rows, unique column names and all of `columns`."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InvalidTable(
            f"The table of {table} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, frame.columns)) or 'none'}. No features can be built without it: rename "
            "the column that holds it, or add it."
        )
    repeated = sorted(set(frame.columns[frame.columns.duplicated()].astype(str)))
    if repeated:
        raise InvalidTable(
            f"The table of {table} has more than one column named {', '.join(map(repr, repeated))}; which "
            "one is meant can't be known. Rename or drop the others."
        )
    if frame.empty:
        raise InvalidTable(
            f"The table of {table} has no rows; there is nothing to build features from. Check how it was "
            "read or filtered."
        )


def text_ids(column: pd.Series[Any], table: str, name: str) -> NDArray[Any]:
    """Return ids as strings, (n,) objects: `12` and, from a nullable column, `12.0` both become `"12"`.

    Raises `InvalidTable` for missing and empty ids, and for numbers that are not whole.
    """
    rule = "an id must be a text that is not empty, or a whole number"
    refuse_rows(unreadable_ids(column), column, table, name, rule, "Drop those rows, or give them ids")
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_float_dtype(column):
        column = column.astype(np.int64)
    if pd.api.types.is_integer_dtype(column):
        return column.astype(str).to_numpy(object)
    kinds = {type(value) for value in column.unique()}
    ids: NDArray[Any] = np.array(
        [
            str(int(value)) if isinstance(value, (float, np.floating)) and value.is_integer() else str(value)
            for value in column.to_numpy(object)
        ]
        if kinds != {str}
        else column.to_numpy(object),
        dtype=object,
    )
    return ids


def microseconds(column: pd.Series[Any], table: str, name: str) -> NDArray[np.int64]:
    """Return times as int64 microseconds since the epoch: datetimes (naive ones are UTC), seconds, ISO text.

    Raises `InvalidTable` for missing and unreadable times, and for numbers that cannot be seconds.
    """
    bad = unreadable_times(column)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        refuse_rows(
            bad,
            column,
            table,
            name,
            "a time given as a number is in seconds since 1970; these are missing or beyond the year 5000",
            "Divide milliseconds by 1000, or pass datetimes",
        )
        seconds = column.to_numpy(np.float64, na_value=np.nan)
        times: NDArray[np.int64] = np.rint(seconds * MICROSECONDS).astype(np.int64)
        return times
    refuse_rows(
        bad,
        column,
        table,
        name,
        "a time must be a datetime, ISO 8601 text or seconds since 1970; without it nothing says what was "
        "known when",
        "Correct or drop those rows",
    )
    return np.asarray(_parsed(column).dt.as_unit("us").astype(np.int64), np.int64)


def _is_time(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_datetime64_any_dtype(column)


def refuse_rows(
    bad: NDArray[np.bool_], column: pd.Series[Any], table: str, name: str, rule: str, way_out: str
) -> None:
    """Raise `InvalidTable` naming the first rows where `bad` is true."""
    rows = np.flatnonzero(bad)
    if not len(rows):
        return
    shown = ", ".join(f"row {row}: {_plain(column.iloc[row])!r}" for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    raise InvalidTable(f"Column {name!r} of {table}, {shown}{more}: {rule}. {way_out}.")


def _plain(value: Any) -> Any:
    """Return a number as Python's own, so that a message shows `5` where numpy would say `np.int64(5)`."""
    return value.item() if isinstance(value, np.generic) else value
