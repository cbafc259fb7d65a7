"""What is written to SQLite is what Feast's own store would write, whole batches at a time, beside any other writer."""

import os
import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import DoubleList, FloatList, Int64List, Value
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp

from explorank.retrieval.columnar_store.writers import sqlite as sqlite_writer

MANY = 2 * sqlite_writer._MANY_ROWS
TRIGGERS = {f"explorank_{event}_shop_facts" for event in ("insert", "update", "delete", "newest")}


@pytest.fixture
def store(make: ModuleType, tmp_path: Path) -> Any:
    """A store with the view `facts` of a price."""
    store = make.columnar(tmp_path)
    store.apply([make.item_entity(), make.view_of(tmp_path, {"price": Float64})])
    return store


def batch(
    make: ModuleType, prices: Mapping[str, float], seconds: float = 0.0
) -> list[tuple[EntityKey, dict[str, Value], Any, Any]]:
    return [
        (
            EntityKey(join_keys=["item_id"], entity_values=[Value(string_val=key)]),
            {"price": make.number(price)},
            make.NOW + timedelta(seconds=seconds),
            None,
        )
        for key, price in prices.items()
    ]


def write(store: Any, rows: list[Any], progress: Any = None) -> None:
    view = store.get_feature_view("facts")
    store._get_provider().online_write_batch(store.config, view, rows, progress)


def ask(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "online.db") as database:
        rows = database.execute(query).fetchall()
    database.close()
    return rows


def triggers(folder: Path) -> set[str]:
    names = {name for (name,) in ask(folder, "SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    return names - {"explorank_changes_bound"}


@pytest.mark.parametrize("rows", [3, MANY])
@pytest.mark.parametrize(
    "settings", [{}, {"enable_openai_compatible_store": True}, {"vector_enabled": True}], ids=str
)
def test_the_table_is_the_one_that_feasts_own_store_would_have(
    make: ModuleType, tmp_path: Path, rows: int, settings: dict[str, Any]
) -> None:
    kinds = {
        "price": Float64, "share": Float32, "stock": Int64, "sold": Bool, "name": String, "since": UnixTimestamp,
    }  # fmt: skip
    messages = [
        {
            "price": Value(double_val=number / 3),
            "share": Value(float_val=number / 7),
            "stock": Value(int64_val=-number),
            "sold": Value(bool_val=number % 2 == 0),
            "name": Value(string_val="ä" * (number % 5)),
            "since": Value(unix_timestamp_val=1_700_000_000 + number),
        }
        for number in range(rows)
    ]
    if settings.get("vector_enabled"):
        kinds["place"] = Array(Float32)
        for number, values in enumerate(messages):
            values["place"] = Value(float_list_val=FloatList(val=[number, -1.5] * 256))
    else:
        kinds |= {"lately": Array(Float64), "seen": Array(Int64)}
        for values in messages:
            values["lately"] = Value(double_list_val=DoubleList(val=[0.5]))
            values["seen"] = Value(int64_list_val=Int64List(val=[1, 2]))
    messages[1]["price"] = Value()
    data = [
        (
            EntityKey(join_keys=["item_id"], entity_values=[Value(string_val=f"item-{number}")]),
            values,
            make.NOW + timedelta(seconds=number, microseconds=987_654),
            make.NOW if number % 2 else None,
        )
        for number, values in enumerate(messages)
    ]
    tables = []
    for kind in ("plain", "columnar"):
        folder = tmp_path / kind
        folder.mkdir()
        backing = {"type": "sqlite", "path": str(folder / "online.db"), **settings}
        store = make.open_repository(
            folder, backing if kind == "plain" else {"type": make.CLASS_PATH, "backing": backing}
        )
        view = make.view_of(folder, kinds)
        store.apply([make.item_entity(), view])
        provider = store._get_provider()
        provider.online_write_batch(store.config, view, data, None)
        provider.online_write_batch(store.config, view, data[::-1], None)
        tables.append(ask(folder, "SELECT * FROM shop_facts ORDER BY entity_key, feature_name"))
    assert len(tables[0]) == rows * len(kinds)
    assert tables[1] == tables[0]


def test_a_large_batch_is_noted_as_a_whole_and_leaves_the_notice_of_others_as_it_was(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    keys = [f"item-{number}" for number in range(MANY)]
    write(store, batch(make, dict.fromkeys(keys, 1.0)))
    assert make.read(store, "facts:price", keys=keys)["price"] == [1.0] * MANY
    memory = make.online_store(store)._columns(store.config)
    write(make.columnar(tmp_path), batch(make, dict.fromkeys(keys, 2.0)))
    memory.catch_up()
    assert make.read(store, "facts:price", keys=keys)["price"] == [2.0] * MANY
    assert triggers(tmp_path) == TRIGGERS
    write(make.plain(tmp_path), batch(make, {"item-7": 3.0}))
    memory.catch_up()
    assert make.read(store, "facts:price", keys=["item-6", "item-7"])["price"] == [2.0, 3.0]


def test_a_plain_writer_that_has_its_statement_ready_is_still_bound_after_a_large_batch(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    plain = make.plain(tmp_path)
    write(plain, batch(make, {"item-0": 1.0}))
    keys = [f"item-{number}" for number in range(MANY)]
    write(store, batch(make, dict.fromkeys(keys, 2.0), seconds=10))
    write(plain, batch(make, {"item-0": 1.5}, seconds=9))
    memory = make.online_store(store)._columns(store.config)
    memory.catch_up()
    assert make.read(store, "facts:price", keys=["item-0"])["price"] == [2.0]
    write(plain, batch(make, {"item-0": 2.5}, seconds=11))
    memory.catch_up()
    assert make.read(store, "facts:price", keys=["item-0"])["price"] == [2.5]


@pytest.mark.parametrize("seed", range(2))
def test_whoever_writes_in_whatever_order_the_newest_event_stays(
    store: Any, make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Batches of one to five rows, above and below the size from which triggers are taken out."""
    monkeypatch.setattr(sqlite_writer, "_MANY_ROWS", 3)
    rng = np.random.default_rng(seed)
    writers = [store, make.columnar(tmp_path), make.plain(tmp_path)]
    keys = [f"item-{number}" for number in range(6)]
    expected: dict[str, tuple[int, float]] = {}
    memory = make.online_store(store)._columns(store.config)
    for step in range(40):
        chosen = rng.permutation(keys)[: rng.integers(1, 6)]
        rows = []
        for key in chosen:
            second = int(rng.integers(20))
            rows += batch(make, {str(key): float(step)}, seconds=second)
            if second >= expected.get(key, (0, 0.0))[0]:
                expected[key] = (second, float(step))
        write(writers[rng.integers(3)], rows)
        memory.catch_up()
        found = make.read(store, "facts:price", keys=keys)["price"]
        assert found == [expected.get(key, (0, None))[1] for key in keys]


def test_rows_older_than_what_is_in_store_are_left_out_of_a_large_batch(store: Any, make: ModuleType) -> None:
    write(store, batch(make, {"item-3": 9.0}, seconds=0.5))
    done: list[int] = []
    prices = dict.fromkeys((f"item-{number}" for number in range(MANY)), 1.0)
    write(store, batch(make, prices, seconds=0.4), done.append)
    assert make.read(store, "facts:price", keys=["item-2", "item-3"])["price"] == [1.0, 9.0]
    assert sum(done) == MANY


@pytest.mark.parametrize("rows", [3, MANY])
def test_a_batch_that_fails_half_way_leaves_nothing(
    store: Any, make: ModuleType, tmp_path: Path, rows: int
) -> None:
    write(store, batch(make, {"item-0": 1.0}))
    left = iter(range(rows - 1))

    def stop(_: int) -> None:
        next(left)

    keys = [f"item-{number}" for number in range(rows)]
    with pytest.raises((StopIteration, RuntimeError)):
        write(store, batch(make, dict.fromkeys(keys, 2.0)), stop)
    assert make.read(store, "facts:price", keys=keys)["price"] == [1.0] + [None] * (rows - 1)
    assert triggers(tmp_path) == TRIGGERS
    write(store, batch(make, dict.fromkeys(keys, 3.0)))
    assert make.read(store, "facts:price", keys=keys)["price"] == [3.0] * rows


def test_a_process_that_dies_within_a_large_batch_leaves_nothing(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    write(store, batch(make, {"item-0": 1.0}))
    keys = [f"item-{number}" for number in range(MANY)]
    done: list[int] = []

    def die(_: int) -> None:
        done.append(1)
        if len(done) == MANY - 1:
            os._exit(9)

    child = os.fork()
    if child == 0:
        try:
            write(store, batch(make, dict.fromkeys(keys, 2.0)), die)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    memory = make.online_store(store)._columns(store.config)
    memory.catch_up()
    assert make.read(store, "facts:price", keys=keys)["price"] == [1.0] + [None] * (MANY - 1)
    assert triggers(tmp_path) == TRIGGERS
    write(make.plain(tmp_path), batch(make, {"item-0": 4.0}))
    memory.catch_up()
    assert make.read(store, "facts:price", keys=["item-0"])["price"] == [4.0]


def test_a_file_that_another_process_made_anew_is_written_to(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    """Feast's own store would go on writing to the file that is gone."""
    write(store, batch(make, {"item-0": 1.0}))
    other = make.columnar(tmp_path)
    other.teardown()
    other.apply([make.item_entity(), make.view_of(tmp_path, {"price": Float64})])
    write(store, batch(make, {"item-1": 2.0}))
    assert make.read(other, "facts:price", keys=["item-0", "item-1"])["price"] == [None, 2.0]
    assert make.read(store, "facts:price", keys=["item-0", "item-1"])["price"] == [None, 2.0]


def test_a_view_without_a_table_is_told_as_feast_tells_it(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    other = make.view_of(tmp_path, {"price": Float64}, name="other")
    provider = store._get_provider()
    with pytest.raises(sqlite3.OperationalError, match=r"no such table: (main\.)?shop_other"):
        provider.online_write_batch(store.config, other, batch(make, {"item-0": 1.0}), None)
    write(store, batch(make, {"item-0": 1.0}))
    assert make.read(store, "facts:price", keys=["item-0"])["price"] == [1.0]
