"""Tuning against a brute-force search that this file does itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval import Effort, FaissIndex, InvalidOption, TradeOff, Tuning, tune_index
from explorank.retrieval._index_kinds import list_count

DIM = 24


def clusters(rows: int, seed: int) -> np.ndarray:
    """Unit rows around 60 centres, so near to each other that lists cut through neighbourhoods."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((60, DIM))
    vectors = centres[rng.integers(0, 60, rows)] + 0.7 * rng.standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recall(index: FaissIndex, vectors: np.ndarray, queries: np.ndarray, k: int) -> float:
    truth = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]
    found, _ = index.search(queries, k)
    return float(np.mean([np.isin(true, row).mean() for true, row in zip(truth, found, strict=True)]))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clusters(12_000, seed=1)


@pytest.mark.parametrize("wanted", [0.8, 0.95, 0.99])
def test_the_wanted_recall_holds_for_queries_that_tuning_never_saw(
    vectors: np.ndarray, wanted: float
) -> None:
    index = FaissIndex.build(
        vectors, np.arange(len(vectors)), "ivf_flat", device="cpu", recall=wanted, neighbours=50
    )
    assert index.tuning is not None
    assert index.tuning.reached
    assert index.tuning.recall >= wanted
    # 300 new queries: the mean of their recalls has a standard error below 0.01.
    assert recall(index, vectors, clusters(300, seed=2), 50) >= wanted - 0.03


def test_no_more_is_looked_at_than_needed(vectors: np.ndarray) -> None:
    tuning = tune_index(vectors, ("ivf_flat",), recall=0.9, neighbours=50).tuning
    points = [point for point in tuning.curve if point.kind == "ivf_flat"]
    lists = [point.effort.lists for point in points]
    assert lists[:6] == [1, 2, 3, 4, 6, 8]
    assert [point.recall for point in points] == sorted(point.recall for point in points)
    taken = points.index(tuning.chosen)
    assert len(points) - taken - 1 == 2
    assert all(point.recall < 0.9 for point in points[: taken - 1])


def test_everything_looked_at_finds_everything(vectors: np.ndarray) -> None:
    tuned = tune_index(vectors, ("ivf_flat",), recall=1.0, neighbours=20)
    assert tuned.tuning.reached
    assert tuned.tuning.chosen.recall == tuned.tuning.recall == 1.0


def test_full_precision_comes_in_where_8_bits_do_not_suffice(vectors: np.ndarray) -> None:
    ids = np.arange(len(vectors))
    assert FaissIndex.build(vectors, ids, device="cpu", recall=0.9).kind in ("ivf_pq", "ivf_sq8", "sq8")
    exact = FaissIndex.build(vectors, ids, device="cpu", recall=1.0, neighbours=20)
    assert exact.kind == "ivf_flat"
    assert exact.tuning is not None
    assert {point.kind for point in exact.tuning.curve} == {"flat", "sq8", "ivf_pq", "ivf_sq8", "ivf_flat"}
    assert recall(exact, vectors, clusters(50, seed=3), 20) >= 0.99


def test_of_several_kinds_the_fastest_that_suffices_is_taken(vectors: np.ndarray) -> None:
    tuning = tune_index(vectors, ("sq8", "ivf_sq8"), recall=0.9, neighbours=50).tuning
    assert tuning.chosen.us_per_search <= min(
        point.us_per_search for point in tuning.curve if point.kind == "sq8"
    )


def test_where_time_runs_out_the_closest_so_far_is_taken(vectors: np.ndarray) -> None:
    tuned = tune_index(vectors, ("ivf_flat", "sq8"), recall=0.99, neighbours=50, budget_s=1e-6)
    assert (tuned.kind, tuned.effort.lists) == ("ivf_flat", 1)
    assert not tuned.tuning.complete
    assert not tuned.tuning.reached
    assert tuned.tuning.recall < 0.99


def test_a_graph_is_tuned_by_its_breadth(vectors: np.ndarray) -> None:
    tuned = tune_index(vectors[:2_000], ("hnsw",), recall=0.95, neighbours=10)
    assert tuned.tuning.reached
    assert tuned.effort.breadth is not None
    assert tuned.effort.breadth >= 20


def test_memory_is_what_the_index_takes(vectors: np.ndarray) -> None:
    curve = tune_index(vectors, ("ivf_pq", "sq8", "ivf_sq8"), recall=0.5).tuning.curve
    by_kind = {point.kind: point.bytes_per_vector for point in curve}
    assert by_kind["flat"] == 4 * DIM
    assert by_kind["sq8"] == DIM
    assert DIM < by_kind["ivf_sq8"] <= DIM + 4 * DIM / 39 + 1
    assert by_kind["ivf_sq8"] - by_kind["ivf_pq"] == 0.75 * DIM


def test_of_short_codes_no_more_are_compared_again_than_needed(vectors: np.ndarray) -> None:
    tuning = tune_index(vectors, ("ivf_pq",), recall=0.95, neighbours=50).tuning
    efforts = [point.effort for point in tuning.curve if point.kind == "ivf_pq"]
    rescored = [effort.rescored for effort in efforts]
    assert rescored[0] == 800  # 16 x 50, so that lists alone decide at first
    assert rescored == sorted(rescored, reverse=True)
    assert all(effort.neighbours == 50 for effort in efforts)
    assert tuning.reached
    assert rescored[-1] < 800
    # Fewer compared again never make up for lists that were too few before.
    enough = {effort.rescored: effort.lists for effort in reversed(efforts)}
    assert list(enough.values()) == sorted(enough.values(), reverse=True)


def test_more_lists_are_not_tried_where_codes_are_what_fails() -> None:
    """A neighbourhood is one of four clusters, which are far apart: the other three cannot help."""
    rng = np.random.default_rng(4)
    centres = 4.0 * rng.standard_normal((4, 32))
    noisy = centres[rng.integers(0, 4, 4_000)] + rng.standard_normal((4_000, 32))
    vectors = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    tuning = tune_index(vectors, ("ivf_pq",), recall=1.0, neighbours=10, interests=vectors[:100]).tuning
    assert not tuning.reached
    tried = [point for point in tuning.curve if point.kind == "ivf_pq"]
    assert {point.effort.rescored for point in tried} == {160}
    assert tried[-1].recall - tried[-2].recall < 0.001
    assert tried[-1].effort.lists < list_count(4_000)


def test_the_recall_holds_for_users_and_not_only_on_the_average(vectors: np.ndarray) -> None:
    """Users who like two things at once search between clusters, where more lists are near."""
    rng = np.random.default_rng(7)
    pairs = vectors[rng.integers(0, len(vectors), (400, 2))].sum(axis=1)
    interests = (pairs / np.linalg.norm(pairs, axis=1, keepdims=True)).astype(np.float32)
    ids = np.arange(len(vectors))
    options = {"device": "cpu", "recall": 0.95, "neighbours": 50}
    told = FaissIndex.build(vectors, ids, "ivf_flat", interests=interests[:200], **options)
    untold = FaissIndex.build(vectors, ids, "ivf_flat", **options)
    assert told.effort.lists > untold.effort.lists
    # 200 new users: the mean of their recalls has a standard error of about 0.005.
    assert recall(told, vectors, interests[200:], 50) >= 0.95 - 0.015
    assert recall(told, vectors, interests[200:], 50) > recall(untold, vectors, interests[200:], 50)


@given(k=st.integers(1, 5_000), times=st.sampled_from([2, 4, 16]), neighbours=st.integers(1, 1_000))
def test_the_fewer_are_wanted_the_greater_the_share_compared_again(
    k: int, times: int, neighbours: int
) -> None:
    effort = Effort(lists=1, rescored=times * neighbours, neighbours=neighbours)
    assert effort.rescored_for(neighbours) == times * neighbours
    assert effort.rescored_for(4 * neighbours) == 4 * times * neighbours
    assert effort.rescored_for(k) >= k
    if k <= neighbours:
        assert effort.rescored_for(k) / k >= times * 0.999


def test_few_vectors_and_opposite_ones() -> None:
    tuned = tune_index(np.array([[1, 0], [-1, 0]], np.float32), ("flat",))
    assert tuned.tuning.chosen.recall == tuned.tuning.recall == 1.0
    assert tuned.tuning.neighbours == 2


def test_what_was_tried_is_saved_with_the_index(vectors: np.ndarray, tmp_path) -> None:
    index = FaissIndex.build(vectors, np.arange(len(vectors)), "ivf_sq8", device="cpu", recall=0.9)
    index.save(tmp_path)
    loaded = FaissIndex.load(tmp_path, device="cpu")
    assert loaded.tuning == index.tuning
    assert loaded.effort == index.effort
    manifest = json.loads((tmp_path / "index.json").read_text())["content"]
    assert len(manifest["tuning"]["curve"]) == len(index.tuning.curve)
    assert isinstance(loaded.tuning, Tuning)
    assert isinstance(loaded.tuning.chosen, TradeOff)


def test_progress_says_what_begins(vectors: np.ndarray) -> None:
    said: list[str] = []
    tune_index(vectors[:2_000], ("sq8",), progress=said.append)
    assert said == ["finding exact neighbours", "building sq8", "trying sq8"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recall": 0.0}, "recall=0.0 is not in"),
        ({"recall": 1.5}, "recall=1.5 is not in"),
        ({"neighbours": 0}, "nothing to find"),
        ({"budget_s": 0.0}, "no time to try"),
    ],
)
def test_options_outside_their_range(options: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        tune_index(np.eye(3, dtype=np.float32), ("flat",), **options)
