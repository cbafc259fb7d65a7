"""A Feast repository over the world, and the filling of its online store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmarks.request_path.redis_server import redis_server
from benchmarks.request_path.world import World
from explorank.retrieval.features import FeatureAccess

PROJECT: Final = "request_path"
_ROWS_AT_ONCE: Final = 20_000
_COLUMNAR: Final = "explorank.retrieval.columnar_store.ColumnarOnlineStore"
_BEGIN: Final = pd.Timestamp("2026-01-01", tz="UTC")
_DEFINITIONS: Final = '''\
"""Features of the request-path benchmark."""

from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Array, Float32, String
from feast.value_type import ValueType

DATA = Path(__file__).resolve().parent / "data"
FOREVER = timedelta(days=36500)


def view(name: str, entity: Entity) -> FeatureView:
    path = DATA / f"{name}.parquet"
    others = {entity.join_key, "event_timestamp"}
    names = [column for column in pq.read_schema(path).names if column not in others]
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[Field(name=each, dtype=Array(String) if each == "history_items" else Float32) for each in names],
        source=FileSource(name=f"{name}_rows", path=str(path), timestamp_field="event_timestamp"),
        ttl=FOREVER,
    )


item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
items = view("items", item)
users = view("users", user)
histories = view("histories", user)
item_v1 = FeatureService(name="item_v1", features=[items])
user_v1 = FeatureService(name="user_v1", features=[users])
user_history_v1 = FeatureService(name="user_history_v1", features=[histories])
'''


def serving_store(backing: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `online_store` section of Explorank's own repository, over the store that both share."""
    return {"type": _COLUMNAR, "backing": dict(backing)}


@contextmanager
def shared_store(world: World, kind: str) -> Iterator[Mapping[str, Any]]:
    """Yield the `online_store` section that all contestants share, while its server runs."""
    if kind == "sqlite":
        yield {"type": "sqlite", "path": str(world.folder / "online_store.db")}
        return
    with redis_server(world.folder / "redis") as port:
        yield {"type": "redis", "connection_string": f"localhost:{port}"}


def write_repository(world: World, folder: Path, online_store: Mapping[str, Any]) -> FeatureAccess:
    """Write the repository into `folder` with `online_store` as its section of that name, and apply it."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name, frame in _frames(world, world.size.items):
        frame.to_parquet(data / f"{name}.parquet")
    settings = {
        "project": PROJECT,
        "provider": "local",
        "registry": {"path": str(data / "registry.db"), "cache_ttl_seconds": 600},
        "online_store": dict(online_store),
        "offline_store": {"type": "duckdb"},
        "entity_key_serialization_version": 3,
    }
    # Each JSON document is a YAML document too.
    (folder / "feature_store.yaml").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "features.py").write_text(_DEFINITIONS, encoding="utf-8")
    access = FeatureAccess(folder)
    access.apply()
    return access


def fill(world: World, access: FeatureAccess) -> None:
    """Write every row of the world into the repository's online store."""
    for name, frame in _frames(world, _ROWS_AT_ONCE):
        access.store.write_to_online_store(name, frame)


def is_filled(world: World, access: FeatureAccess) -> bool:
    """Return whether the online store holds what `fill` writes last."""
    return bool(access.user(world.user_ids[-1]).history)


def _frames(world: World, rows_at_once: int) -> Iterator[tuple[str, pd.DataFrame]]:
    for start in range(0, world.size.items, rows_at_once):
        part = slice(start, start + rows_at_once)
        frame = pd.DataFrame(world.item_features[part], columns=world.item_names)
        yield "items", frame.assign(item_id=world.item_ids[part], event_timestamp=_BEGIN)
    frame = pd.DataFrame(world.user_features, columns=world.user_names)
    yield "users", frame.assign(user_id=world.user_ids, event_timestamp=_BEGIN)
    histories = [[world.item_ids[row] for row in history] for history in world.histories]
    frame = pd.DataFrame({"history_items": histories, "user_id": world.user_ids})
    yield "histories", frame.assign(event_timestamp=_BEGIN)
