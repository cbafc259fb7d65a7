"""The array door gives the numbers that Feast's answers give, whatever happens to the rows meanwhile."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from feast import Entity
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType
from numpy.typing import NDArray

from explorank.retrieval.errors import FeatureRepositoryError

FEATURES = {
    "price": Float64,
    "stock": Int64,
    "size": Int32,
    "weight": Float32,
    "sold": Bool,
    "shelf": String,
    "since": UnixTimestamp,
}
CODES = {"left": 0.0, "right": 1.0}


def codes(feature: str, texts: Sequence[str | None]) -> NDArray[np.float32]:
    assert feature == "shelf"
    return np.array([CODES.get(text or "", np.nan) for text in texts], np.float32)


@pytest.fixture
def store(make: ModuleType, tmp_path: Path) -> Any:
    """Two views of items: many types, and prices of yesterday that live for an hour."""
    store = make.columnar(tmp_path)
    facts = make.view_of(tmp_path, FEATURES)
    offers = make.view_of(tmp_path, {"offer": Float64}, name="offers", ttl=timedelta(hours=1))
    store.apply([make.item_entity(), facts, offers])
    columns = {
        "price": [1.1, 2.2, None],
        "stock": [2**40 + 1, -3, None],
        "size": [7, 8, None],
        "weight": [0.1, 0.2, None],
        "sold": [True, False, None],
        "shelf": ["left", "nowhere", None],
        "since": [make.NOW, make.NOW - timedelta(days=2), None],
    }
    store.write_to_online_store("facts", make.rows(["a", "b", "c"], columns))
    store.write_to_online_store("offers", make.rows(["a", "c"], {"offer": [10.0, 30.0]}))
    return store


def matrix(store: Any, make: ModuleType, names: Sequence[str] = tuple(FEATURES)) -> Any:
    views = [
        (store.get_feature_view("facts"), names),
        (store.get_feature_view("offers"), ["offer"]),
    ]
    return make.online_store(store).matrix(store.config, views, codes)


KEYS = ["b", "a", "nobody", "c", "a"]


def test_numbers_codes_and_ages(store: Any, make: ModuleType) -> None:
    gathered = matrix(store, make).gather(KEYS, make.NOW.timestamp() + 1_800)
    hour = 1 / 24
    nan = np.nan
    expected = np.array(
        [
            [2.2, -3, 8, 0.2, 0, nan, 2 + hour / 2, nan],
            [1.1, 2**40 + 1, 7, 0.1, 1, 0, hour / 2, 10],
            [nan] * 8,
            [nan] * 7 + [30],
            [1.1, 2**40 + 1, 7, 0.1, 1, 0, hour / 2, 10],
        ],
        np.float32,
    )
    assert gathered.values.dtype == np.float32
    np.testing.assert_array_equal(gathered.values, expected)
    assert gathered.found.tolist() == [
        [True, False],
        [True, True],
        [False, False],
        [True, True],
        [True, True],
    ]
    assert gathered.alive.tolist() == gathered.found.tolist()


def test_expired_rows_are_missing_and_said_to_be_there(store: Any, make: ModuleType) -> None:
    gathered = matrix(store, make).gather(["a"], make.NOW.timestamp() + 3_601)
    assert np.isnan(gathered.values[0, -1])
    assert gathered.values[0, 0] == np.float32(1.1)
    assert (gathered.found.tolist(), gathered.alive.tolist()) == ([[True, True]], [[True, False]])


@pytest.mark.parametrize("names", [("weight", "price"), ("shelf",), ("since", "stock", "since"), ()])
def test_any_choice_and_order_of_features(store: Any, make: ModuleType, names: tuple[str, ...]) -> None:
    everything = matrix(store, make).gather(KEYS, make.NOW.timestamp()).values
    chosen = matrix(store, make, names).gather(KEYS, make.NOW.timestamp()).values
    columns = [*(list(FEATURES).index(name) for name in names), -1]
    np.testing.assert_array_equal(chosen, everything[:, columns])


def test_known_keys_find_what_keys_find_also_rows_that_come_later(store: Any, make: ModuleType) -> None:
    gatherer = matrix(store, make)
    catalogue = ["a", "b", "c", "later", "nobody"]
    known = gatherer.known(len(catalogue), lambda places: [catalogue[place] for place in places.tolist()])
    positions = np.array([4, 3, 0, 0, 2, 1])
    now = make.NOW.timestamp()

    def equal() -> NDArray[np.float32]:
        by_position = gatherer.gather_known(known, positions, now)
        assert by_position is not None
        by_key = gatherer.gather([catalogue[position] for position in positions], now)
        np.testing.assert_array_equal(by_position.values, by_key.values)
        np.testing.assert_array_equal(by_position.found, by_key.found)
        values: NDArray[np.float32] = by_position.values
        return values

    assert np.isnan(equal()[1]).all()
    memory = make.online_store(store)._columns(store.config)
    assert memory.round() is None  # all is looked up, those that are not there included
    assert np.isnan(equal()[1]).all()
    make.write(store, store.get_feature_view("facts"), "later", price=make.number(4.0))
    assert equal()[1, 0] == 4.0
    make.online_store(store)._columns(store.config).close()  # all is loaded anew, under other numbers
    assert equal()[1, 0] == 4.0


def test_new_rows_texts_and_types_are_taken_up(store: Any, make: ModuleType) -> None:
    gatherer = matrix(store, make)
    now = make.NOW.timestamp()
    assert gatherer.gather(["b"], now).values[0, 5].item() is not None
    view = store.get_feature_view("facts")
    make.write(store, view, "b", price=make.number(9.0), shelf=Value(string_val="right"))
    row = gatherer.gather(["b"], now).values[0]
    assert (row[0], row[5]) == (9.0, 1.0)
    make.write(store, view, "b", price=Value(string_val="dear"), stock=Value(int64_val=4))
    row = gatherer.gather(["a", "b"], now).values
    # A number that is no number is missing; so is the column, as Feast's messages can't tell it either.
    assert np.isnan(row[:, 0]).all()
    assert row[1, 1] == 4.0


def test_views_of_different_entities_are_refused(store: Any, make: ModuleType, tmp_path: Path) -> None:
    shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.INT64)
    other = make.view_of(tmp_path, {"rate": Float64}, name="rates", entities=[shop])
    with pytest.raises(FeatureRepositoryError, match="'facts', 'rates' have different join keys"):
        make.online_store(store).matrix(
            store.config, [(store.get_feature_view("facts"), ["price"]), (other, ["rate"])], codes
        )


def test_composite_keys(make: ModuleType, tmp_path: Path) -> None:
    shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.INT64)
    store = make.columnar(tmp_path)
    view = make.view_of(tmp_path, {"stock": Int64}, entities=[shop, make.item_entity()])
    store.apply([shop, make.item_entity(), view])
    store.write_to_online_store("facts", make.rows(["a", "a"], {"shop_id": [1, 2], "stock": [10, 20]}))
    gatherer = make.online_store(store).matrix(store.config, [(view, ["stock"])], codes)
    assert gatherer.gather([("a", 2), ("a", 1)], 0.0).values.tolist() == [[20.0], [10.0]]


def test_gathering_beside_a_writer_gives_whole_rows(store: Any, make: ModuleType) -> None:
    """Price and stock are written as the same number."""
    gatherer = matrix(store, make, ("price", "stock"))
    view = store.get_feature_view("facts")
    make.write(store, view, "a", price=make.number(0.0), stock=Value(int64_val=0))
    stopped = threading.Event()
    torn: list[Any] = []

    def read() -> None:
        while not stopped.is_set():
            values = gatherer.gather(["a", "a"], make.NOW.timestamp()).values
            if not (values[:, 0] == values[:, 1]).all():
                torn.append(values)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for step in range(50):
        make.write(store, view, "a", price=make.number(float(step)), stock=Value(int64_val=step))
    stopped.set()
    for reader in readers:
        reader.join()
    assert not torn


def test_a_single_row_with_its_lists(make: ModuleType, tmp_path: Path) -> None:
    store = make.columnar(tmp_path)
    view = make.view_of(
        tmp_path, {"seen": Array(String), "missed": Array(String), "price": Float64}, ttl=timedelta(hours=1)
    )
    store.apply([make.item_entity(), view])
    now = datetime.now(UTC).replace(microsecond=0)
    store.write_to_online_store(
        "facts", make.rows(["a"], {"seen": [["x", "y"]], "missed": [None], "price": [1.0]}, now)
    )
    online = make.online_store(store)

    reader = online.row_reader(store.config, view, ["seen", "missed", "price"])
    assert reader.lists("a", now.timestamp()) == (True, {"seen": ["x", "y"]})
    assert reader.lists("a", now.timestamp() + 3_600.5) == (True, None)
    assert reader.lists("b", now.timestamp()) == (False, None)
