"""Over a real Redis: a stream carries what this class writes, a sweep finds the rest."""

from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from feast.types import Array, Float64, Int64, String, UnixTimestamp

pytest.importorskip("redis")


def over_redis(make: ModuleType, folder: Any, port: int, **kind: Any) -> Any:
    backing = {"type": "redis", "connection_string": f"127.0.0.1:{port}", **kind}
    return make.open_repository(folder, {"type": make.CLASS_PATH, "backing": backing})


@pytest.fixture
def store(make: ModuleType, tmp_path: Any, redis_port: int) -> Any:
    """A store with the view `facts`."""
    store = over_redis(make, tmp_path, redis_port)
    store.apply([make.item_entity(), make.view_of(tmp_path, {"price": Float64, "stock": Int64})])
    return store


def plain(make: ModuleType, folder: Any, port: int, **kind: Any) -> Any:
    return make.open_repository(folder, {"type": "redis", "connection_string": f"127.0.0.1:{port}", **kind})


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


def swept(make: ModuleType, store: Any) -> Any:
    """Sweep to the end; return the memory."""
    memory = make.online_store(store)._columns(store.config)
    memory._next_sweep = 0.0
    while memory.round() is not None:
        pass
    return memory


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_sweeps_find_what_plain_writers_wrote_and_what_was_deleted(
    store: Any, make: ModuleType, tmp_path: Any, redis_port: int, *, scripts: bool
) -> None:
    """Each of three: the first has nothing to compare with, the second finds pages changed, the third all the same."""
    view = store.get_feature_view("facts")
    keys = [f"i{number:04}" for number in range(1_500)]
    store.write_to_online_store("facts", make.rows(keys, {"price": [1.0] * 1_500, "stock": [1] * 1_500}))
    assert make.read(store, "facts:price", keys=[*keys, "new"])["price"] == [1.0] * 1_500 + [None]
    writer = plain(make, tmp_path, redis_port)
    client = make.online_store(store)._columns(store.config).source._client
    if not scripts:
        client.execute_command("ACL", "SETUSER", "default", "-@scripting")
    asked = ["i0007", "i0700", "new"]
    for time, price in ((1, 2.0), (2, 3.0)):
        make.write(writer, view, "i0007", make.NOW + timedelta(seconds=time), price=make.number(price))
        swept(make, store)
        assert make.read(store, "facts:price", keys=asked)["price"] == [price, 1.0, None]
    make.write(writer, view, "new", price=make.number(4.0))
    [deleted] = [key for key in client.scan_iter() if b"i0700" in key]
    client.delete(deleted)
    memory = swept(make, store)
    assert memory.source._scripts == scripts
    assert make.read(store, "facts:price", keys=asked)["price"] == [3.0, None, 4.0]
    assert make.read(store, "facts:stock", keys=keys)["stock"] == [
        None if key == "i0700" else 1 for key in keys
    ]


def test_a_sweep_lists_no_page_that_is_as_the_last_one_left_it(
    store: Any, make: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"i{number:04}" for number in range(1_500)]
    store.write_to_online_store("facts", make.rows(keys, {"price": [1.0] * 1_500, "stock": [1] * 1_500}))
    make.read(store, "facts:price", keys=["i0000"])
    source = swept(make, store).source
    pages: list[int] = []
    look = source.page_times

    def counted(*asked: Any) -> Any:
        page = look(*asked)
        pages.append(0 if page is None or page.keys is None else len(page.keys))
        return page

    monkeypatch.setattr(source, "page_times", counted)
    swept(make, store)
    assert len(pages) > 2
    assert sum(pages) == 0
    make.write(
        store,
        store.get_feature_view("facts"),
        "i0007",
        make.NOW + timedelta(seconds=1),
        price=make.number(2.0),
    )
    pages.clear()
    swept(make, store)
    assert 0 < sum(pages) < 1_500


def test_a_cluster_is_read_by_key_and_swept(make: ModuleType, tmp_path: Any, redis_cluster_port: int) -> None:
    """Its keys can't be walked through from one place."""
    store = over_redis(make, tmp_path, redis_cluster_port, redis_type="redis_cluster")
    store.apply([make.item_entity(), make.view_of(tmp_path, {"price": Float64})])
    view = store.get_feature_view("facts")
    make.write(store, view, "a", price=make.number(1.0))
    assert make.read(store, "facts:price", keys=["a", "b"])["price"] == [1.0, None]
    writer = plain(make, tmp_path, redis_cluster_port, redis_type="redis_cluster")
    make.write(writer, view, "a", make.NOW + timedelta(seconds=1), price=make.number(2.0))
    swept(make, store)
    assert make.read(store, "facts:price", keys=["a", "b"])["price"] == [2.0, None]


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
