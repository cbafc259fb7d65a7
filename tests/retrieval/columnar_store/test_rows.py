"""Which rows are answered: by age, by time, by definition of the view, by who wrote them."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from feast import FeatureView, Field
from feast.errors import FeatureViewNotFoundException
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String

PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 2, 3, 4


@pytest.fixture
def store(make: ModuleType, tmp_path: Path) -> Any:
    """A store with the view `facts`: a price and a stock, without a ttl."""
    store = make.columnar(tmp_path)
    store.apply([make.item_entity(), make.view_of(tmp_path, {"price": Float64, "stock": Int64})])
    return store


def test_an_expired_row_has_no_values_and_says_so(make: ModuleType, tmp_path: Path) -> None:
    store = make.columnar(tmp_path)
    view = make.view_of(tmp_path, {"price": Float64, "stock": Int64}, ttl=timedelta(hours=1))
    store.apply([make.item_entity(), view])
    now = datetime.now(UTC)
    make.write(store, view, "old", now - timedelta(minutes=61), price=make.number(1.0), stock=None)
    make.write(store, view, "new", now - timedelta(minutes=59), price=make.number(2.0), stock=None)
    keys = ["old", "new", "none"]
    names = ("facts:price", "facts:stock")
    assert make.read(store, *names, keys=keys)["price"] == [None, 2.0, None]
    found = make.statuses(store, *names, keys=keys)
    assert found["price"] == [OUTSIDE_MAX_AGE, PRESENT, NOT_FOUND]
    assert found["stock"] == [OUTSIDE_MAX_AGE, NULL_VALUE, NOT_FOUND]
    frame = store.get_online_features(features=list(names), entity_rows={"item_id": keys}).to_df(
        include_event_timestamps=True
    )
    assert frame["price__ts"].iloc[0] == int((now - timedelta(minutes=61)).timestamp())
    assert frame["price__ts"].iloc[2] == 0


def test_ttl_can_be_left_to_feast(make: ModuleType, tmp_path: Path) -> None:
    store = make.columnar(tmp_path, enforce_ttl=False)
    view = make.view_of(tmp_path, {"price": Float64}, ttl=timedelta(hours=1))
    store.apply([make.item_entity(), view])
    make.write(store, view, "old", make.NOW - timedelta(days=9), price=make.number(1.0))
    assert make.read(store, "facts:price", keys=["old"])["price"] == [1.0]


def test_the_newest_event_stays_whatever_is_written_after_it(store: Any, make: ModuleType) -> None:
    view = store.get_feature_view("facts")
    for hours, price in ((2, 2.0), (1, 1.0), (3, 3.0), (0, 0.0)):
        make.write(store, view, "a", make.NOW + timedelta(hours=hours), price=make.number(price), stock=None)
    assert make.read(store, "facts:price", keys=["a"])["price"] == [3.0]


def test_the_newest_event_stays_within_a_second_and_after_a_restart(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    """Feast's SQLite store keeps whole seconds only."""
    view = store.get_feature_view("facts")
    for micros, price in ((500, 5.0), (300, 3.0)):
        make.write(store, view, "a", make.NOW + timedelta(microseconds=micros), price=make.number(price))
    assert make.read(store, "facts:price", keys=["a"])["price"] == [5.0]
    other = make.columnar(tmp_path)
    for micros, price in ((400, 4.0), (500, 5.5)):
        make.write(other, view, "a", make.NOW + timedelta(microseconds=micros), price=make.number(price))
    assert make.read(make.columnar(tmp_path), "facts:price", keys=["a"])["price"] == [5.5]
    make.write(other, view, "a", make.NOW + timedelta(microseconds=499), price=make.number(4.9))
    assert make.read(make.columnar(tmp_path), "facts:price", keys=["a"])["price"] == [5.5]


def test_times_of_rows_that_are_gone_do_not_count(store: Any, make: ModuleType, tmp_path: Path) -> None:
    view = store.get_feature_view("facts")
    make.write(store, view, "a", make.NOW + timedelta(microseconds=9), price=make.number(9.0))
    with sqlite3.connect(tmp_path / "online.db") as database:
        database.execute("DELETE FROM shop_facts")
    database.close()
    make.write(store, view, "a", make.NOW + timedelta(microseconds=1), price=make.number(1.0))
    assert make.read(store, "facts:price", keys=["a"])["price"] == [1.0]


def test_of_equally_new_rows_the_one_written_last_stays(store: Any, make: ModuleType) -> None:
    view = store.get_feature_view("facts")
    for price in (1.0, 2.0):
        make.write(store, view, "a", price=make.number(price), stock=None)
    assert make.read(store, "facts:price", keys=["a"])["price"] == [2.0]


def test_within_one_write_too_and_within_one_second(store: Any, make: ModuleType) -> None:
    moments = [make.NOW + timedelta(microseconds=step) for step in (300, 100, 200)]
    frame = pd.concat(
        make.rows(["a"], {"price": [float(n)], "stock": [n]}, at) for n, at in enumerate(moments)
    )
    told: list[int] = []
    store.write_to_online_store("facts", frame)
    assert make.read(store, "facts:stock", keys=["a"])["stock"] == [0]
    view = store.get_feature_view("facts")
    rows = store._get_provider()._prep_rows_to_write_for_ingestion(view, frame)
    store._get_provider().online_write_batch(store.config, view, rows, told.append)
    assert sum(told) == 3


def test_an_older_row_of_a_plain_writer_does_not_replace_a_newer_one(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    make.write(store, store.get_feature_view("facts"), "a", price=make.number(2.0), stock=None)
    plain = make.plain(tmp_path)
    view = plain.get_feature_view("facts")
    make.write(plain, view, "a", make.NOW - timedelta(hours=1), price=make.number(1.0), stock=None)
    assert make.read(plain, "facts:price", keys=["a"])["price"] == [2.0]
    make.online_store(store)._columns(store.config).catch_up()
    assert make.read(store, "facts:price", keys=["a"])["price"] == [2.0]


def test_a_feature_that_was_added_is_not_found_until_it_is_written(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    view = store.get_feature_view("facts")
    make.write(store, view, "a", price=make.number(1.0), stock=Value(int64_val=5))
    assert make.read(store, "facts:stock", keys=["a"])["stock"] == [5]
    wider = make.view_of(tmp_path, {"price": Float64, "stock": Int64, "name": String})
    store.apply([wider])
    assert make.statuses(store, "facts:price", "facts:name", keys=["a"])["name"] == [NOT_FOUND]
    assert make.read(store, "facts:price", "facts:name", keys=["a"]) == {
        "item_id": ["a"],
        "price": [1.0],
        "name": [None],
    }
    make.write(store, store.get_feature_view("facts"), "a", name=Value(string_val="Anna"))
    assert make.read(store, "facts:price", "facts:name", keys=["a"])["name"] == ["Anna"]


def test_readers_of_an_earlier_definition_are_answered_too(
    store: Any, make: ModuleType, tmp_path: Path
) -> None:
    """Registries are cached: for a while some ask for a feature that others no longer know."""
    earlier = store.get_feature_view("facts")
    make.write(store, earlier, "a", price=make.number(1.0), stock=Value(int64_val=5))
    later = make.view_of(tmp_path, {"price": Float64, "name": String})
    store.apply([later])
    make.write(
        store, store.get_feature_view("facts"), "b", price=make.number(2.0), name=Value(string_val="B")
    )
    online = make.online_store(store)

    def table() -> Any:
        [space] = online._columns(store.config)._spaces.values()
        return space.tables["shop_facts"]

    key = EntityKey(join_keys=["item_id"], entity_values=[Value(string_val="a")])
    for _ in range(2):
        [(_, row)] = online.online_read(store.config, earlier, [key], ["stock"])
        assert row == {"stock": Value(int64_val=5)}
        assert make.read(store, "facts:name", keys=["b"])["name"] == ["B"]
        first = table()
    assert table() is first


def test_rows_of_another_type_than_declared_are_answered_as_they_were_written(
    store: Any, make: ModuleType
) -> None:
    view = store.get_feature_view("facts")
    make.write(store, view, "a", price=make.number(1.5), stock=Value(int64_val=5))
    make.write(store, view, "b", price=Value(string_val="dear"), stock=Value(double_val=0.5))
    found = make.read(store, "facts:price", "facts:stock", keys=["a", "b", "c"])
    assert found == {"item_id": ["a", "b", "c"], "price": [1.5, "dear", None], "stock": [5, 0.5, None]}


def test_a_dropped_view_is_gone_and_begins_empty_again(store: Any, make: ModuleType, tmp_path: Path) -> None:
    other = make.view_of(tmp_path, {"price": Float64}, name="other")
    store.apply([other])
    for name in ("facts", "other"):
        view = store.get_feature_view(name)
        make.write(store, view, "a", price=make.number(1.0))
        assert make.read(store, f"{name}:price", keys=["a"])["price"] == [1.0]
    store.apply([], objects_to_delete=[store.get_feature_view("facts")], partial=False)
    with pytest.raises(FeatureViewNotFoundException):
        make.read(store, "facts:price", keys=["a"])
    assert make.read(store, "other:price", keys=["a"])["price"] == [1.0]
    store.apply([make.view_of(tmp_path, {"price": Float64, "stock": Int64})])
    assert make.read(store, "facts:price", keys=["a"])["price"] == [None]


def test_after_teardown_everything_begins_anew(store: Any, make: ModuleType, tmp_path: Path) -> None:
    view = store.get_feature_view("facts")
    make.write(store, view, "a", price=make.number(1.0), stock=None)
    assert make.read(store, "facts:price", keys=["a"])["price"] == [1.0]
    store.teardown()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("online.db")]
    with pytest.raises(sqlite3.OperationalError):
        make.online_store(store).online_read(store.config, view, [])
    store.apply([make.item_entity(), make.view_of(tmp_path, {"price": Float64, "stock": Int64})])
    assert make.read(store, "facts:price", keys=["a"])["price"] == [None]


def test_on_demand_views_compute_from_the_columns(store: Any, make: ModuleType) -> None:
    view = store.get_feature_view("facts")

    @on_demand_feature_view(sources=[view], schema=[Field(name="worth", dtype=Float64)], mode="python")
    def worth(inputs: dict[str, Any]) -> dict[str, Any]:
        return {
            "worth": [
                None if price is None or stock is None else price * stock
                for price, stock in zip(inputs["price"], inputs["stock"], strict=True)
            ]
        }

    with pytest.warns(RuntimeWarning, match="experimental"):
        store.apply([worth])
    make.write(store, view, "a", price=make.number(1.5), stock=Value(int64_val=4))
    found = make.read(store, "facts:price", "worth:worth", keys=["a", "b", "a"])
    assert found["price"] == [1.5, None, 1.5]
    assert found["worth"] == [6.0, None, 6.0]


def test_version_metadata_is_what_feast_has(store: Any, make: ModuleType) -> None:
    message = store.get_online_features(
        features=["facts:price"], entity_rows={"item_id": ["a"]}, include_feature_view_version_metadata=True
    ).proto
    assert [view.name for view in message.metadata.feature_view_metadata] == ["facts"]


def test_unwise_settings_are_refused(make: ModuleType, tmp_path: Path) -> None:
    for settings, message in (
        ({"backing": {"type": make.CLASS_PATH}}, "columnar store itself"),
        ({"backing": {"type": "sqlite", "pth": "x"}}, "pth"),
        ({"freshness_s": 0}, "freshness_s"),
        ({"memory_limit": 1}, "memory_limit"),
    ):
        with pytest.raises(ValueError, match=message):
            make.open_repository(tmp_path, {"type": make.CLASS_PATH, **settings})


def test_a_repository_can_change_from_the_plain_store_and_back(make: ModuleType, tmp_path: Path) -> None:
    plain = make.plain(tmp_path)
    view = make.view_of(tmp_path, {"price": Float64})
    plain.apply([make.item_entity(), view])
    make.write(plain, view, "a", price=make.number(1.0))
    columnar = make.columnar(tmp_path)
    assert make.read(columnar, "facts:price", keys=["a"])["price"] == [1.0]
    make.write(columnar, view, "b", price=make.number(2.0))
    assert isinstance(view, FeatureView)
    assert make.read(make.plain(tmp_path), "facts:price", keys=["a", "b"])["price"] == [1.0, 2.0]
