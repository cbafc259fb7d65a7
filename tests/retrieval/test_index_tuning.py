"""Tuning against a brute-force search that this file does itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from explorank.retrieval import FaissIndex, InvalidOption, TradeOff, Tuning, tune_index

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
    assert FaissIndex.build(vectors, ids, device="cpu", recall=0.9).kind in ("ivf_sq8", "sq8")
    exact = FaissIndex.build(vectors, ids, device="cpu", recall=1.0, neighbours=20)
    assert exact.kind == "ivf_flat"
    assert exact.tuning is not None
    assert {point.kind for point in exact.tuning.curve} == {"flat", "sq8", "ivf_sq8", "ivf_flat"}
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
    curve = tune_index(vectors, ("sq8", "ivf_sq8"), recall=0.5).tuning.curve
    by_kind = {point.kind: point.bytes_per_vector for point in curve}
    assert by_kind["flat"] == 4 * DIM
    assert by_kind["sq8"] == DIM
    assert DIM < by_kind["ivf_sq8"] <= DIM + 4 * DIM / 39 + 1


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
