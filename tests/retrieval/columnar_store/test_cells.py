"""Cells are read as arrays exactly as protobuf reads them one by one."""

import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import Int64List, Value
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval.columnar_store import cells
from explorank.retrieval.columnar_store.cells import NOT_FOUND, NULL_VALUE, PRESENT, OtherMember

BOUNDS = {"int32_val": 31, "int64_val": 63, "unix_timestamp_val": 63}


@pytest.mark.parametrize("member", ["int32_val", "int64_val", "unix_timestamp_val"])
@given(data=st.data())
def test_whole_numbers_of_any_size_are_read_back(member: str, data: st.DataObject) -> None:
    bound = 2 ** BOUNDS[member]
    values = data.draw(st.lists(st.integers(-bound, bound - 1), max_size=20))
    stored = [Value(**{member: value}).SerializeToString() for value in values]
    read = cells.numbers(member, stored)
    assert read.dtype == cells.NUMBER_TYPES[member]
    assert read.tolist() == values


@given(st.lists(st.floats(width=64), max_size=20), st.lists(st.floats(width=32), max_size=20))
def test_floating_numbers_are_read_back_bit_by_bit(doubles: list[float], floats: list[float]) -> None:
    for member, values in (("double_val", doubles), ("float_val", floats)):
        stored = [Value(**{member: value}).SerializeToString() for value in values]
        expected = np.array(values, cells.NUMBER_TYPES[member])
        assert cells.numbers(member, stored).tobytes() == expected.tobytes()


@given(st.lists(st.booleans(), max_size=20))
def test_booleans_are_read_back(values: list[bool]) -> None:
    stored = [Value(bool_val=value).SerializeToString() for value in values]
    assert cells.numbers("bool_val", stored).tolist() == values


@given(st.lists(st.one_of(st.text(), st.text(min_size=120, max_size=140)), max_size=20))
def test_texts_of_any_length_are_read_back(values: list[str]) -> None:
    assert cells.texts([Value(string_val=value).SerializeToString() for value in values]) == values


def test_long_texts_have_long_lengths() -> None:
    values = ["é" * 100, "x" * 20_000]
    assert cells.texts([Value(string_val=value).SerializeToString() for value in values]) == values


@pytest.mark.parametrize("member", sorted(cells.NUMBER_TYPES))
def test_a_cell_of_another_type_is_noticed(member: str) -> None:
    own = Value(**{member: 1}).SerializeToString()
    for other in (
        Value(string_val="9"),
        Value(int64_list_val=Int64List(val=[1])),
        Value(double_val=1.0) if member != "double_val" else Value(float_val=1.0),
    ):
        with pytest.raises(OtherMember):
            cells.numbers(member, [own, other.SerializeToString()])
    with pytest.raises(OtherMember):
        cells.texts([own])


def test_nulls_and_missing_cells_are_told_apart() -> None:
    present = Value(double_val=0.0).SerializeToString()
    parts = cells.split([present, b"", None, Value(null_val=0).SerializeToString(), present])
    assert parts.status.tolist() == [PRESENT, NULL_VALUE, NOT_FOUND, NULL_VALUE, PRESENT]
    assert parts.present == [present, present]
    assert cells.split([present, present]).status.tolist() == [PRESENT, PRESENT]
    assert cells.split([]).status.tolist() == []
