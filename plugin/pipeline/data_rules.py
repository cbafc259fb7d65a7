"""The rules for the tables that people bring, declared as a schema, and which rows break which.

The schema is pandera's (Bantilan, *pandera: Statistical Data Validation of Pandas Dataframes*, 2020).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.retrieval.features.tables import (
    MICROSECONDS,
    microseconds,
    require_columns,
    text_ids,
    unreadable_ids,
    unreadable_times,
    unreadable_values,
)
from explorank.settings import DataSettings

TableName: TypeAlias = Literal["interactions", "items", "users"]

_DAY: Final = 86_400 * MICROSECONDS


@dataclass(slots=True)
class Found:
    """The rules of one table, each with its meaning and the rows that break it, (n,)."""

    table: TableName
    frame: pd.DataFrame
    bad: dict[str, tuple[str, NDArray[np.bool_]]] = field(default_factory=dict)
    notes: dict[str, tuple[str, NDArray[np.bool_]]] = field(default_factory=dict)


def look_over_catalogue(table: TableName, key: str, frame: pd.DataFrame, rules: DataSettings) -> Found:
    """Look over a table that has a row for each `key`; raise `InvalidTable` where it has no such column."""
    require_columns(frame, table, (key,))
    found = Found(table, frame)
    readable = pd.DataFrame({key: _ids(frame[key])}, index=range(len(frame)))
    checks: dict[str, tuple[str, Any]] = {
        "missing id": (
            f"`{key}` is a text that is not empty, or a whole number",
            lambda rows: rows[key].notna(),
        ),
        "repeated id": (
            f"each `{key}` stands in the table once; the first row is kept",
            lambda rows: _first(rows[key]),
        ),
    }
    if "available_from" in frame:
        given = frame["available_from"].notna().to_numpy(bool)
        readable["available_from"] = _times(frame["available_from"])
        readable["given"] = given
        checks["unreadable time"] = (
            "`available_from`, where it is given, is a time",
            lambda rows: rows["available_from"].notna() | ~rows["given"],
        )
    for column, (low, high) in _ranges(table, rules, frame).items():
        readable[column] = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        checks[f"{column} out of range"] = (
            f"`{column}`, where it is a number, lies between {low:g} and {high:g}",
            lambda rows, column=column, low=low, high=high: (
                rows[column].isna() | rows[column].between(low, high)
            ),
        )
    found.bad = _broken(readable, checks)
    if table == "items":
        text = next((name for name in ("text", "title") if name in frame), None)
        if text is not None:
            empty = (frame[text].fillna("").astype(str).str.strip() == "").to_numpy(bool)
            found.notes["no text"] = ("retrieval by content cannot find an item without a text", empty)
    return found


def look_over_interactions(
    frame: pd.DataFrame,
    items: pd.DataFrame | None,
    users: pd.DataFrame | None,
    rules: DataSettings,
    now: float,
    positive_from: float | None,
) -> Found:
    """Look over interactions, beside the tables of items and users where there are any; raise as `check_tables`."""
    require_columns(frame, "interactions", ("user_id", "item_id", "timestamp"))
    found = Found("interactions", frame)
    times = _times(frame["timestamp"])
    readable = pd.DataFrame(
        {
            "user_id": _ids(frame["user_id"]),
            "item_id": _ids(frame["item_id"]),
            "time": times,
            "value": 1.0 if "value" not in frame else _values(frame["value"]),
        },
        index=range(len(frame)),
    )
    low = -np.inf if rules.value_from is None else rules.value_from
    high = np.inf if rules.value_to is None else rules.value_to
    latest = (now + rules.future_s) * MICROSECONDS
    checks: dict[str, tuple[str, Any]] = {
        "missing id": (
            "`user_id` and `item_id` are texts that are not empty, or whole numbers",
            lambda rows: rows["user_id"].notna() & rows["item_id"].notna(),
        ),
        "unreadable time": (
            "`timestamp` is a datetime, ISO 8601 text or seconds since 1970 (divide milliseconds by 1000)",
            lambda rows: rows["time"].notna(),
        ),
        "unreadable value": ("`value` is a finite number", lambda rows: rows["value"].notna()),
        "value out of range": (
            f"`value` lies between {low:g} and {high:g}",
            lambda rows: rows["value"].isna() | rows["value"].between(low, high),
        ),
        "time travel: future": (
            f"nothing happens later than {rules.future_s:g} s from now",
            lambda rows: ~(rows["time"] > latest),
        ),
        "burst": (
            f"nobody interacts more than {rules.burst_events} times within {rules.burst_s:g} s; what lies in such a "
            "window is put aside",
            lambda rows: ~_crowded(rows, rules.burst_events, int(rules.burst_s * MICROSECONDS)),
        ),
        "bot": (
            f"nobody interacts more than {rules.day_events:,} times within a day; all of such a user is put aside",
            lambda rows: (
                ~rows["user_id"].isin(rows["user_id"][_crowded(rows, rules.day_events, _DAY)].unique())
            ),
        ),
    }
    if rules.repeats == "aside":
        checks["repeated"] = (
            "no row equals an earlier one in user, item, time and value; the first is kept",
            lambda rows: ~rows.duplicated(["user_id", "item_id", "time", "value"]) | rows["user_id"].isna(),
        )
    known = None if items is None or "item_id" not in items else _available(items)
    if known is not None:
        checks["time travel: before the item"] = (
            "nobody interacts with an item before its `available_from`",
            lambda rows: ~(rows["time"] < rows["item_id"].map(known).astype(np.float64)),
        )
    found.bad = _broken(readable, checks)
    if items is not None and "item_id" in items:
        found.notes["unknown item"] = (
            "interactions with items that the catalogue lacks count for their users and in histories",
            _unknown(readable["item_id"], items["item_id"]),
        )
    if users is not None:
        found.notes["unknown user"] = (
            "interactions of users whom the table of users lacks are used; its columns are missing for them",
            _unknown(readable["user_id"], users["user_id"]),
        )
    liked = (readable["value"] >= (np.inf if positive_from is None else positive_from)).to_numpy(bool)
    if liked.all() and readable["value"].nunique() > 1:
        found.notes["all liked"] = (
            f"every value reaches `features.positive_from`, {positive_from:g}, so that all counts as liked; set that "
            "to the value from which an interaction is",
            liked,
        )
    backwards = np.zeros(len(times), bool)
    backwards[1:] = np.diff(times) < 0
    if backwards.any() and not _ordered_by_user(readable):
        found.notes["out of order"] = (
            "rows are put in order of time; ties keep the order of the table",
            backwards,
        )
    return found


def _broken(
    readable: pd.DataFrame, checks: Mapping[str, tuple[str, Any]]
) -> dict[str, tuple[str, NDArray[np.bool_]]]:
    """Return the rows that break each rule, by what pandera finds when it looks at all of them."""
    import pandera.pandas as pa  # noqa: PLC0415 - an extra, and a second of imports

    schema = pa.DataFrameSchema(
        checks=[pa.Check(check, error=rule, ignore_na=False) for rule, (_, check) in checks.items()]
    )
    try:
        schema.validate(readable, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
    else:
        return {}
    broken = {}
    for rule, (meaning, _) in checks.items():
        rows = cases.loc[cases["check"] == rule, "index"].dropna().astype(np.int64).unique()
        if len(rows):
            mask = np.zeros(len(readable), bool)
            mask[rows] = True
            broken[rule] = (meaning, mask)
    return broken


def _ids(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return readable ids as texts, others as missing."""
    bad = unreadable_ids(column)
    ids = np.full(len(column), None, object)
    ids[~bad] = text_ids(column[~bad], "", "")
    return pd.Series(ids, index=range(len(column)), dtype=object)


def _times(column: pd.Series[Any]) -> NDArray[np.float64]:
    """Return readable times as microseconds, others as NaN; exact to the microsecond until the year 2255."""
    bad = unreadable_times(column)
    times = np.full(len(column), np.nan)
    times[~bad] = microseconds(column[~bad], "", "")
    return times


def _values(column: pd.Series[Any]) -> NDArray[np.float64]:
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return np.where(unreadable_values(column), np.nan, values)


def _first(ids: pd.Series[Any]) -> pd.Series[bool]:
    return ~ids.duplicated() | ids.isna()


def _ranges(table: TableName, rules: DataSettings, frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    prefix = f"{table}."
    named = {
        name.removeprefix(prefix): ends for name, ends in rules.ranges.items() if name.startswith(prefix)
    }
    return {column: ends for column, ends in named.items() if column in frame}


def _unknown(ids: pd.Series[Any], table: pd.Series[Any]) -> NDArray[np.bool_]:
    """Return which readable ids, (n,), the column `table` lacks."""
    return (ids.notna() & ~ids.isin(set(_ids(table).dropna()))).to_numpy(bool)


def _available(items: pd.DataFrame) -> dict[str, float] | None:
    if "available_from" not in items:
        return None
    ids, times = _ids(items["item_id"]).to_numpy(object), _times(items["available_from"])
    known = [
        (item, time)
        for item, time in zip(ids, times.tolist(), strict=True)
        if item is not None and math.isfinite(time)
    ]
    return dict(reversed(known))  # of a repeated id the first row counts


def _ordered_by_user(readable: pd.DataFrame) -> bool:
    """Say whether the table is in order of time for each user, as one that is sorted by user is."""
    backwards = readable["time"].groupby(readable["user_id"], sort=False).diff() < 0
    return not bool(backwards.any())


def _crowded(rows: pd.DataFrame, most: int, window: int) -> Any:
    """Return which rows lie in some window of `window` µs with more than `most` rows of their user.

    (n,), as a series of booleans.
    """
    known = (rows["user_id"].notna() & rows["time"].notna()).to_numpy(bool)
    places = np.flatnonzero(known)
    users, _ = pd.factorize(rows["user_id"].to_numpy(object)[places])
    times = rows["time"].to_numpy()[places].astype(np.int64)
    order = np.lexsort((times, users))
    users, times = users[order], times[order]
    crowded = np.zeros(len(rows), bool)
    if len(times) <= most:
        return pd.Series(crowded, rows.index)
    # Who is `most` rows further on, is of the same user and within the window, has too many before them.
    far = most + np.arange(len(times) - most)
    begins = (users[far] == users[: len(far)]) & (times[far] - times[: len(far)] < window)
    changes = np.zeros(len(times) + 1, np.int64)
    changes[:-1][: len(far)] += begins
    changes[far + 1] -= begins
    crowded[places[order]] = np.cumsum(changes)[:-1] > 0
    return pd.Series(crowded, rows.index)
