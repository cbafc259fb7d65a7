"""The sequence ranker reads histories in their order, and new items from what they are like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from explorank.rankers import (
    IdReadingRanker,
    InvalidTraining,
    RankingData,
    SequenceOptions,
    SequenceRanker,
    features_for,
)
from explorank.rankers.neural.explaining import network_of
from explorank.rankers.neural.sequence_ranker import _blocks, _rows_of

Data = Callable[..., RankingData]
Options = Callable[..., SequenceOptions]


def hits(ranker: SequenceRanker, data: RankingData) -> float:
    """Return the share of requests whose best candidate is the one that was taken up."""
    scores = ranker.score(features_for(ranker, data)).reshape(-1, 5)
    return float((scores.argmax(axis=1) == data.labels.reshape(-1, 5).argmax(axis=1)).mean())


def test_order_is_learnt_where_order_is_all_there_is(
    stepping_data: Data, small_sequence_options: Options
) -> None:
    train, test = stepping_data(1_500, seed=1), stepping_data(1_000, seed=2)
    learning = {"epochs": 10, "batch_rows": 250, "learning_rate": 1e-2, "dropout": 0.0}
    reached = {}
    for ordered in (True, False):
        options = small_sequence_options(content=(), width=16, layers=1, ordered=ordered, training=learning)
        reached[ordered] = hits(SequenceRanker.fit(train, options=options, seed=0), test)
    # Each of the five candidates follows one of the five items of the bag, so without order 1 in 5 is hit by chance.
    # Over 1,000 requests chance has a standard deviation of 1.3 points: 0.25 would be four of them above.
    assert reached[False] < 0.25
    assert reached[True] > 0.8


@hypothesis_settings(max_examples=25)
@given(st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_served_scores_are_torchs_whatever_rows_share_a_history(
    sequence: SequenceRanker, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, 12)).astype(np.float32)
    features[:, 2] = rng.integers(-1, 5, count)
    features[:, 3] = rng.choice([0, 1, 5, 10, 11, -1, np.nan, 1e9], count)
    histories = rng.integers(0, 12, (3, 8)) * (rng.random((3, 1)) < 0.8)
    features[:, 4:] = histories[rng.integers(0, 3, count)] if seed % 2 else histories[0]
    features[rng.random((count, 12)) < 0.05] = np.nan
    readings = sequence._read(features)
    assert readings.items is not None
    assert readings.histories is not None
    with torch.inference_mode():
        outputs, hidden, _, items = network_of(sequence._artefact)(
            torch.from_numpy(readings.numbers)[:, None],
            torch.from_numpy(readings.places)[:, None],
            torch.from_numpy(readings.items)[:, None],
            torch.from_numpy(readings.histories),
        )
    assert sequence.score(features) == pytest.approx(outputs[:, 0, 0].numpy(), abs=1e-5, rel=1e-5)
    assert sequence.representation(features) == pytest.approx(hidden[:, 0].numpy(), abs=1e-5, rel=1e-5)
    assert sequence.item_vectors(features) == pytest.approx(items[:, 0].numpy(), abs=1e-5)
    order = rng.permutation(count)
    assert sequence.score(features[order]) == pytest.approx(sequence.score(features)[order], abs=1e-5)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=8))
def test_runs_of_one_history_go_together(runs: list[tuple[int, int]]) -> None:
    histories = np.repeat([number for number, _ in runs], [size for _, size in runs])[:, None].astype(
        np.float32
    )
    seen = []
    for users, part in _blocks(histories):
        taken = np.arange(len(histories))[_rows_of(users, part)]
        shared = histories[taken].reshape(len(users), len(part))
        assert (shared == histories[users]).all()
        seen += taken.tolist()
    assert sorted(seen) == list(range(len(histories)))


def test_one_request_runs_the_transformer_once() -> None:
    (block,) = _blocks(np.ones((500, 50), np.float32))
    assert _rows_of(*block) == slice(0, 500)


def padded(ranker: SequenceRanker, features: np.ndarray) -> np.ndarray:
    """Return torch's scores of rows with one history each, which is read with all of its padding."""
    readings = ranker._read(features)
    assert readings.items is not None
    assert readings.histories is not None
    with torch.inference_mode():
        outputs = network_of(ranker._artefact)(
            torch.from_numpy(readings.numbers)[:, None],
            torch.from_numpy(readings.places)[:, None],
            torch.from_numpy(readings.items)[:, None],
            torch.from_numpy(readings.histories),
        )[0]
    return outputs[:, 0, 0].numpy()


def check_padding(ranker: SequenceRanker, length: int, others: np.ndarray) -> None:
    items = [f"item-{item}" for item in range(10)]
    for known in range(length + 1):
        features = np.concatenate([others, ranker.read_ids(items, items[:known])], axis=1)
        ((rows, feed),) = ranker._feeds(features)
        assert rows == slice(0, 10)
        assert feed["histories"].shape == (1, max(known, min(length, 2)))
        assert ranker.score(features) == pytest.approx(padded(ranker, features), abs=1e-5)
        matches = ranker.item_vectors(features) @ ranker.user_vector(items[:known])
        assert matches == pytest.approx(ranker.representation(features)[:, -1], abs=1e-5)


def test_padding_is_left_out_and_changes_nothing(sequence: SequenceRanker) -> None:
    check_padding(sequence, 8, np.zeros((10, 3), np.float32))


@pytest.mark.parametrize(("length", "ordered"), [(1, True), (3, False)])
def test_so_it_is_where_little_is_read_or_in_no_order(
    stepping_data: Data, small_sequence_options: Options, length: int, ordered: bool
) -> None:
    options = small_sequence_options(content=(), history=length, ordered=ordered, training={"epochs": 1})
    ranker = SequenceRanker.fit(stepping_data(20, seed=1), options=options)
    check_padding(ranker, length, np.zeros((10, 0), np.float32))


def test_a_graph_of_an_earlier_version_is_given_all_of_the_padding(sequence: SequenceRanker) -> None:
    graph = onnx.load_model_from_string(sequence._artefact.model)
    (histories,) = [one for one in graph.graph.input if one.name == "histories"]
    histories.type.tensor_type.shape.dim[1].Clear()
    histories.type.tensor_type.shape.dim[1].dim_value = 8
    earlier = SequenceRanker(replace(sequence._artefact, model=graph.SerializeToString()))
    features = np.c_[np.zeros((3, 3), np.float32), sequence.read_ids(["item-1", "item-7", "new"], ["item-2"])]
    ((_, feed),) = earlier._feeds(features)
    assert feed["histories"].tolist() == [[0, 0, 0, 0, 0, 0, 0, 3]]
    assert earlier.score(features) == pytest.approx(sequence.score(features), abs=1e-5)
    assert earlier.user_vector(["item-2"]) == pytest.approx(sequence.user_vector(["item-2"]), abs=1e-5)


def test_reads_ids_into_the_columns_of_its_manifest(sequence: SequenceRanker) -> None:
    assert isinstance(sequence, IdReadingRanker)
    assert sequence.id_columns == ("item_code", *(f"history_{place:02d}" for place in range(1, 9)))
    assert sequence.manifest.feature_names == ("size", "price", "kind", *sequence.id_columns)
    columns = sequence.read_ids(["item-3", "new"], ["item-0", "new", "item-9"])
    assert columns.dtype == np.float32
    assert columns.tolist() == [[4, *[0] * 6, 1, 10], [0, *[0] * 6, 1, 10]]
    assert sequence.read_ids([], []).shape == (0, 9)


def test_features_of_data_are_what_requests_read_one_by_one(
    sequence: SequenceRanker, dense_stepping_data: Data
) -> None:
    data = dense_stepping_data(6, seed=4)
    assert data.item_ids is not None
    assert data.histories is not None
    parts = [
        sequence.read_ids(data.item_ids[5 * request : 5 * request + 5].tolist(), data.histories[request])
        for request in range(6)
    ]
    expected = np.c_[data.features, np.concatenate(parts)]
    assert np.array_equal(features_for(sequence, data), expected, equal_nan=True)


def test_the_users_vector_is_what_the_representation_matches_items_with(sequence: SequenceRanker) -> None:
    history = ["item-1", "item-5", "item-2"]
    features = np.c_[np.zeros((3, 3), np.float32), sequence.read_ids(["item-1", "item-7", "new"], history)]
    vector, items = sequence.user_vector(history), sequence.item_vectors(features)
    assert vector.dtype == np.float32
    assert items @ vector == pytest.approx(sequence.representation(features)[:, -1], abs=1e-5)
    assert not np.array_equal(vector, sequence.user_vector(history[::-1]))
    assert np.array_equal(vector, sequence.user_vector(["new", *history]))
    assert np.array_equal(sequence.user_vector([]), np.zeros(8))


def test_items_that_training_never_saw_are_known_by_their_content(
    stepping_data: Data, small_sequence_options: Options
) -> None:
    def with_content(data: RankingData) -> RankingData:
        """Give each item two numbers: where it stands on the circle."""
        assert data.item_ids is not None
        angle = np.array([int(one.split("-")[1]) for one in data.item_ids]) * 2 * np.pi / 10
        return replace(data, features=np.c_[np.cos(angle), np.sin(angle)], feature_names=("x", "y"))

    learning = {"epochs": 12, "batch_rows": 250, "learning_rate": 1e-2, "dropout": 0.0, "unknown_rate": 0.3}
    options = small_sequence_options(width=16, layers=1, content=("x", "y"), training=learning)
    ranker = SequenceRanker.fit(with_content(stepping_data(1_500, seed=1)), options=options)
    test = with_content(stepping_data(500, seed=2))
    assert test.item_ids is not None
    renamed = np.array([f"new-{one}" for one in test.item_ids])
    assert hits(ranker, test) > 0.8
    assert hits(ranker, replace(test, item_ids=renamed)) > 0.6  # 0.2 by chance
    assert hits(ranker, replace(test, item_ids=renamed, features=np.full((2_500, 2), np.nan))) < 0.3


def test_explanations_sum_to_the_score(sequence: SequenceRanker, dense_stepping_data: Data) -> None:
    features = features_for(sequence, dense_stepping_data(3, seed=4))
    told = sequence.explain(features)
    assert told.feature_names == sequence.manifest.feature_names
    assert told.scores == pytest.approx(sequence.score(features), abs=1e-5)
    assert (told.attributions[:, 4:7] == 0).all()  # nothing stands in the first places of these histories
    assert (told.attributions[:, 7:] != 0).any(axis=0).all()


def test_comes_back_as_it_was_saved_and_serves_without_torch(
    sequence: SequenceRanker, dense_stepping_data: Data, tmp_path: Path
) -> None:
    sequence.save(tmp_path)
    features = features_for(sequence, dense_stepping_data(10, seed=4))
    np.save(tmp_path / "features.npy", features)
    code = (
        "import sys, numpy as np; from explorank.rankers import SequenceRanker\n"
        f"ranker = SequenceRanker.load({str(tmp_path)!r})\n"
        "ranker.read_ids(['item-1'], ['item-2']), ranker.user_vector(['item-2'])\n"
        f"np.save({str(tmp_path / 'scores.npy')!r}, ranker.score(np.load({str(tmp_path / 'features.npy')!r})))\n"
        "assert not {'torch', 'onnx', 'captum', 'safetensors', 'lightgbm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert np.array_equal(np.load(tmp_path / "scores.npy"), sequence.score(features))


def test_the_same_seed_gives_the_same_model(
    sequence: SequenceRanker, small_sequence_options: Options, dense_stepping_data: Data
) -> None:
    again = SequenceRanker.fit(dense_stepping_data(80, seed=3), options=small_sequence_options())
    assert again.manifest.version == sequence.manifest.version


def test_data_without_ids_or_histories_are_refused(
    dense_stepping_data: Data, small_sequence_options: Options
) -> None:
    data = dense_stepping_data(30, seed=3)
    with pytest.raises(InvalidTraining, match="no item_ids"):
        SequenceRanker.fit(replace(data, item_ids=None))
    with pytest.raises(InvalidTraining, match="no histories"):
        SequenceRanker.fit(replace(data, histories=None))
    with pytest.raises(InvalidTraining, match="'color' is no numeric feature"):
        SequenceRanker.fit(data, options=small_sequence_options(content=("color",)))
    with pytest.raises(InvalidTraining, match="'history_01' has the name"):
        SequenceRanker.fit(replace(data, feature_names=("size", "history_01", "kind")))
