"""The table of neighbours: what a full product would say, from few numbers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from explorank.retrieval import CorruptArtefact, InvalidOption
from explorank.retrieval.collaborative import NeighbourTable

IDS = np.array(["a", "b", "c", "d"])
WEIGHTS = np.array([[0, 0.5, 0.2, -1], [0.5, 0, 0.4, 0], [0.2, 0.4, 0, 0.9], [0, 0, 0.9, 0]], np.float32)


def test_the_neighbours_of_a_history_sum_up() -> None:
    ids, scores = NeighbourTable.of(IDS, WEIGHTS, 3).like(["a", "b"], 5)

    assert ids.tolist() == ["c"]
    np.testing.assert_allclose(scores, [(0.2 + 0.4) / 2], rtol=1e-6)


def test_only_the_greatest_are_kept() -> None:
    table = NeighbourTable.of(IDS, WEIGHTS, 1)

    assert table.like(["a"], 5)[0].tolist() == ["b"]
    assert table.like(["c"], 5)[0].tolist() == ["d"]


def test_excluded_and_unknown_items() -> None:
    table = NeighbourTable.of(IDS, WEIGHTS, 3)

    assert table.like(["c", "z"], 5, exclude={"d"})[0].tolist() == ["b", "a"]
    assert table.like(["z"], 5)[0].tolist() == []
    assert table.like([], 5)[1].dtype == np.float32


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.lists(st.integers(0, 7), max_size=8))
def test_it_equals_the_product_with_the_kept_weights(seed: int, count: int, history: list[int]) -> None:
    ids = np.array([f"i{n}" for n in range(8)])
    weights = np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    kept = np.where((weights > 0) & (np.argsort(np.argsort(-weights, axis=1), axis=1) < count), weights, 0)
    sums = kept[sorted(set(history))].sum(axis=0) / max(len(set(history)), 1)
    sums[history] = 0

    found, scores = NeighbourTable.of(ids, csr_matrix(weights) if seed % 2 else weights, count).like(
        [f"i{n}" for n in history], 8
    )

    assert sorted(found.tolist()) == [f"i{n}" for n in np.flatnonzero(sums)]
    np.testing.assert_allclose(scores, np.sort(sums[sums > 0])[::-1], rtol=1e-5)


def test_a_saved_table_answers_the_same_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    NeighbourTable.of(IDS, WEIGHTS, 2).save(tmp_path)
    assert NeighbourTable.load(tmp_path).like(["b"], 5)[0].tolist() == ["a", "c"]

    (tmp_path / "data.npy").unlink()
    with pytest.raises(CorruptArtefact, match=r"data\.npy is missing"):
        NeighbourTable.load(tmp_path)


def test_no_neighbours_at_all_are_refused() -> None:
    with pytest.raises(InvalidOption, match="count=0"):
        NeighbourTable.of(IDS, WEIGHTS, 0)
