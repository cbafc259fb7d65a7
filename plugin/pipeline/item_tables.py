"""Which items there are: the table that somebody brings, or what the feature repository holds."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

import pandas as pd

from explorank.errors import DataError
from explorank.pipeline.features import feature_access
from explorank.pipeline.tables import read_table
from explorank.retrieval.features.tables import text_ids
from explorank.settings import Settings

RECENT_POPULARITY: Final = "recent_popularity"
"""The column that says how often each item was taken up lately."""


def item_table(settings: Settings, items: Path | None, until: datetime | None = None) -> pd.DataFrame:
    """Return `item_id`, `text`, `popularity`, `first_seen` of the table at `items`, or of the feature repository's.

    With `retrieval.trending` also `recent_popularity`. Raises `DataError` where a column is missing.
    """
    if items is None:
        return _of_repository(settings, until)
    return _of_table(read_table(items), items, with_recent=settings.retrieval.trending is not None)


def _of_table(table: pd.DataFrame, path: Path, *, with_recent: bool) -> pd.DataFrame:
    text = next((name for name in ("text", "title") if name in table), None)
    if "item_id" not in table or text is None:
        raise DataError(
            f"{path} lacks `item_id`, or `text` (or `title`); it has {', '.join(map(str, table.columns))}. A catalogue "
            "needs an id and a text for each item: rename the columns."
        )
    if with_recent and RECENT_POPULARITY not in table:
        raise DataError(
            f"{path} lacks `{RECENT_POPULARITY}`, and `retrieval.trending` asks for it: how often each item was "
            "taken up lately. Add the column, or set `retrieval.trending: null`."
        )
    return pd.DataFrame(
        {
            "item_id": text_ids(table["item_id"], "items", "item_id"),
            "text": table[text].fillna("").astype(str),
            "popularity": table.get("popularity", 0.0),
            "first_seen": table.get("first_seen", float("nan")),
            **({RECENT_POPULARITY: table[RECENT_POPULARITY]} if with_recent else {}),
        }
    )


def _of_repository(settings: Settings, until: datetime | None) -> pd.DataFrame:
    data = feature_access(settings).repository / "data"
    content = read_table(data / "item_content.parquet")
    statistics = read_table(data / "item_statistics.parquet")
    if until is not None:
        content = content[content["event_timestamp"] <= until]
        statistics = statistics[statistics["event_timestamp"] <= until]
    content = content.sort_values("event_timestamp", kind="stable").drop_duplicates("item_id", keep="last")
    newest = (
        statistics.sort_values("event_timestamp", kind="stable")
        .groupby("item_id")
        .last()
        .reindex(content["item_id"])
    )
    recent = {}
    if settings.retrieval.trending is not None:
        column = f"item_events_{settings.retrieval.trending.days}d"
        if column not in newest:
            windows = [str(name) for name in newest if str(name).startswith("item_events_")]
            raise DataError(
                f"`retrieval.trending.days` is {settings.retrieval.trending.days}, and the statistics of items in "
                f"{data} have no column {column!r}, so what is popular lately is not known; they have "
                f"{', '.join(windows) or 'none of that kind'}. Name one of those windows, or have `build_features` "
                "write another."
            )
        recent = {RECENT_POPULARITY: newest[column].fillna(0).to_numpy(dtype=float)}
    first_event = newest["item_first_event"].fillna(pd.Series(content["event_timestamp"].array, newest.index))
    return pd.DataFrame(
        {
            "item_id": content["item_id"].to_numpy(),
            "text": content["item_text"].fillna("").to_numpy(),
            "popularity": newest["item_events"].fillna(0).to_numpy(dtype=float),
            "first_seen": first_event.array.as_unit("us").asi8 / 1e6,
            **recent,
        }
    )
