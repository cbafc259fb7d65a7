"""Each retriever on a catalogue small enough to see the answer; none ever answers what is excluded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from explorank.retrieval import (
    Catalogue,
    InvalidOption,
    NewItems,
    Popular,
    RetrievalQuery,
    Retriever,
    RowRetriever,
    SimilarToHistory,
)

DAY = 86_400.0
NOW = 100 * DAY
ITEMS = Catalogue.build(
    ["east", "north", "west", "north-east", "south"],
    [[1, 0], [0, 1], [-1, 0], [1, 1], [0, -1]],
    popularity=[10, 40, 0, 20, 5],
    first_seen=[NOW - 15 * DAY, NOW - 30 * DAY, NOW - 31 * DAY, NOW + 1, np.nan],
)


def found(retriever: Retriever, k: int = 10, **query: object) -> list[tuple[str, float]]:
    ids, scores = retriever.retrieve(ITEMS, RetrievalQuery(**({"time": NOW} | query)), k)
    assert ids.shape == scores.shape
    assert scores.dtype == np.float32
    return [(item, round(float(score), 4)) for item, score in zip(ids.tolist(), scores, strict=True)]


def test_similar_to_history() -> None:
    # 0.5 · north + 1 · east = (1, 0.5): cosines with east 0.894, with north-east 0.949, with north 0.447
    history = ("nobody", "north", "east")
    expected = [("north-east", 0.9487), ("east", 0.8944), ("north", 0.4472)]
    assert found(SimilarToHistory(decay=0.5), 3, history=history) == expected
    assert found(SimilarToHistory(decay=0.5), 2, history=history, exclude=frozenset({"east"})) == [
        expected[0],
        expected[2],
    ]


def test_a_user_vector_goes_before_the_history() -> None:
    vector = np.array([0, -7], np.float32)
    assert found(SimilarToHistory(), 1, user_vector=vector, history=("north",)) == [("south", 1.0)]


def test_similar_to_an_item() -> None:
    assert found(SimilarToHistory(), 2, similar_to="east", history=("south",))[0] == ("north-east", 0.7071)
    assert "east" not in dict(found(SimilarToHistory(), similar_to="east"))


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"history": ("nobody",)},
        {"similar_to": "nobody", "history": ("east",)},
        {"user_vector": np.zeros(2, np.float32)},
        {"history": ("east", "west")},
    ],
)
def test_nothing_to_go_by(query: dict[str, object]) -> None:
    assert found(SimilarToHistory(decay=1.0), **query) == []


def test_popular() -> None:
    expected = [("north", 1.0), ("north-east", 0.5), ("east", 0.25), ("south", 0.125), ("west", 0.0)]
    assert found(Popular()) == expected
    assert found(Popular(), 2, exclude=frozenset({"north-east", "nobody"})) == [expected[0], expected[2]]
    assert found(Popular(), 0) == []


def test_popular_where_nothing_is() -> None:
    items = Catalogue.build(["a", "b"], [[1], [1]])
    ids, scores = Popular().retrieve(items, RetrievalQuery(time=NOW), 1)
    assert (ids.tolist(), scores.tolist()) == (["a"], [0.0])


def test_new_items() -> None:
    assert found(NewItems(max_age_days=30)) == [("east", 0.5), ("north", 0.0)]
    assert found(NewItems(max_age_days=30), exclude=frozenset({"east"})) == [("north", 0.0)]
    assert found(NewItems(max_age_days=30), time=NOW + 1)[0] == ("north-east", 1.0)
    assert found(NewItems(), time=0.0) == []


def test_popular_and_new_items_leave_similar_requests_alone() -> None:
    assert found(Popular(), similar_to="east") == found(NewItems(), similar_to="east") == []
    assert len(found(Popular(), similar_to="nobody")) == 5


ids = st.sampled_from([*ITEMS.item_ids.tolist(), "nobody"])


@settings(max_examples=150)
@given(
    retriever=st.sampled_from([SimilarToHistory(), Popular(), NewItems(max_age_days=60)]),
    k=st.integers(0, 8),
    exclude=st.frozensets(ids),
    history=st.lists(ids).map(tuple),
    similar_to=st.none() | ids,
)
def test_what_is_excluded_is_never_found(
    retriever: RowRetriever, k: int, exclude: frozenset[str], history: tuple[str, ...], similar_to: str | None
) -> None:
    answer = found(retriever, k, exclude=exclude, history=history, similar_to=similar_to)
    items = [item for item, _ in answer]
    assert len(items) == len(set(items)) <= k
    assert not set(items) & (exclude | {similar_to, "nobody"})
    scores = [score for _, score in answer]
    assert scores == sorted(scores, reverse=True)
    query = RetrievalQuery(time=NOW, exclude=exclude, history=history, similar_to=similar_to)
    rows, row_scores = retriever.retrieve_rows(ITEMS, query, k)
    assert ITEMS.item_ids[rows].tolist() == items
    np.testing.assert_array_equal(row_scores, retriever.retrieve(ITEMS, query, k)[1])


def test_once_the_index_was_added_to_rows_are_not_told() -> None:
    items = Catalogue.build(["a", "b"], [[1, 0], [0, 1]])
    query = RetrievalQuery(time=NOW, user_vector=np.array([0, 1], np.float32))
    rows, _ = SimilarToHistory().retrieve_rows(items, query, 5)
    assert rows.tolist() == [1, 0]
    items.index.remove(["b"])
    rows, _ = SimilarToHistory().retrieve_rows(items, query, 5)
    assert rows.tolist() == [0]
    items.index.add([[0, 1]], ["new"])
    assert SimilarToHistory().retrieve_rows(items, query, 5) is None
    assert SimilarToHistory().retrieve(items, query, 5)[0].tolist() == ["new", "a"]


@pytest.mark.parametrize(
    ("component", "name"),
    [(SimilarToHistory, "similar_to_history"), (Popular, "popular"), (NewItems, "new_items")],
)
def test_yaml_sees_a_strict_frozen_component(component: type, name: str) -> None:
    assert component.name == name
    with pytest.raises(ValidationError, match="misspelt"):
        TypeAdapter(component).validate_python({"misspelt": 1})
    described = TypeAdapter(component).json_schema().get("properties", {})
    assert all("description" in field for field in described.values())
    assert len(described) == len(dataclasses.fields(component))


def test_options_outside_their_range() -> None:
    with pytest.raises(InvalidOption, match="decay=0"):
        SimilarToHistory(decay=0)
    with pytest.raises(InvalidOption, match="max_age_days=0"):
        NewItems(max_age_days=0)
