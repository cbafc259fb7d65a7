"""An index of many lists finds them by codes, and as well as if it had compared them all."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from explorank.retrieval import FaissIndex
from explorank.retrieval import _list_finder as list_finder
from explorank.retrieval._index_kinds import make

COUNT, DIM = 40_000, 64


def unit(count: int, seed: int) -> np.ndarray:
    """Return vectors around a few hundred centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((300, DIM))
    rows = (centres[rng.integers(300, size=count)] + 0.7 * rng.standard_normal((count, DIM))).astype("f4")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(COUNT, seed=0)


@pytest.fixture(scope="module")
def saved(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_finder, "_LEAST_WORK", 1_000 * DIM)
        FaissIndex.build(vectors, np.arange(COUNT), "ivf_pq", device="cpu", neighbours=20).save(folder)
    return folder


def of(saved: Path) -> faiss.IndexIVF:
    return faiss.read_index(str(saved / "index.faiss"))


def centroids_of(index: faiss.IndexIVF) -> np.ndarray:
    return index.quantizer.reconstruct_n(0, index.nlist)


def list_of(index: faiss.IndexIVF) -> np.ndarray:
    """Return the list that each label lies in."""
    lists = np.full(index.ntotal, -1)
    for number in range(index.nlist):
        if size := index.invlists.list_size(number):
            lists[faiss.rev_swig_ptr(index.invlists.get_ids(number), size)] = number
    return lists


def test_each_vector_lies_in_the_list_of_its_nearest_centroid(saved: Path, vectors: np.ndarray) -> None:
    index = of(saved)
    assert isinstance(faiss.downcast_index(index.quantizer), faiss.IndexRefineFlat)
    nearest = (vectors @ centroids_of(index).T).argmax(axis=1)
    assert (list_of(index) == nearest).mean() > 0.999


def test_the_nearest_lists_are_found(saved: Path) -> None:
    """Of those that are wanted, the farthest may give way to others that are as far."""
    index, queries = of(saved), unit(200, seed=2)
    _, found = index.quantizer.search(queries, 60)
    right = np.argsort(-queries @ centroids_of(index).T, axis=1)
    for least, count in ((0.99, 20), (0.93, 60)):
        hits = [np.isin(wanted[:count], lists).mean() for wanted, lists in zip(right, found, strict=True)]
        assert np.mean(hits) > least


def test_what_is_added_later_lies_where_it_would_have_lain_from_the_start(saved: Path) -> None:
    index, new = FaissIndex.load(saved, device="cpu"), unit(500, seed=1)
    index.add(new, np.arange(COUNT, COUNT + 500))
    inside = index._index
    nearest = (new @ centroids_of(inside).T).argmax(axis=1)
    assert (list_of(inside)[COUNT:] == nearest).mean() > 0.995
    k_factors = [faiss.downcast_index(each.quantizer).k_factor for each in (inside, of(saved))]
    assert k_factors[0] == k_factors[1]  # searches look at no more lists than before


def test_few_lists_are_compared_one_by_one() -> None:
    assert isinstance(faiss.downcast_index(make("ivf_pq", unit(1_000, seed=0)).quantizer), faiss.IndexFlat)
    assert list_finder.pays(4_096, 384)
    assert not list_finder.pays(25, 384)
    assert not list_finder.pays(512, 768)
