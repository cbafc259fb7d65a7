"""Which items there are: the table that somebody brings, or what the feature repository holds."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pandas as pd

from explorank.errors import DataError
from explorank.pipeline.features import feature_access
from explorank.pipeline.tables import read_table
from explorank.retrieval.features.tables import text_ids
from explorank.settings import Settings


def item_table(settings: Settings, items: Path | None, until: datetime | None = None) -> pd.DataFrame:
    """Return `item_id`, `text`, `popularity`, `first_seen` of the table at `items`, or of the feature repository's."""
    return _of_repository(settings, until) if items is None else _of_table(read_table(items), items)


def _of_table(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    text = next((name for name in ("text", "title") if name in table), None)
    if "item_id" not in table or text is None:
        raise DataError(
            f"{path} lacks `item_id`, or `text` (or `title`); it has {', '.join(map(str, table.columns))}. A catalogue "
            "needs an id and a text for each item: rename the columns."
        )
    return pd.DataFrame(
        {
            "item_id": text_ids(table["item_id"], "items", "item_id"),
            "text": table[text].fillna("").astype(str),
            "popularity": table.get("popularity", 0.0),
            "first_seen": table.get("first_seen", float("nan")),
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
    first_event = newest["item_first_event"].fillna(pd.Series(content["event_timestamp"].array, newest.index))
    return pd.DataFrame(
        {
            "item_id": content["item_id"].to_numpy(),
            "text": content["item_text"].fillna("").to_numpy(),
            "popularity": newest["item_events"].fillna(0).to_numpy(dtype=float),
            "first_seen": first_event.array.as_unit("us").asi8 / 1e6,
        }
    )
