"""Over a real Redis: a stream carries what this class writes, a sweep finds the rest."""

from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float64, Int64, String, UnixTimestamp

pytest.importorskip("redis")


def over_redis(make: ModuleType, folder: Any, port: int, **settings: Any) -> Any:
    backing = {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
    return make.open_repository(folder, {"type": make.CLASS_PATH, "backing": backing, **settings})


@pytest.fixture
def store(make: ModuleType, tmp_path: Any, redis_port: int) -> Any:
    """A store with the view `facts`."""
    store = over_redis(make, tmp_path, redis_port)
    store.apply([make.item_entity(), make.view_of(tmp_path, {"price": Float64, "stock": Int64})])
    return store


def plain(make: ModuleType, folder: Any, port: int) -> Any:
    return make.open_repository(folder, {"type": "redis", "connection_string": f"127.0.0.1:{port}"})


def test_values_are_those_of_feasts_own_store(make: ModuleType, tmp_path: Any, redis_port: int) -> None:
    features = {"price": Float64, "name": String, "moment": UnixTimestamp, "tags": Array(String)}
    store = over_redis(make, tmp_path, redis_port)
    store.apply([make.item_entity(), make.view_of(tmp_path, features)])
    columns = {
        "price": [1.5, None],
        "name": ["é", None],
        "moment": [make.NOW, None],
        "tags": [["x", "y"], None],
    }
    store.write_to_online_store("facts", make.rows(["a", "b"], columns))
    names = [f"facts:{name}" for name in features]
    expected = make.read(plain(make, tmp_path, redis_port), *names, keys=["a", "b", "none"])
    assert make.read(store, *names, keys=["a", "b", "none"]) == expected
    assert expected["tags"] == [["x", "y"], None, None]


def test_newest_wins_and_of_equally_new_ones_the_last(store: Any, make: ModuleType) -> None:
    view = store.get_feature_view("facts")
    for seconds, price in ((2, 2.0), (1, 1.0), (2, 3.0), (0, 0.0)):
        make.write(store, view, "a", make.NOW + timedelta(seconds=seconds), price=make.number(price))
    assert make.read(store, "facts:price", keys=["a"])["price"] == [3.0]


def test_another_process_is_told_through_the_stream(
    store: Any, make: ModuleType, tmp_path: Any, redis_port: int
) -> None:
    view = store.get_feature_view("facts")
    make.write(store, view, "a", price=make.number(1.0))
    assert make.read(store, "facts:price", keys=["a", "b"])["price"] == [1.0, None]
    other = over_redis(make, tmp_path, redis_port)
    make.write(other, view, "a", make.NOW + timedelta(seconds=1), price=make.number(2.0))
    make.write(other, view, "b", price=make.number(3.0))
    make.online_store(store)._columns(store.config).catch_up()
    assert make.read(store, "facts:price", keys=["a", "b"])["price"] == [2.0, 3.0]
    other.apply([], objects_to_delete=[view], partial=False)
    make.online_store(store)._columns(store.config).catch_up()
    assert make.online_store(store).report(store.config).views == {}


def test_a_reader_that_missed_entries_reads_everything_anew(
    store: Any, make: ModuleType, tmp_path: Any, redis_port: int
) -> None:
    view = store.get_feature_view("facts")
    make.write(store, view, "a", price=make.number(1.0))
    assert make.read(store, "facts:price", keys=["a"])["price"] == [1.0]
    other = over_redis(make, tmp_path, redis_port)
    for seconds in (1, 2):
        make.write(other, view, "a", make.NOW + timedelta(seconds=seconds), price=make.number(float(seconds)))
        make.write(other, view, "b", make.NOW + timedelta(seconds=seconds), price=make.number(float(seconds)))
    source = make.online_store(store)._columns(store.config).source
    source._client.xtrim(source._stream, maxlen=1, approximate=False)
    make.online_store(store)._columns(store.config).catch_up()
    assert make.read(store, "facts:price", keys=["a", "b"])["price"] == [2.0, 2.0]


def test_a_sweep_finds_what_plain_writers_wrote_and_what_was_deleted(
    store: Any, make: ModuleType, tmp_path: Any, redis_port: int
) -> None:
    view = store.get_feature_view("facts")
    for key in ("a", "b"):
        make.write(store, view, key, price=make.number(1.0), stock=Value(int64_val=1))
    assert make.read(store, "facts:price", keys=["a", "b", "c"])["price"] == [1.0, 1.0, None]
    writer = plain(make, tmp_path, redis_port)
    make.write(writer, view, "a", make.NOW + timedelta(seconds=1), price=make.number(2.0))
    make.write(writer, view, "c", price=make.number(3.0))
    memory = make.online_store(store)._columns(store.config)
    [key] = [key for key in memory.source._client.scan_iter() if b"\x00b" in key or key.find(b"bshop") > 0]
    memory.source._client.delete(key)
    memory._next_sweep = 0.0
    while memory.round() is not None:
        pass
    assert make.read(store, "facts:price", keys=["a", "b", "c"])["price"] == [2.0, None, 3.0]


def test_teardown_forgets_everything(store: Any, make: ModuleType) -> None:
    view = store.get_feature_view("facts")
    make.write(store, view, "a", price=make.number(1.0))
    assert make.read(store, "facts:price", keys=["a"])["price"] == [1.0]
    store.teardown()
    store.apply([make.item_entity(), view])
    assert make.read(store, "facts:price", keys=["a"])["price"] == [None]


async def test_awaited_reads_and_writes(store: Any, make: ModuleType) -> None:
    view = store.get_feature_view("facts")
    rows = store._get_provider()._prep_rows_to_write_for_ingestion(
        view, make.rows(["a"], {"price": [1.5], "stock": [2]})
    )
    await store._get_provider().online_write_batch_async(store.config, view, rows, None)
    answer = await store.get_online_features_async(
        features=["facts:price", "facts:stock"], entity_rows={"item_id": ["a", "none"]}
    )
    assert answer.to_dict() == {"item_id": ["a", "none"], "price": [1.5, None], "stock": [2, None]}
    await store.close()
    assert make.read(store, "facts:stock", keys=["a"])["stock"] == [2]
