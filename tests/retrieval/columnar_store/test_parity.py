"""The columnar store answers what Feast's own SQLite store answers, value by value and type by type."""

from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureView
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

KEYS = ["a", "b", "c", "nobody", "a"]
TYPES = [
    "int32",
    "int64",
    "float32",
    "float64",
    "boolean",
    "text",
    "raw",
    "moment",
    "json",
    "mapping",
    "int32_list",
    "int64_list",
    "float32_list",
    "float64_list",
    "boolean_list",
    "text_list",
    "raw_list",
    "moment_list",
]


def values_of(name: str) -> list[Any]:
    """Three values of a type, the last one missing."""
    moments = [datetime(2026, 1, day, 3, 4, 5, tzinfo=UTC) for day in (1, 2)]
    scalars: dict[str, list[Any]] = {
        "int32": [-7, 2**31 - 1],
        "int64": [2**53, -1],
        "float32": [0.1, -3.5],
        "float64": [0.1, 1e300],
        "boolean": [True, False],
        "text": ["x" * 200, ""],
        "raw": [b"\x00\xff", b"x"],
        "moment": moments,
        "json": ['{"a": [1, 2]}', "[]"],
        "mapping": [{"a": "1"}, {"b": "2", "c": "3"}],
    }
    if name.endswith("_list"):
        pair = scalars[name.removesuffix("_list")]
        return [pair, [pair[0]], None]
    return [*scalars[name], None]


@pytest.fixture(scope="module")
def pair(make: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same rows of every type, in Feast's own store and in the columnar one."""
    stores = []
    for kind in ("plain", "columnar"):
        folder = tmp_path_factory.mktemp(kind)
        store = getattr(make, kind)(folder)
        features = {**make.SCALARS, **make.LISTS}
        store.apply([make.item_entity(), make.view_of(folder, features)])
        columns = {name: pd.Series(values_of(name), dtype=object) for name in features}
        store.write_to_online_store("facts", make.rows(["a", "b", "c"], columns))
        stores.append(store)
    return stores[0], stores[1]


def ask(store: Any, names: list[str]) -> Any:
    return store.get_online_features(
        features=[f"facts:{name}" for name in names], entity_rows=[{"item_id": key} for key in KEYS]
    )


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("stamped", [False, True])
def test_every_type_in_every_form(pair: tuple[Any, Any], name: str, stamped: bool) -> None:
    plain, columnar = (ask(store, [name]) for store in pair)
    assert columnar.to_dict(stamped) == plain.to_dict(stamped)
    pd.testing.assert_frame_equal(columnar.to_df(stamped), plain.to_df(stamped))
    try:
        expected = plain.to_arrow(stamped)
    except pa.ArrowException as error:
        with pytest.raises(type(error)):
            columnar.to_arrow(stamped)
    else:
        assert columnar.to_arrow(stamped).equals(expected)


@pytest.mark.parametrize("keys", [["c"], ["nobody"], ["a", "b"], ["b", "c"]])
def test_columns_without_and_with_missing_values_have_feasts_types(
    pair: tuple[Any, Any], make: ModuleType, keys: list[str]
) -> None:
    plain, columnar = (
        store.get_online_features(
            features=[f"facts:{name}" for name in make.SCALARS if name not in {"json", "mapping"}],
            entity_rows={"item_id": keys},
        )
        for store in pair
    )
    frame, expected = columnar.to_df(), plain.to_df()
    pd.testing.assert_frame_equal(frame[sorted(frame)], expected[sorted(expected)])
    ours, theirs = columnar.to_arrow(), plain.to_arrow()
    assert ours.select(sorted(ours.column_names)).equals(theirs.select(sorted(theirs.column_names)))


def test_messages_hold_the_same_values_and_times(pair: tuple[Any, Any]) -> None:
    plain, columnar = (ask(store, TYPES).proto for store in pair)
    ours = dict(zip(columnar.metadata.feature_names.val, columnar.results, strict=True))
    theirs = dict(zip(plain.metadata.feature_names.val, plain.results, strict=True))
    assert ours.keys() == theirs.keys()
    for name, vector in theirs.items():
        assert list(ours[name].values) == list(vector.values)
        assert list(ours[name].event_timestamps) == list(vector.event_timestamps)
    # Feast's store calls a null PRESENT.
    assert list(ours["int64"].statuses) == [
        FieldStatus.PRESENT,
        FieldStatus.PRESENT,
        FieldStatus.NULL_VALUE,
        FieldStatus.NOT_FOUND,
        FieldStatus.PRESENT,
    ]


async def test_awaited_answers_are_the_same(pair: tuple[Any, Any]) -> None:
    names = [f"facts:{name}" for name in TYPES]
    answer = await pair[1].get_online_features_async(features=names, entity_rows={"item_id": KEYS})
    assert answer.to_dict() == ask(pair[1], TYPES).to_dict()


def test_a_changed_answer_does_not_change_the_next_one(pair: tuple[Any, Any]) -> None:
    answer = ask(pair[1], ["int64_list", "mapping"]).to_dict()
    answer["int64_list"][0].append(1)
    answer["mapping"][0]["a"] = "changed"
    answer["item_id"].clear()
    assert (
        ask(pair[1], ["int64_list", "mapping"]).to_dict() == ask(pair[0], ["int64_list", "mapping"]).to_dict()
    )


def test_full_names_services_aliases_and_mapped_keys(make: ModuleType, tmp_path: Path) -> None:
    answers = []
    for kind in ("plain", "columnar"):
        folder = tmp_path / kind
        folder.mkdir()
        store = getattr(make, kind)(folder)
        view = make.view_of(folder, {"price": Float64, "stock": Int64})
        service = FeatureService(
            name="pairs",
            features=[
                view[["price"]].with_name("left").with_join_key_map({"item_id": "left_id"}),
                view.with_name("right").with_join_key_map({"item_id": "right_id"}),
            ],
        )
        store.apply([make.item_entity(), view, service])
        store.write_to_online_store("facts", make.rows(["a", "b"], {"price": [1.0, 2.0], "stock": [3, 4]}))
        entities = [{"left_id": "a", "right_id": "b"}, {"left_id": "b", "right_id": "x"}]
        answers.append(
            store.get_online_features(
                features=service, entity_rows=entities, full_feature_names=True
            ).to_dict()
        )
    assert answers[0] == answers[1]
    assert answers[1]["left__price"] == [1.0, 2.0]
    assert answers[1]["right__stock"] == [4, None]


@pytest.mark.parametrize("kind", [ValueType.INT64, ValueType.INT32, ValueType.BYTES])
def test_keys_of_other_types(make: ModuleType, tmp_path: Path, kind: ValueType) -> None:
    keys = [b"\x00", b"b", b"c"] if kind == ValueType.BYTES else [1, 2, 3]
    store = make.columnar(tmp_path)
    store.apply(
        [
            make.item_entity(kind),
            make.view_of(tmp_path, {"price": Float64}, entities=[make.item_entity(kind)]),
        ]
    )
    store.write_to_online_store("facts", make.rows(keys[:2], {"price": [1.0, 2.0]}))
    assert make.read(store, "facts:price", keys=keys) == {"item_id": keys, "price": [1.0, 2.0, None]}
    if kind != ValueType.BYTES:
        answer = store.get_online_features(
            features=["facts:price"], entity_rows={"item_id": np.array(keys, np.int64)}
        )
        assert answer.to_dict()["price"] == [1.0, 2.0, None]


def test_composite_keys_and_views_without_entities(make: ModuleType, tmp_path: Path) -> None:
    answers = []
    for kind in ("plain", "columnar"):
        folder = tmp_path / kind
        folder.mkdir()
        store = getattr(make, kind)(folder)
        shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.INT64)
        both = make.view_of(folder, {"stock": Int64}, name="both", entities=[shop, make.item_entity()])
        world = make.view_of(folder, {"rate": Float64}, name="world")
        world = FeatureView(name="world", entities=[], schema=world.schema, source=world.batch_source)
        alone = make.view_of(folder, {"name": String}, name="alone")
        store.apply([shop, make.item_entity(), both, world, alone])
        frame = make.rows(["a", "a", "b"], {"shop_id": [1, 2, 1], "stock": [10, 20, 30]})
        store.write_to_online_store("both", frame)
        # As Feast materialises such a view; `write_to_online_store` forgets the key.
        key = EntityKey(join_keys=[DUMMY_ENTITY_ID], entity_values=[Value(string_val=DUMMY_ENTITY_VAL)])
        row = (key, {"rate": make.number(0.5)}, make.NOW, None)
        store._get_provider().online_write_batch(store.config, store.get_feature_view("world"), [row], None)
        store.write_to_online_store("alone", make.rows(["a"], {"name": ["Anna"]}))
        entities = [
            {"item_id": "a", "shop_id": 2},
            {"item_id": "b", "shop_id": 1},
            {"item_id": "b", "shop_id": 2},
        ]
        answers.append(
            store.get_online_features(
                features=["both:stock", "world:rate", "alone:name"], entity_rows=entities
            ).to_dict()
        )
    assert answers[1] == answers[0]
    assert answers[1]["stock"] == [20, 30, None]
    assert answers[1]["rate"] == [0.5, 0.5, 0.5]
    assert answers[1]["name"] == ["Anna", None, None]


def test_requests_out_of_shape_are_refused_as_feast_refuses_them(pair: tuple[Any, Any]) -> None:
    for entity_rows in (
        [{"item_id": "a"}, {"other": "b"}],
        {"item_id": ["a"], "nothing": [1, 2]},
        [{"nothing": 1}],
    ):
        raised = []
        for store in pair:
            with pytest.raises(Exception) as error:  # noqa: PT011 - whatever Feast raises
                store.get_online_features(features=["facts:int64"], entity_rows=entity_rows)
            raised.append(type(error.value))
        assert raised[0] is raised[1]


def test_rows_are_read_through_feasts_own_interface(pair: tuple[Any, Any]) -> None:
    keys = [
        EntityKey(join_keys=["item_id"], entity_values=[Value(string_val=key)])
        for key in ("b", "nobody", "c")
    ]
    answers = []
    for store in pair:
        view = store.get_feature_view("facts")
        answers.append(store._get_provider().online_read(store.config, view, keys, ["text", "int64"]))
    plain, columnar = answers
    # Feast's store returns all features, whatever is asked for.
    assert [moment for moment, _ in columnar] == [moment for moment, _ in plain]
    assert columnar[0][1] == {name: plain[0][1][name] for name in ("text", "int64")}
    assert columnar[1] == (None, None)
    assert columnar[2][1] == {name: Value() for name in ("text", "int64")}
    assert columnar[0][0] == datetime(2026, 3, 1, 12, tzinfo=UTC)
