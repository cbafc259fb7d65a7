"""The catalogue: rows by id, what survives saving, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import Catalogue, CorruptArtefact, InvalidVectors
from explorank.retrieval.collaborative import (
    EmbeddingSpace,
    ImplicitALS,
    ImplicitALSOptions,
    NeighbourTable,
)

# Beside "a" and "c", "gone" is in no catalogue below.
BY_USE = NeighbourTable.of(
    np.array(["gone", "c", "a"]), np.array([[0, 1, 1], [1, 0, 0.5], [1, 0.25, 0]], np.float32), 2
)
SPACE = EmbeddingSpace.build(
    ImplicitALS(
        np.array(["a", "b", "c", "d"]),
        np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [0.0, 0.0]]),
        ImplicitALSOptions(factors=2),
    )
)


def catalogue(**changes: object) -> Catalogue:
    columns: dict[str, object] = {
        "item_ids": ["a", "b", "c", "d"],
        "vectors": [[1, 0], [0, 2], [-1, 0], [0.6, 0.8]],
        "popularity": [5, 0, 9, 5],
        "first_seen": [30.0, 10.0, np.nan, 20.0],
        "encoder_name": "packaged",
        "encoder_fingerprint": "abc",
    } | changes
    return Catalogue.build(columns.pop("item_ids"), columns.pop("vectors"), **columns)


def test_rows_and_orders() -> None:
    items = catalogue()
    assert items.rows(["c", "nobody", "a"]).tolist() == [2, -1, 0]
    assert items.rows(np.array(["d"])).tolist() == [3]
    assert items.rows([]).tolist() == []
    assert items.item_known(["c", "nobody"]).tolist() == [True, False]
    assert items.by_popularity.tolist() == [2, 0, 3, 1]
    assert items.by_first_seen.tolist() == [1, 3, 0]
    assert items.known_first_seen.tolist() == [10, 20, 30]
    np.testing.assert_allclose(np.linalg.norm(items.vectors, axis=1), 1, atol=1e-6)


def test_saved_and_loaded(tmp_path: Path) -> None:
    before = catalogue()
    before.save(tmp_path)
    after = Catalogue.load(tmp_path)
    for name in ("item_ids", "vectors", "popularity", "first_seen", "by_popularity", "by_first_seen"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert isinstance(after.vectors, np.memmap)
    assert (after.version, after.encoder_name, after.encoder_fingerprint) == (
        before.version,
        "packaged",
        "abc",
    )
    assert after.index.search([0.6, 0.8], 1)[0].tolist() == ["d"]


def test_what_has_the_same_users_is_saved_with_it_and_mapped(tmp_path: Path) -> None:
    catalogue(by_use=BY_USE).save(tmp_path)
    after = Catalogue.load(tmp_path)

    expected = [np.nan, 0.25, 0.0, np.nan]  # of "c" for somebody who took up "a"; nothing of "b" is known
    np.testing.assert_array_equal(after.means_by_use(["nobody", "a"], ["x", "c", "b", "gone"]), expected)
    assert np.isnan(after.means_by_use(["nobody"], ["c"])).all()
    assert after.by_use is not None
    assert isinstance(after.by_use.weights.base, np.memmap)
    assert after.version == catalogue(by_use=BY_USE).version
    catalogue().save(tmp_path)
    assert Catalogue.load(tmp_path).by_use is None


def test_what_is_popular_lately_is_saved_with_it(tmp_path: Path) -> None:
    catalogue(recent_popularity=[0, 2, 5, 2]).save(tmp_path)
    after = Catalogue.load(tmp_path)

    assert after.recent_popularity is not None
    assert after.recent_popularity.tolist() == [0, 2, 5, 2]
    assert after.by_recent_popularity.tolist() == [2, 1, 3], (
        "an item that nobody took up lately is not among them"
    )
    assert after.with_facts(popularity=after.popularity, by_use=None).recent_popularity is None
    then = after.with_facts(popularity=after.popularity, by_use=None, recent_popularity=[1, 0, 0, 0])
    assert then.by_recent_popularity.tolist() == [0]
    with pytest.raises(InvalidVectors, match="recent_popularity of item 'b' is -1"):
        catalogue(recent_popularity=[0, -1, 0, 0])
    catalogue().save(tmp_path)
    assert Catalogue.load(tmp_path).recent_popularity is None


def test_a_learnt_space_is_saved_with_it_and_mapped(tmp_path: Path) -> None:
    catalogue(embeddings=SPACE).save(tmp_path)
    after = Catalogue.load(tmp_path)

    assert after.embeddings is not None
    assert after.embeddings.item_ids.tolist() == after.item_ids.tolist()
    assert after.embeddings.like(0, 9)[0].tolist() == [2, 1]
    assert isinstance(after.embeddings.model.item_vectors.base, np.memmap)
    assert after.with_facts(popularity=after.popularity, by_use=None).embeddings is None
    other = after.with_facts(popularity=after.popularity, by_use=None, embeddings=after.embeddings)
    assert other.embeddings is after.embeddings
    with pytest.raises(InvalidVectors, match="each row would be taken for another item"):
        catalogue(item_ids=["b", "a", "c", "d"], embeddings=SPACE)
    catalogue().save(tmp_path)
    assert Catalogue.load(tmp_path).embeddings is None


def test_other_facts_of_the_same_items() -> None:
    catalogue = Catalogue.build(["a", "b", "c"], np.eye(3), popularity=[3, 2, 1], first_seen=[1, 2, 3])
    weights = np.array([[0, 1], [0, 0]], np.float32)
    by_use = NeighbourTable.of(np.array(["c", "a"]), weights, 1)

    then = catalogue.with_facts(popularity=[0, 5, 7], by_use=by_use)

    assert then.item_ids[then.by_popularity].tolist() == ["c", "b", "a"]
    assert then.means_by_use(["c"], ["a", "b"]).tolist() == [1, 0]
    assert then.rows(["b", "gone"]).tolist() == [1, -1]
    assert then.index is catalogue.index
    assert then.first_seen is catalogue.first_seen
    assert catalogue.item_ids[catalogue.by_popularity].tolist() == ["a", "b", "c"]
    assert catalogue.by_use is None
    same = catalogue.with_facts(popularity=[0, 5, 7], by_use=by_use)
    other = catalogue.with_facts(popularity=[0, 5, 7], by_use=None)
    assert then.version == same.version
    assert len({catalogue.version, then.version, other.version}) == 3
    with pytest.raises(InvalidVectors, match="popularity has shape"):
        catalogue.with_facts(popularity=[1, 2], by_use=None)


def test_an_empty_catalogue(tmp_path: Path) -> None:
    catalogue(item_ids=[], vectors=np.zeros((0, 2)), popularity=None, first_seen=None).save(tmp_path)
    empty = Catalogue.load(tmp_path)
    assert len(empty) == 0
    assert empty.rows(["a"]).tolist() == [-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"item_ids": ["a", "b", "c", "e"]},
        {"vectors": [[1, 0], [0, 2], [-1, 0], [0.8, 0.6]]},
        {"popularity": [5, 0, 9, 6]},
        {"first_seen": [30.0, 10.0, 1.0, 20.0]},
        {"encoder_fingerprint": "abd"},
        {"kind": "hnsw"},
        {"recent_popularity": [0, 0, 0, 0]},
        {"by_use": BY_USE},
        {"embeddings": SPACE},
    ],
)
def test_the_version_tells_every_change(changes: dict[str, object]) -> None:
    assert catalogue().version == catalogue().version != catalogue(**changes).version


FILES = ["vectors.npy", "item_ids.npy", "popularity.npy", "first_seen.npy", "catalogue.json"]


@pytest.mark.parametrize(
    "name",
    [
        *FILES,
        "index/index.json",
        "index/index.faiss",
        "index/ids.npy",
        "by_use/manifest.json",
        "by_use/weights.npy",
        "learned_embeddings/space.json",
        "learned_embeddings/scan/vectors.npy",
    ],
)
def test_a_damaged_file_is_named_and_refused(name: str, tmp_path: Path) -> None:
    catalogue(by_use=BY_USE, embeddings=SPACE).save(tmp_path)
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    file.write_bytes(content)
    with pytest.raises(CorruptArtefact, match=name.rpartition("/")[2]):
        Catalogue.load(tmp_path)


def test_an_index_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    catalogue().save(tmp_path / "one")
    catalogue(item_ids=["e", "f", "g", "h"]).save(tmp_path / "two")
    (tmp_path / "one" / "index").rename(tmp_path / "old")
    (tmp_path / "two" / "index").rename(tmp_path / "one" / "index")
    with pytest.raises(CorruptArtefact, match=r"index\.json is damaged"):
        Catalogue.load(tmp_path / "one")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefact, match=r"catalogue\.json"):
        Catalogue.load(tmp_path)
    catalogue().index.save(tmp_path)
    (tmp_path / "index.json").rename(tmp_path / "catalogue.json")
    with pytest.raises(CorruptArtefact, match="faiss_index/2"):
        Catalogue.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"item_ids": [1, 2, 3, 4]}, "map"),
        ({"item_ids": ["a", "a", "b", "c"]}, "'a' occurs"),
        ({"popularity": [1, 2]}, "popularity has shape"),
        ({"popularity": [1, 2, np.nan, 3]}, "popularity of item 'c'"),
        ({"popularity": [1, -2, 0, 3]}, "popularity of item 'b'"),
        ({"first_seen": [1, np.inf, 0, 3]}, "first_seen of item 'b'"),
        ({"vectors": [[1, 0], [0, 0], [0, 1], [1, 1]]}, "'b' is zero"),
    ],
)
def test_columns_that_do_not_fit(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidVectors, match=said):
        catalogue(**changes)
