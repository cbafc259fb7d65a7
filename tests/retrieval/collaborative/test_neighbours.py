"""The table of neighbours: what a full product would say, from few numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from explorank.retrieval import CorruptArtefact, InvalidOption
from explorank.retrieval._files import write_manifest
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


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(-1, 7), max_size=8),
    st.lists(st.integers(-1, 7), max_size=8),
    st.integers(0, 9),
)
def test_the_best_are_those_of_the_greatest_means(
    seed: int, history: list[int], exclude: list[int], k: int
) -> None:
    """Both ways of asking agree with each other, and with a dense matrix; equal means go by row."""
    generator = np.random.default_rng(seed)
    weights = generator.choice([0.0, 0.25, 0.5, 1.0], (8, 8)).astype(
        np.float32
    )  # sums without rounding, with ties
    np.fill_diagonal(weights, 0)
    ids = np.array([f"i{n}" for n in range(8)])
    table = NeighbourTable.of(ids, weights, 8)
    rows = sorted(set(history) - {-1})

    found, scores = table.best(np.array(history, np.int64), k, np.array(exclude, np.int64))
    means = table.means(np.array(history, np.int64), np.array([*range(8), -1]))

    assert np.isnan(means[8])
    if not rows:
        assert np.isnan(means).all()
        assert found.tolist() == []
        return
    np.testing.assert_array_equal(means[:8], weights[rows].sum(axis=0) / np.float32(len(rows)))
    allowed = [row for row in range(8) if means[row] > 0 and row not in {*rows, *exclude}]
    assert found.tolist() == sorted(allowed, key=lambda row: (-means[row], row))[:k]
    np.testing.assert_array_equal(scores, means[found])


@given(st.permutations(["a", "b", "c", "d", "new"]), st.integers(0, 5))
def test_the_rows_of_another_list_of_items(items: list[str], kept: int) -> None:
    """What is asked by ids does not change but for items that are not in the list."""
    there = items[:kept]
    table, moved = (
        NeighbourTable.of(IDS, WEIGHTS, 3),
        NeighbourTable.of(IDS, WEIGHTS, 3).in_rows_of(np.array(there, np.str_)),
    )

    for item in IDS.tolist():
        gone = set(IDS.tolist()) - set(there)
        before = dict(zip(*(part.tolist() for part in table.like([item], 9, exclude=gone)), strict=True))
        after = dict(zip(*(part.tolist() for part in moved.like([item], 9)), strict=True))
        assert after == (before if item in there else {})


def test_a_saved_table_answers_the_same_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    NeighbourTable.of(IDS, WEIGHTS, 2).save(tmp_path)
    assert NeighbourTable.load(tmp_path).like(["b"], 5)[0].tolist() == ["a", "c"]

    (tmp_path / "weights.npy").unlink()
    with pytest.raises(CorruptArtefact, match=r"weights\.npy is missing"):
        NeighbourTable.load(tmp_path)


def test_a_table_without_neighbours_can_be_saved_and_finds_nothing(tmp_path: Path) -> None:
    NeighbourTable.of(IDS, np.zeros((4, 4), np.float32), 2).save(tmp_path)

    table = NeighbourTable.load(tmp_path)

    assert table.like(["a", "b"], 5)[0].tolist() == []
    assert table.means(np.array([0]), np.array([1, -1])).tolist()[0] == 0.0


def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    NeighbourTable.of(IDS, WEIGHTS, 2).save(tmp_path)
    manifest = tmp_path / "manifest.json"
    content = json.loads(manifest.read_bytes())["content"]
    np.save(tmp_path / "starts.npy", np.zeros(3, np.int64))
    write_manifest(manifest, {key: content[key] for key in ("format", "arrays", "facts")}, content["sha256"])

    with pytest.raises(CorruptArtefact, match="do not belong together: 4 items"):
        NeighbourTable.load(tmp_path)


def test_no_neighbours_at_all_are_refused() -> None:
    with pytest.raises(InvalidOption, match="count=0"):
        NeighbourTable.of(IDS, WEIGHTS, 0)
