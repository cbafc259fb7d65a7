"""Small Feast repositories, with the columnar store and with the store behind it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.types import (
    Array,
    Bool,
    Bytes,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    String,
    UnixTimestamp,
)
from feast.value_type import ValueType

from explorank.retrieval.columnar_store import ColumnarOnlineStore

CLASS_PATH = "explorank.retrieval.columnar_store.ColumnarOnlineStore"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

SCALARS: dict[str, FeastType] = {
    "int32": Int32,
    "int64": Int64,
    "float32": Float32,
    "float64": Float64,
    "boolean": Bool,
    "text": String,
    "raw": Bytes,
    "moment": UnixTimestamp,
    "json": Json,
    "mapping": Map,
}
LISTS: dict[str, FeastType] = {
    f"{name}_list": Array(kind) for name, kind in SCALARS.items() if name not in {"json", "mapping"}
}


def open_repository(folder: Path, online_store: Mapping[str, Any]) -> FeatureStore:
    """Return Feast over a registry in `folder`."""
    return FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=dict(online_store),
            offline_store={"type": "duckdb"},
            entity_key_serialization_version=3,
        )
    )


def plain(folder: Path) -> FeatureStore:
    """Return Feast with its own SQLite store over the file that `columnar` has behind it."""
    return open_repository(folder, {"type": "sqlite", "path": str(folder / "online.db")})


def columnar(folder: Path, **settings: Any) -> FeatureStore:
    """Return Feast with the columnar store over a SQLite file."""
    backing = {"type": "sqlite", "path": str(folder / "online.db")}
    return open_repository(folder, {"type": CLASS_PATH, "backing": backing, **settings})


def online_store(store: FeatureStore) -> ColumnarOnlineStore:
    """Return the columnar store of a repository."""
    found: ColumnarOnlineStore = store._get_provider().online_store
    return found


def item_entity(kind: ValueType = ValueType.STRING) -> Entity:
    """Return an entity with the join key `item_id`."""
    return Entity(name="item", join_keys=["item_id"], value_type=kind)


def view_of(
    folder: Path,
    features: Mapping[str, FeastType],
    *,
    name: str = "facts",
    entities: Sequence[Entity] = (),
    ttl: timedelta | None = None,
) -> FeatureView:
    """Return a view whose source need not exist."""
    return FeatureView(
        name=name,
        entities=list(entities or [item_entity()]),
        ttl=ttl,
        schema=[Field(name=feature, dtype=kind) for feature, kind in features.items()],
        source=FileSource(path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp"),
    )


def rows(keys: Sequence[Any], columns: Mapping[str, Sequence[Any]], at: datetime = NOW) -> pd.DataFrame:
    """Return rows to write, all of one moment."""
    stamps = pd.to_datetime([at] * len(keys)).as_unit("us")
    return pd.DataFrame({"item_id": list(keys), **columns, "event_timestamp": stamps})


def write(
    store: FeatureStore, view: FeatureView, key: str, at: datetime = NOW, **values: Value | None
) -> None:
    """Write one row through the online store's own interface; `None` is a null."""
    store._get_provider().online_write_batch(
        store.config,
        view,
        [
            (
                EntityKey(join_keys=["item_id"], entity_values=[Value(string_val=key)]),
                {name: value or Value() for name, value in values.items()},
                at,
                None,
            )
        ],
        None,
    )


def number(value: float) -> Value:
    """Return a double as Feast's message."""
    return Value(double_val=value)


def read(store: FeatureStore, *features: str, keys: Sequence[Any], **options: Any) -> dict[str, list[Any]]:
    """Return features of items as `to_dict` has them."""
    answer: dict[str, list[Any]] = store.get_online_features(
        features=list(features), entity_rows=[{"item_id": key} for key in keys], **options
    ).to_dict()
    return answer


def statuses(store: FeatureStore, *features: str, keys: Sequence[Any]) -> dict[str, list[int]]:
    """Return the statuses of features of items."""
    message = store.get_online_features(
        features=list(features), entity_rows=[{"item_id": key} for key in keys]
    ).proto
    return {
        name: list(vector.statuses)
        for name, vector in zip(message.metadata.feature_names.val, message.results, strict=True)
    }
