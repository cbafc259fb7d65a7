"""Search in documents against distances computed by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from feast import FeatureView, Field
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.types import Array, Float32, Int64, String

from explorank.retrieval.errors import InvalidOption

pytest.importorskip("faiss")

VECTORS = {"a": [1.0, 0.0], "b": [0.0, 2.0], "c": [3.0, 3.0], "d": [-1.0, 0.0]}
QUERY = [1.0, 1.0]


@pytest.fixture
def store(make: ModuleType, tmp_path: Path) -> Any:
    """Four documents."""
    store = make.columnar(tmp_path)
    shape = make.view_of(tmp_path, {"vector": Array(Float32)})
    view = FeatureView(
        name="facts",
        entities=[make.item_entity()],
        schema=[
            Field(name="vector", dtype=Array(Float32), vector_index=True),
            Field(name="text", dtype=String),
            Field(name="shelf", dtype=Int64),
        ],
        source=shape.batch_source,
    )
    store.apply([make.item_entity(), view])
    columns = {
        "vector": [np.array(vector, np.float32) for vector in VECTORS.values()],
        "text": ["red apples fall", "a green apple", "blue plums", "red plums and red apples"],
        "shelf": [1, 2, 2, 3],
    }
    store.write_to_online_store("facts", make.rows(list(VECTORS), columns))
    return store


def search(store: Any, **options: Any) -> list[tuple[str, float, float]]:
    """Return id, distance and rank of what is found, best first."""
    options = {"top_k": 4, **options}
    found = store.retrieve_online_documents_v2(
        features=["facts:vector", "facts:text", "facts:item_id"], **options
    ).to_dict()
    ids = found.get("item_id", [])
    ranks = found.get("text_rank", [0.0] * len(ids))
    assert all(found["vector"][row] == VECTORS[key] for row, key in enumerate(ids))
    rows = list(zip(ids, found["distance"], ranks, strict=True))
    return sorted(rows, key=lambda row: (-row[2], row[1]))


@pytest.mark.parametrize(
    ("metric", "distance"),
    [
        ("L2", lambda v, q: np.sqrt(((v - q) ** 2).sum())),
        ("L1", lambda v, q: np.abs(v - q).sum()),
        ("cosine", lambda v, q: 1 - v @ q / np.linalg.norm(v) / np.linalg.norm(q)),
        ("COSINE", lambda v, q: 1 - v @ q / np.linalg.norm(v) / np.linalg.norm(q)),
        ("inner_product", lambda v, q: -(v @ q)),
    ],
)
def test_distances_are_those_of_the_metric(store: Any, metric: str, distance: Any) -> None:
    expected = {key: distance(np.array(vector), np.array(QUERY)) for key, vector in VECTORS.items()}
    found = search(store, query=QUERY, distance_metric=metric)
    assert {key: value for key, value, _ in found} == pytest.approx(expected, abs=1e-6)
    nearest = sorted(expected.values())[:2]
    assert [value for _, value, _ in search(store, query=QUERY, distance_metric=metric, top_k=2)] == (
        pytest.approx(nearest, abs=1e-6)
    )


def test_filters_act_before_the_nearest_are_taken(store: Any) -> None:
    """The nearest of all is on shelf 1; of shelf 2 and above the nearest is b."""
    at_least = ComparisonFilter(type="gte", key="shelf", value=2)
    assert [key for key, _, _ in search(store, query=[1.0, 0.0], top_k=1)] == ["a"]
    assert [key for key, _, _ in search(store, query=[1.0, 0.0], top_k=1, filters=at_least)] == ["d"]
    both = CompoundFilter(
        type="and", filters=[at_least, ComparisonFilter(type="nin", key="item_id", value=["d"])]
    )
    assert [key for key, _, _ in search(store, query=[1.0, 0.0], top_k=1, filters=both)] == ["b"]
    either = CompoundFilter(
        type="or",
        filters=[
            ComparisonFilter(type="eq", key="text", value="blue plums"),
            ComparisonFilter(type="lt", key="shelf", value=2),
        ],
    )
    assert {key for key, _, _ in search(store, query=QUERY, filters=either)} == {"a", "c"}
    assert {
        key
        for key, _, _ in search(
            store, query=QUERY, filters=ComparisonFilter(type="in", key="shelf", value=[1, 3])
        )
    } == {"a", "d"}
    assert search(store, query=QUERY, filters=ComparisonFilter(type="gt", key="shelf", value=9)) == []


def test_words_are_found_by_their_stem_and_all_of_them_must_be_there(store: Any) -> None:
    assert {key for key, _, _ in search(store, query_string="apple")} == {"a", "b", "d"}
    found = search(store, query_string="red apples")
    assert {key for key, _, _ in found} == {"a", "d"}
    assert all(0 <= rank <= 1 for _, _, rank in found)
    assert all(distance is None for _, distance, _ in found)
    assert search(store, query_string='pear" OR text:"apple') == []
    assert search(store, query_string="!?") == []


def test_a_vector_and_words_together(store: Any) -> None:
    found = search(store, query=[3.0, 3.0], query_string="green", top_k=2)
    assert [key for key, _, _ in found] == ["b", "c"]
    assert found[0][1] == pytest.approx(np.sqrt(10))
    assert found[1][1:] == (0.0, 0.0)


def test_the_first_interface(store: Any) -> None:
    found = store.retrieve_online_documents(
        features=["facts:vector", "facts:item_id"], query=QUERY, top_k=2, distance_metric="L2"
    ).to_dict()
    assert sorted(found["item_id"]) == ["a", "b"]
    assert len(found["vector"]) == 2


def test_changes_expiry_and_documents_without_a_vector(store: Any, make: ModuleType, tmp_path: Path) -> None:
    view = store.get_feature_view("facts")
    later = make.NOW + timedelta(hours=2)
    rows = store._get_provider()._prep_rows_to_write_for_ingestion(
        view,
        make.rows(["a", "e"], {"vector": [[9.0, 9.0], None], "text": ["x", "y"], "shelf": [1, 1]}, later),
    )
    VECTORS_NOW = {**VECTORS, "a": [9.0, 9.0]}
    store._get_provider().online_write_batch(store.config, view, rows, None)
    online = make.online_store(store)
    found = online.retrieve_online_documents_v2(store.config, view, ["vector"], [9.0, 9.0], 9, "L2")
    assert {key.entity_values[0].string_val for _, key, _ in found} == set(VECTORS)
    for moment, key, values in found:
        name = key.entity_values[0].string_val
        assert list(values["vector"].float_list_val.val) == VECTORS_NOW[name]
        assert moment == (later if name == "a" else make.NOW)
    view.ttl = datetime.now(UTC) - later + timedelta(hours=1)
    assert len(online.retrieve_online_documents_v2(store.config, view, ["vector"], [9.0, 9.0], 9, "L2")) == 1


def test_what_can_not_be_searched_is_refused(store: Any, make: ModuleType) -> None:
    online, view = make.online_store(store), store.get_feature_view("facts")

    def ask(embedding: Any = None, **options: Any) -> None:
        online.retrieve_online_documents_v2(store.config, view, ["text"], embedding, 2, **options)

    with pytest.raises(InvalidOption, match="neither"):
        ask()
    with pytest.raises(InvalidOption, match="'near'"):
        ask([1.0, 2.0], distance_metric="near")
    with pytest.raises(InvalidOption, match="3 dimensions"):
        ask([1.0, 2.0, 3.0])
    with pytest.raises(InvalidOption, match="'colour'"):
        ask([1.0, 2.0], filters=ComparisonFilter(type="eq", key="colour", value=1))
    with pytest.raises(InvalidOption, match="wants a list"):
        ask([1.0, 2.0], filters=ComparisonFilter(type="in", key="shelf", value=1))
    with pytest.raises(InvalidOption, match="another type"):
        ask([1.0, 2.0], filters=ComparisonFilter(type="lt", key="text", value=1))
