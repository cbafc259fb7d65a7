"""Turns the extra columns of a table into typed feature columns."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from explorank.retrieval.errors import InvalidTable

MOST_LIST_VALUES: Final = 50
"""A column of lists becomes one 0/1 column for each of its most frequent values, at most this many."""
MOST_CATEGORIES: Final = 100
"""A text column with more distinct values says who, not what; it is left out and named in the report."""
LEAST_NUMERIC_SHARE: Final = 0.9
"""A text column is read as numbers if at least this share of its values are numbers."""


@dataclass(slots=True)
class FeatureColumns:
    """Feature columns of n rows, and what could not be taken over."""

    arrays: dict[str, pa.Array] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    bad_numbers: dict[str, int] = field(default_factory=dict)
    """Column: how many of its values are no finite numbers and became missing."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Column: why it became no feature, or which part of it did not."""

    def add(self, name: str, array: pa.Array, description: str) -> None:
        """Add a column; raise `InvalidTable` where another column has become a feature of that name."""
        if name in self.arrays:
            raise InvalidTable(
                f"Two columns become the feature {name!r} ({self.descriptions[name]!r} and {description!r}); "
                "one would hide the other. Rename one of them."
            )
        self.arrays[name] = array
        self.descriptions[name] = description


def feature_columns(frame: pd.DataFrame, prefix: str) -> FeatureColumns:
    """Return the columns of `frame` as features named `{prefix}_{column}`.

    Numbers and booleans become numbers; datetimes stay times; lists become 0/1 columns of their most frequent values,
    unless they hold fractions, as vectors do; texts are numbers if most of them are, categories if they are few, else
    left out.
    """
    result = FeatureColumns()
    for column in frame.columns:
        _add(result, str(column), frame[column], feature_name(prefix, str(column)))
    return result


def feature_name(prefix: str, column: str) -> str:
    """Return a name of lower-case letters, digits and single underscores that begins with `prefix`."""
    name = _slug(column)
    return name if name.startswith(f"{prefix}_") else f"{prefix}_{name}"


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "_", text.lower()).strip("_") or "unnamed"


def _add(result: FeatureColumns, column: str, values: pd.Series[Any], name: str) -> None:
    present = values.dropna()
    if present.empty:
        result.left_out[column] = "it has no values"
    elif pd.api.types.is_datetime64_any_dtype(values):
        times = pd.to_datetime(values, utc=True).dt.as_unit("us")
        result.add(name, pa.array(times, pa.timestamp("us", "UTC")), f"Column {column!r}, a time.")
    elif pd.api.types.is_bool_dtype(present.infer_objects()):
        flags = values.astype("boolean").astype("Float32")
        result.add(name, pa.array(flags, pa.float32()), f"Column {column!r}, 1 for true.")
    elif pd.api.types.is_numeric_dtype(values) or _mostly_numbers(present):
        _add_numbers(result, column, values, name)
    elif isinstance(present.iloc[0], (list, tuple, set, frozenset, np.ndarray)):
        _add_lists(result, column, values, name)
    else:
        _add_texts(result, column, values, name)


def _mostly_numbers(present: pd.Series[Any]) -> bool:
    if not present.map(lambda value: isinstance(value, (str, int, float))).all():
        return False
    texts = present.astype(str).str.strip()
    # A leading zero marks a code, such as a postal code, which is no quantity.
    if texts.str.match(r"0\d").any():
        return False
    return bool(pd.to_numeric(texts, errors="coerce").notna().mean() >= LEAST_NUMERIC_SHARE)


def _add_numbers(result: FeatureColumns, column: str, values: pd.Series[Any], name: str) -> None:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~np.isfinite(numbers)
    numbers = np.where(bad, np.nan, numbers)
    refused = int((bad & values.notna().to_numpy(bool)).sum())
    if refused:
        result.bad_numbers[column] = refused
    result.add(name, pa.array(numbers, pa.float64(), from_pandas=True), f"Column {column!r}, a number.")


def _add_texts(result: FeatureColumns, column: str, values: pd.Series[Any], name: str) -> None:
    texts = values.astype("string")
    distinct = texts.nunique()
    if distinct > MOST_CATEGORIES:
        result.left_out[column] = f"{distinct} distinct texts are too many for categories ({MOST_CATEGORIES})"
        return
    result.add(name, pa.array(texts, pa.string()), f"Column {column!r}, a category.")


def _add_lists(result: FeatureColumns, column: str, values: pd.Series[Any], name: str) -> None:
    lists = [
        value if isinstance(value, (list, tuple, set, frozenset, np.ndarray)) else None for value in values
    ]
    if any(_is_fraction(value) for known in lists if known is not None for value in known):
        result.left_out[column] = (
            "its lists hold fractions, as vectors do; `retrieval.modalities` takes those from a view of their own"
        )
        return
    rows = [None if known is None else {text for text in map(str, known) if text} for known in lists]
    counts = Counter(text for row in rows if row for text in row)
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    if not ranked:
        result.left_out[column] = "all its lists are empty"
        return
    if len(ranked) > MOST_LIST_VALUES:
        result.left_out[column] = (
            f"the {len(ranked) - MOST_LIST_VALUES} rarest of its {len(ranked)} list values"
        )
    # Two spellings that make one name are one feature.
    spellings: dict[str, set[str]] = {}
    for text in ranked[:MOST_LIST_VALUES]:
        spellings.setdefault(_slug(text), set()).add(text)
    for slug, texts in spellings.items():
        flags = [None if row is None else float(not texts.isdisjoint(row)) for row in rows]
        meaning = ", ".join(sorted(texts))
        result.add(
            f"{name}_{slug}", pa.array(flags, pa.float32()), f"1 where column {column!r} holds {meaning}."
        )


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and math.isfinite(value) and not float(value).is_integer()
