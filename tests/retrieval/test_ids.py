"""The table of ids against a plain dictionary, for texts and integers of every shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorank.retrieval import InvalidVectors
from explorank.retrieval._ids import IdTable, as_ids, refuse_duplicates

# NumPy drops trailing NULs, and ids with them are refused where they come in.
TEXTS = st.text(max_size=12).filter(lambda text: not text.endswith("\0"))
INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.sampled_from([2**32, -(2**32)]))
SETTINGS = settings(max_examples=150)


@SETTINGS
@given(
    known=st.one_of(st.lists(TEXTS, unique=True), st.lists(INTEGERS, unique=True)),
    asked=st.lists(st.one_of(TEXTS, INTEGERS)),
    data=st.data(),
)
def test_finds_what_a_dictionary_finds(known: list[Any], asked: list[Any], data: st.DataObject) -> None:
    asked = data.draw(st.permutations([*asked, *known]))
    label_of = {item: label for label, item in enumerate(known)}
    table = IdTable(as_ids(known))
    assert table.find(asked).tolist() == [label_of.get(item, -1) for item in asked]
    if known:
        assert table.find(as_ids(known)).tolist() == list(range(len(known)))


@SETTINGS
@given(rounds=st.lists(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), unique=True, max_size=9)))
def test_changes_of_labels_are_followed(rounds: list[list[str]]) -> None:
    """Each round gives its ids new labels, which now and then belonged to others; the last label counts."""
    table, label_of, free, made = IdTable(np.zeros(0, "<U1")), {}, [], 0
    for number, letters in enumerate(rounds):
        names = [letter * (1 + number % 3) for letter in letters]  # longer ids make the table wider
        labels = [free.pop(0) if free and number % 2 else (made := made + 1) - 1 for _ in names]
        for name, label in zip(names, labels, strict=True):
            if name in label_of:
                free.append(label_of[name])
            label_of[name] = label
        held = np.array(list(label_of.values()), np.int64)
        table.put(as_ids(names), np.array(labels, np.int64), lambda held=held: held)
        assert table.find(list(label_of)).tolist() == list(label_of.values())
        assert table.ids[held].tolist() == list(label_of)


def test_many_ids_are_found() -> None:
    names = [f"item-{number}" for number in range(50_000)]
    table = IdTable(as_ids(names))
    assert table.find(names).tolist() == list(range(50_000))
    assert set(table.find([f"thing-{number}" for number in range(1_000)]).tolist()) == {-1}


def test_only_the_labels_that_count_are_known() -> None:
    table = IdTable(np.array(["a", "b", "a"]), np.array([1, 2]))
    assert table.find(["a", "b", "c"]).tolist() == [2, 1, -1]


def test_the_ids_are_not_copied_where_they_can_be_written_to() -> None:
    ids = np.array(["a", "b"])
    assert np.shares_memory(IdTable(ids).ids, ids)


def test_what_is_no_id_is_unknown() -> None:
    table = IdTable(np.array(["a", "b"]))
    assert table.find(["a", None, 1.5, "a\0", True, "b"]).tolist() == [0, -1, -1, -1, -1, 1]
    assert table.find([1, 2]).tolist() == [-1, -1]
    assert table.find([]).tolist() == []


@pytest.mark.parametrize("ids", [["x", "a", "y", "a"], [7, 1, 8, 1]])
def test_the_first_id_that_occurs_twice_is_named(ids: list[Any]) -> None:
    with pytest.raises(InvalidVectors, match=f"{ids[1]!r} occurs more than once"):
        refuse_duplicates(as_ids(ids))
    refuse_duplicates(as_ids(ids[:3]))
