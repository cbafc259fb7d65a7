"""Keys are Feast's keys: the same bytes, and the same back."""

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval.columnar_store.keys import EntityKeys, plain_values
from explorank.retrieval.columnar_store.table import KeySpace

LONG = st.integers(-(2**63), 2**63 - 1)


def feast_bytes(**values: Value) -> bytes:
    key = EntityKey(join_keys=list(values), entity_values=list(values.values()))
    return bytes(serialize_entity_key(key, entity_key_serialization_version=3))


@given(st.text())
def test_texts(value: str) -> None:
    keys = EntityKeys({"item_id": ValueType.STRING})
    stored = feast_bytes(item_id=Value(string_val=value))
    assert keys.serialize(value) == stored
    assert keys.parse(stored) == value
    assert keys.of_proto(keys.to_proto(value)) == value


@given(LONG, st.integers(-(2**31), 2**31 - 1), st.binary())
def test_numbers_and_bytes(long: int, short: int, raw: bytes) -> None:
    for kind, member, value in (
        (ValueType.INT64, "int64_val", long),
        (ValueType.INT32, "int32_val", short),
        (ValueType.UNIX_TIMESTAMP, "unix_timestamp_val", long),
        (ValueType.BYTES, "bytes_val", raw),
    ):
        keys = EntityKeys({"item_id": kind})
        stored = feast_bytes(item_id=Value(**{member: value}))
        assert keys.serialize(value) == stored
        assert keys.parse(stored) == value


@given(st.text(), LONG)
def test_composite_keys_are_in_the_order_of_their_names(text: str, number: int) -> None:
    keys = EntityKeys({"shop": ValueType.STRING, "item": ValueType.INT64})
    stored = feast_bytes(shop=Value(string_val=text), item=Value(int64_val=number))
    assert keys.join_keys == ("item", "shop")
    assert keys.serialize((number, text)) == stored
    assert keys.parse(stored) == (number, text)
    assert keys.of_proto(keys.to_proto((number, text))) == (number, text)


def test_what_no_row_can_be_stored_under_has_no_bytes() -> None:
    numbers = EntityKeys({"item_id": ValueType.INT32})
    assert numbers.serialize(None) is None
    assert numbers.serialize(2**40) is None
    assert numbers.serialize("12") is None
    assert EntityKeys({"item_id": ValueType.FLOAT}).serialize(1.0) is None


def test_the_key_of_another_entity_is_not_taken_for_ones_own() -> None:
    keys = EntityKeys({"item_id": ValueType.STRING})
    assert keys.parse(feast_bytes(user_id=Value(string_val="a"))) is None
    assert keys.parse(feast_bytes(item_id=Value(string_val="a"), shop=Value(int64_val=1))) is None


@pytest.mark.parametrize(
    ("given_values", "kind", "expected"),
    [
        (["a", "b"], ValueType.STRING, ["a", "b"]),
        ([1, 2], ValueType.INT64, [1, 2]),
        (["1", 2], ValueType.INT64, [1, 2]),
        ([Value(int64_val=3)], ValueType.INT64, [3]),
        ([None, 1], ValueType.INT64, [None, 1]),
    ],
)
def test_given_values_become_what_feast_would_store(
    given_values: list[object], kind: ValueType, expected: list[object]
) -> None:
    assert plain_values(given_values, kind) == expected


def test_many_texts_are_found_by_the_compiled_table_and_newer_ones_beside_it():
    space = KeySpace(EntityKeys({"item": ValueType.STRING}))
    keys = [f"item-{number}" for number in range(12_000)]
    ids = space.add(keys)
    space.index_texts()
    newer = space.add(["newer", "item-5"])
    assert newer.tolist() == [12_001, 6]
    asked = ["item-11999", "newer", "nobody", "", "item-0", "ä", "item-0\0"]
    assert space.lookup(asked).tolist() == [12_000, 12_001, 0, 0, 1, 0, 0]
    assert space.lookup(keys).tolist() == ids.tolist()
    assert space.lookup(["item-3", None, 7]).tolist() == [4, 0, 0]
    assert space.lookup([]).tolist() == []
