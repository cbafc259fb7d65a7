"""What short codes found, compared again: by hand, and through an index that is saved, loaded and changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import Catalogue, CorruptArtefact, FaissIndex, InvalidOption
from explorank.retrieval._full_vectors import FullVectors

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)
COUNT, DIM = 1_500, 16


def rows(*vectors: tuple[float, float]) -> np.ndarray:
    return np.array(vectors, np.float32)


def unit(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(COUNT, seed=1)


@pytest.fixture(scope="module")
def index(vectors: np.ndarray) -> FaissIndex:
    return FaissIndex.build(vectors, np.arange(COUNT), "ivf_pq", device="cpu", neighbours=50)


def test_the_best_come_first_and_padding_last() -> None:
    full = FullVectors(rows(EAST, NORTH, WEST))
    similarities, labels = full.nearest(rows(EAST)[0], np.array([-1, 2, 1, 0]), 4)
    assert labels.tolist() == [0, 1, 2, -1]
    assert similarities.tolist() == [1, 0, -1, -np.inf]
    assert full.nearest(rows(WEST)[0], np.array([-1, 2, 1, 0]), 1)[1].tolist() == [2]
    assert full.nearest(rows(WEST)[0], np.array([0, 1]), 0)[1].tolist() == []


def test_rows_put_later_are_compared_like_those_of_the_start(tmp_path: Path) -> None:
    full = FullVectors(rows(NORTH))
    full.put(np.array([2]), rows(EAST))  # its label comes before that of another, which is put after it
    full.put(np.array([1]), rows(WEST))
    full.put(np.arange(3, 40), np.tile(rows(NORTH), (37, 1)))
    assert full.nearest(rows(EAST)[0], np.array([0, 1, 2, 39]), 4)[1][[0, -1]].tolist() == [2, 1]
    full.save(tmp_path / "vectors.npy", 3)
    saved = np.load(tmp_path / "vectors.npy")
    assert saved.tolist() == [list(NORTH), list(WEST), list(EAST)]
    loaded = FullVectors(saved)
    loaded.put(np.array([1, 3]), rows(EAST, WEST))
    assert loaded.nearest(rows(WEST)[0], np.array([1, 3]), 2)[1].tolist() == [3, 1]


def test_similarities_are_cosines_and_not_what_codes_make_of_them(
    index: FaissIndex, vectors: np.ndarray
) -> None:
    queries = unit(20, seed=2)
    found, similarities = index.search(queries, 30)
    exact = np.take_along_axis(queries @ vectors.T, found, axis=1)
    np.testing.assert_allclose(similarities, exact, atol=1e-6)
    assert (np.diff(similarities, axis=1) <= 0).all()


def test_few_neighbours_are_found_as_surely_as_those_tuned_for(
    index: FaissIndex, vectors: np.ndarray
) -> None:
    queries = unit(300, seed=3)
    truth = np.argsort(-(queries @ vectors.T), axis=1)
    for k in (1, 5, 50, 200):
        found, _ = index.search(queries, k)
        hits = [np.isin(true[:k], row).mean() for true, row in zip(truth, found, strict=True)]
        assert np.mean(hits) >= 0.97, k


def test_who_keeps_the_vectors_saves_them_once(
    index: FaissIndex, vectors: np.ndarray, tmp_path: Path
) -> None:
    index.save(tmp_path)
    assert (tmp_path / "vectors.npy").exists()
    index.save(tmp_path, with_vectors=False)
    assert not (tmp_path / "vectors.npy").exists()
    loaded = FaissIndex.load(tmp_path, device="cpu", vectors=vectors)
    for before, after in zip(index.search(vectors[:9], 20), loaded.search(vectors[:9], 20), strict=True):
        np.testing.assert_array_equal(before, after)
    with pytest.raises(CorruptArtefact, match="cannot answer without them"):
        FaissIndex.load(tmp_path, device="cpu")
    with pytest.raises(CorruptArtefact, match="belong to another"):
        FaissIndex.load(tmp_path, device="cpu", vectors=vectors[1:])


def test_what_was_added_is_saved_whoever_keeps_the_rest(vectors: np.ndarray, tmp_path: Path) -> None:
    index = FaissIndex.build(vectors, np.arange(COUNT), "ivf_pq", device="cpu")
    new = unit(1, seed=9)
    index.add(new, [7_777])
    index.save(tmp_path, with_vectors=False)
    loaded = FaissIndex.load(tmp_path, device="cpu", vectors=vectors)
    assert loaded.search(new[0], 1)[0].tolist() == [7_777]


def test_a_catalogue_and_its_index_have_one_file_of_vectors(vectors: np.ndarray, tmp_path: Path) -> None:
    items = [f"item-{row}" for row in range(COUNT)]
    Catalogue.build(items, vectors, kind="ivf_pq", device="cpu").save(tmp_path)
    assert len(list(tmp_path.rglob("vectors.npy"))) == 1
    loaded = Catalogue.load(tmp_path, device="cpu")
    assert loaded.index.search(vectors[5], 1)[0].tolist() == ["item-5"]


def test_codes_are_of_two_dimensions_each() -> None:
    with pytest.raises(InvalidOption, match="every two dimensions, and 15 is odd"):
        FaissIndex.build(unit(COUNT, seed=1)[:, :15], np.arange(COUNT), "ivf_pq", device="cpu")


def test_a_catalogue_computes_the_same_bits_as_the_search_of_its_index() -> None:
    """For any dimension and length of the query, and wherever among others an item stands."""
    rng = np.random.default_rng(4)
    for dim in (16, 30, 384):
        items = [f"item-{row}" for row in range(1_000)]
        catalogue = Catalogue.build(items, rng.standard_normal((1_000, dim)), kind="ivf_pq", device="cpu")
        assert catalogue.index.compares_again
        for length in (1e-3, 1.0, 7.0):
            query = (rng.standard_normal(dim) * length).astype(np.float32)
            found, similarities = catalogue.index.search(query, 37)
            moved = rng.permutation(37)
            np.testing.assert_array_equal(catalogue.cosines(query, found[moved]), similarities[moved])
    assert not Catalogue.build(items, rng.standard_normal((1_000, 8)), kind="flat").index.compares_again
