"""From item texts to a catalogue: embed, index, publish."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pandas as pd

from explorank.artefacts import ArtefactStore
from explorank.assembly import CATALOGUE
from explorank.errors import DataError
from explorank.pipeline.features import feature_access
from explorank.pipeline.tables import read_table
from explorank.retrieval import Catalogue, Encoder
from explorank.retrieval.features.tables import text_ids
from explorank.settings import Settings


def build_catalogue(
    settings: Settings,
    *,
    items: Path | None = None,
    until: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[str, Catalogue]:
    """Return the published version and the catalogue of `items`, or of the feature repository's.

    `items` is a table with `item_id`, `text` (or `title`) and optionally `popularity` and `first_seen` (Unix seconds).
    `until` ignores what the repository knows of later times. Embeddings are cached by content, so that only
    new texts are encoded. Needs the extra `train`.
    """
    table = _of_repository(settings, until) if items is None else _of_table(read_table(items), items)
    encoder = Encoder(settings.retrieval.encoder, cache=settings.folder_path / "embeddings.db")
    vectors = encoder.encode(table["text"].tolist(), progress=progress)
    catalogue = Catalogue.build(
        table["item_id"].tolist(),
        vectors,
        popularity=table["popularity"].to_numpy(),
        first_seen=table["first_seen"].to_numpy(),
        encoder_name=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        kind=settings.retrieval.index.kind,
        device=settings.retrieval.index.device,
    )
    version = ArtefactStore(settings.folder_path / "artefacts").publish(CATALOGUE, catalogue.save)
    return version, catalogue


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
