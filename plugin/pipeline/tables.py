"""Reads the tables people bring."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from explorank.errors import DataError
from explorank.retrieval.features import interactions_of


def read_table(path: Path) -> pd.DataFrame:
    """Return the parquet or CSV file at `path`; raise `DataError` naming it where it cannot be read."""
    try:
        if path.suffix in {".parquet", ".pq"}:
            return pd.read_parquet(path)
        if path.suffix in {".csv", ".tsv"}:
            # As text, so that an id such as 007 stays what it is.
            ids: dict[Hashable, type[str]] = {"user_id": str, "item_id": str}
            return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=ids)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path} could not be read as a table: {error}. Check the path and the file."
        ) from error
    raise DataError(f"{path} is neither .parquet nor .csv nor .tsv; convert it to one of them.")


def past_interactions(table: pd.DataFrame) -> pd.DataFrame:
    """Return checked interactions in order of time: text `user_id`, `item_id`; UTC `timestamp`; `value`.

    Raises `InvalidTable` naming column and rows for what does not fit.
    """
    events = interactions_of(table)
    return pd.DataFrame(
        {
            "user_id": events.user_ids,
            "item_id": events.item_ids,
            "timestamp": pd.to_datetime(events.times, unit="us", utc=True).as_unit("us"),
            "value": events.values,
        }
    )
