"""What items are called, for people and rankers who read that: their texts, where a feature repository holds some."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Final

from explorank.artefacts import Watched
from explorank.rankers import Ranker, knowing_texts, reads_texts
from explorank.retrieval import Catalogue
from explorank.settings import Settings

_log: Final = logging.getLogger(__name__)


def item_texts(settings: Settings, item_ids: Collection[str]) -> Mapping[str, str]:
    """Return the newest text of each of `item_ids` that has one; nothing without a repository, or a readable one.

    Rows of other items are left out while the file is read, so that memory holds what is asked for.
    """
    if settings.repository_path is None or not item_ids:
        return {}
    file = settings.repository_path / "data" / "item_content.parquet"
    if not file.exists():
        return {}
    import pyarrow as pa  # noqa: PLC0415 - requests are served without it
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.read_table(
            file,
            columns=["item_id", "item_text", "event_timestamp"],
            filters=[("item_id", "in", sorted(item_ids))],
        )
    except (OSError, pa.ArrowException) as error:
        _log.warning("%s could not be read, so items are told by their ids alone: %s", file, error)
        return {}
    newest = table.sort_by("event_timestamp")
    texts = zip(newest["item_id"].to_pylist(), newest["item_text"].to_pylist(), strict=True)
    return {item: text for item, text in texts if text}


def told_of_items(settings: Settings, catalogue: Watched[Catalogue], ranker: Ranker) -> Ranker:
    """Return `ranker` knowing what the items of the catalogue that serves are called, where it reads texts."""
    items = catalogue.get()
    if items is None or not reads_texts(ranker):
        return ranker
    return knowing_texts(ranker, item_texts(settings, items.item_ids.tolist()))
