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
    EmbeddingsUnknown,
    InvalidOption,
    LearnedEmbeddings,
    NeighboursUnknown,
    NewItems,
    Popular,
    RecentPopularityUnknown,
    RetrievalQuery,
    Retriever,
    RowRetriever,
    SimilarByUse,
    SimilarToHistory,
    Trending,
)
from explorank.retrieval.collaborative import (
    EmbeddingSpace,
    ImplicitALS,
    ImplicitALSOptions,
    NeighbourTable,
)

DAY = 86_400.0
NOW = 100 * DAY
IDS = ["east", "north", "west", "north-east", "south"]
BY_USE = {  # who takes up the first takes up the others too; "gone" is in no catalogue
    "east": {"west": 0.5, "south": 0.25, "gone": 0.9},
    "north": {"south": 0.5, "east": 0.125},
    "gone": {"north": 1.0},
}
ALL_IDS = np.array([*IDS, "gone"])
FACTORS = {"east": [2, 0], "north": [0, 1], "west": [1, 1], "north-east": [0, 0], "south": [0.5, 0]}
"""Nobody took up "north-east"."""
ITEMS = Catalogue.build(
    IDS,
    [[1, 0], [0, 1], [-1, 0], [1, 1], [0, -1]],
    by_use=NeighbourTable.of(
        ALL_IDS,
        np.array([[BY_USE.get(one, {}).get(other, 0) for other in ALL_IDS] for one in ALL_IDS], np.float32),
        3,
    ),
    embeddings=EmbeddingSpace.build(
        ImplicitALS(
            np.array(IDS),
            np.array([FACTORS[item] for item in IDS], np.float64),
            ImplicitALSOptions(factors=2, l2=1.0, confidence=2.0),
        )
    ),
    popularity=[10, 40, 0, 20, 5],
    recent_popularity=[2, 0, 8, 2, 0],
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


def test_similar_by_use() -> None:
    history = ("gone", "nobody", "north", "east")  # two are known: means over them
    assert found(SimilarByUse(), history=history) == [("south", 0.375), ("west", 0.25)]
    assert found(SimilarByUse(), 1, history=history) == [("south", 0.375)]
    assert found(SimilarByUse(), history=history, exclude=frozenset({"south", "nobody"})) == [("west", 0.25)]
    assert found(SimilarByUse(history=1), history=history) == [("west", 0.5), ("south", 0.25)]
    assert found(SimilarByUse(), history=("north", "north")) == [("south", 0.5), ("east", 0.125)]


def test_similar_by_use_to_an_item() -> None:
    assert found(SimilarByUse(), similar_to="north", history=("east",)) == [("south", 0.5), ("east", 0.125)]
    assert found(SimilarByUse(), similar_to="nobody", history=("east",)) == []


def test_without_a_table_of_neighbours_the_way_out_is_named() -> None:
    bare = Catalogue.build(["a"], [[1.0]])
    with pytest.raises(NeighboursUnknown, match=r"Set `retrieval\.by_use` and run `explorank build"):
        SimilarByUse().retrieve(bare, RetrievalQuery(time=NOW, history=("a",)), 3)
    assert np.isnan(bare.means_by_use(["a"], ["a"])).all()


def test_learned_embeddings() -> None:
    # Σyy' + λI = [[6.25, 1], [1, 3]]. With "east", 2·yy' = [[8, 0], [0, 0]] is added to it, and x solves
    # [[14.25, 1], [1, 3]] x = 3·(2, 0): x = (18, -6) / 41.75.
    assert found(LearnedEmbeddings(), history=("gone", "east")) == [
        ("west", round(12 / 41.75, 4)),
        ("south", round(9 / 41.75, 4)),
        ("north", round(-6 / 41.75, 4)),
    ]
    assert found(LearnedEmbeddings(), 1, history=("east",), exclude=frozenset({"west"})) == [
        ("south", round(9 / 41.75, 4))
    ]
    # The latest alone makes the vector, and none of the history is found again.
    assert found(LearnedEmbeddings(history=1), history=("west", "east"))[0] == ("south", round(9 / 41.75, 4))
    assert found(LearnedEmbeddings(), history=("north-east", "nobody")) == []


def test_learned_embeddings_of_an_item() -> None:
    # Products with (1, 1), whose product with itself is 2.
    answer = [("east", 1.0), ("north", 0.5), ("south", 0.25)]
    assert found(LearnedEmbeddings(), similar_to="west", history=("north",)) == answer
    assert found(LearnedEmbeddings(), similar_to="north-east", history=("north",)) == []
    assert found(LearnedEmbeddings(), similar_to="nobody", history=("north",)) == []


def test_without_a_learnt_space_the_way_out_is_named() -> None:
    bare = Catalogue.build(["a"], [[1.0]])
    with pytest.raises(
        EmbeddingsUnknown, match=r"Set `retrieval\.learned_embeddings` and run `explorank build"
    ):
        LearnedEmbeddings().retrieve(bare, RetrievalQuery(time=NOW, history=("a",)), 3)


def test_popular() -> None:
    expected = [("north", 1.0), ("north-east", 0.5), ("east", 0.25), ("south", 0.125), ("west", 0.0)]
    assert found(Popular()) == expected
    assert found(Popular(), 2, exclude=frozenset({"north-east", "nobody"})) == [expected[0], expected[2]]
    assert found(Popular(), 0) == []


def test_popular_where_nothing_is() -> None:
    items = Catalogue.build(["a", "b"], [[1], [1]])
    ids, scores = Popular().retrieve(items, RetrievalQuery(time=NOW), 1)
    assert (ids.tolist(), scores.tolist()) == (["a"], [0.0])


def test_trending_is_what_is_popular_lately() -> None:
    assert found(Trending()) == [("west", 1.0), ("east", 0.25), ("north-east", 0.25)]
    assert found(Trending(), 1, exclude=frozenset({"west", "nobody"})) == [("east", 0.25)]
    assert found(Trending(), similar_to="east") == []
    quiet = Catalogue.build(["a"], [[1.0]], recent_popularity=[0])
    assert len(Trending().retrieve(quiet, RetrievalQuery(time=NOW), 3)[0]) == 0


def test_without_what_is_popular_lately_the_way_out_is_named() -> None:
    bare = Catalogue.build(["a"], [[1.0]], popularity=[3])
    with pytest.raises(RecentPopularityUnknown, match=r"Set `retrieval\.trending` and run `explorank build`"):
        Trending().retrieve(bare, RetrievalQuery(time=NOW), 3)


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
    retriever=st.sampled_from(
        [SimilarToHistory(), SimilarByUse(), LearnedEmbeddings(), Popular(), Trending(), NewItems(60)]
    ),
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
    [
        (SimilarToHistory, "similar_to_history"),
        (SimilarByUse, "similar_by_use"),
        (LearnedEmbeddings, "learned_embeddings"),
        (Popular, "popular"),
        (Trending, "trending"),
        (NewItems, "new_items"),
    ],
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
    with pytest.raises(InvalidOption, match="history=0"):
        SimilarByUse(history=0)
    with pytest.raises(InvalidOption, match="learned_embeddings: history=0"):
        LearnedEmbeddings(history=0)
