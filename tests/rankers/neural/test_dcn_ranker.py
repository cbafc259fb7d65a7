"""The cross network learns what no linear model can, and serves what torch trained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from explorank.rankers import (
    CorruptRanker,
    DCNOptions,
    DCNRanker,
    FeatureMismatch,
    IdReadingRanker,
    InvalidTraining,
    RankerManifest,
    RankingData,
    RepresentingRanker,
    SequenceRanker,
    TaskOptions,
    TrainingOptions,
)
from explorank.rankers.neural.explaining import network_of
from explorank.rankers.neural.metrics import ndcg

Data = Callable[..., RankingData]


def rows(count: int, seed: int) -> np.ndarray:
    """Draw features of the fixture's ranker, the unknown, the missing and the outrageous among them."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, 5)).astype(np.float32) * 10.0 ** rng.integers(-3, 6, (count, 5))
    features[:, 3] = rng.choice([0, 10, 40, 77, -1, 1e9], count)
    features[:, 4] = rng.integers(-2, 40, count)
    features[rng.random((count, 5)) < 0.1] = np.nan
    return features.astype(np.float32)


def test_learns_a_cross_that_a_linear_model_cannot(dcn: DCNRanker, crossed_data: Data) -> None:
    test = crossed_data(2_000, seed=9)
    features = np.c_[test.features, np.zeros(2_000, np.float32)]
    linear = LogisticRegression().fit(test.features, test.labels)  # on the test rows themselves, and yet
    assert roc_auc_score(test.labels, linear.decision_function(test.features)) < 0.7
    scores = dcn.score(features)
    assert roc_auc_score(test.labels, scores) > 0.93
    # Probabilities: of those said to be likely about as many are there as was said.
    likely = scores > 0.5
    assert scores[likely].mean() == pytest.approx(test.labels[likely].mean(), abs=0.06)


@hypothesis_settings(max_examples=30)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_served_scores_are_torchs(dcn: DCNRanker, count: int, seed: int) -> None:
    features = rows(count, seed)
    readings = dcn._read(features)
    with torch.inference_mode():
        outputs, hidden = network_of(dcn._artefact)(
            torch.from_numpy(readings.numbers), torch.from_numpy(readings.places)
        )
    assert dcn.score(features) == pytest.approx(torch.sigmoid(outputs[:, 0]).numpy(), abs=1e-5)
    assert dcn.representation(features) == pytest.approx(hidden.numpy(), abs=1e-5, rel=1e-5)
    assert dcn.score(features).dtype == np.float64
    assert dcn.representation(features).shape == (count, 16)
    assert np.isfinite(dcn.score(features)).all()


def test_the_scale_of_the_representation_is_that_of_training(crossed_data: Data) -> None:
    """All of these few rows are looked at. A unit that is 0 for all of them has deviation 1."""
    data = crossed_data(400, seed=8)
    options = DCNOptions(objective="binary", hidden=(8,), training=TrainingOptions(epochs=1))
    ranker = DCNRanker.fit(data, options=options)
    mean, deviation = ranker.representation_scale
    hidden = ranker.representation(data.features)
    assert mean == pytest.approx(hidden.mean(axis=0), abs=1e-5)
    spread = hidden.std(axis=0)
    assert deviation == pytest.approx(np.where(spread > 0, spread, 1.0), abs=1e-5)


def test_a_rows_score_is_its_own_whatever_stands_beside_it_and_however_it_is_stored(dcn: DCNRanker) -> None:
    features = rows(300, seed=1)
    scores = dcn.score(features)
    order = np.random.default_rng(0).permutation(300)
    assert dcn.score(features[order]) == pytest.approx(scores[order], abs=1e-6)
    assert dcn.score(features[7:8]) == pytest.approx(scores[7:8], abs=1e-6)
    assert np.array_equal(dcn.score(np.asfortranarray(features)), scores)
    assert np.array_equal(dcn.score(features.astype(np.float64)), scores)  # type: ignore[arg-type]
    many = np.tile(features, (60, 1))  # more than are scored at once
    assert dcn.score(many) == pytest.approx(np.tile(scores, 60), abs=1e-6)


def test_codes_that_training_did_not_see_are_one_and_the_missing_are_another(dcn: DCNRanker) -> None:
    features = np.zeros((6, 5), np.float32)
    features[:, 3] = [77, -1, 990, np.nan, 40, 10]  # 990 was seen once, and two are asked for
    scores = dcn.score(features)
    assert len(set(scores[:3])) == 1
    assert len(set(scores[2:])) == 4
    features[:, 3:] = [[0, 0], [0, 31], [0, 1e9], [0, -5], [0, 1], [0, 2]]
    scores = dcn.score(features)
    assert len(set(scores[:4])) == 1
    assert len(set(scores[3:])) == 3


def test_reads_ids_into_the_columns_of_its_manifest(dcn: DCNRanker) -> None:
    assert isinstance(dcn, IdReadingRanker)
    assert isinstance(dcn, RepresentingRanker)
    assert dcn.id_columns == ("item_code",)
    assert dcn.manifest.feature_names == ("a", "b", "noise", "kind", "item_code")
    assert dcn.manifest.categorical == ("kind", "item_code")
    assert dcn.read_ids(["item-0", "item-1", "new"], ["item-1"]).tolist() == [[1], [2], [0]]
    assert dcn.read_ids([], []).shape == (0, 1)


def test_the_manifest_says_what_it_is(dcn: DCNRanker) -> None:
    manifest = dcn.manifest
    assert (manifest.name, manifest.objective, manifest.training_window) == ("dcn", "binary", (100.0, 200.0))
    assert manifest.details["precision"]["kind"] == "float32"
    assert manifest.metrics["rows"] == 3_000
    assert manifest.scale["a"] == pytest.approx((0, 1), abs=0.1)
    assert manifest.scale["item_code"] == (0.0, 1.0)
    dcn.check(manifest.feature_names)
    with pytest.raises(FeatureMismatch, match="missing item_code"):
        dcn.check(manifest.feature_names[:-1])
    with pytest.raises(FeatureMismatch, match=r"takes \(n, 5\)"):
        dcn.score(np.zeros((2, 4), np.float32))


def test_explanations_sum_to_the_score_and_find_what_matters(dcn: DCNRanker, crossed_data: Data) -> None:
    features = np.r_[rows(30, seed=4), np.c_[crossed_data(30, seed=9).features, np.zeros(30)]].astype(
        np.float32
    )
    told = dcn.explain(features)
    assert told.method == "integrated_gradients"
    assert told.link == "logistic"
    assert told.scores == pytest.approx(dcn.score(features), abs=1e-5)
    assert told.attributions.shape == (60, 5)
    share = np.abs(told.attributions[30:]).mean(axis=0)
    assert share[[0, 1, 3]].min() > 3 * share[[2, 4]].max()
    average = np.zeros((1, 5), np.float32)
    average[:, :3] = network_of(dcn._artefact).standardise.center.numpy()
    average[:, 3] = 77
    nothing = dcn.explain(average)  # the baseline itself
    assert np.abs(nothing.attributions).max() < 1e-6
    assert dcn.explain(features[:0]).attributions.shape == (0, 5)


def test_comes_back_as_it_was_saved(dcn: DCNRanker, tmp_path: Path) -> None:
    dcn.save(tmp_path)
    again = DCNRanker.load(tmp_path)
    features = rows(50, seed=2)
    assert np.array_equal(again.score(features), dcn.score(features))
    assert again.manifest == RankerManifest.read(tmp_path / "manifest.json")
    assert again.explain(features[:3]).scores == pytest.approx(dcn.score(features[:3]), abs=1e-5)
    assert b"rankers/" not in (tmp_path / "model.onnx").read_bytes()  # no paths of where it was trained


@pytest.mark.parametrize("name", ["model.onnx", "vocabulary.npz", "weights.safetensors", "manifest.json"])
def test_damage_is_named(dcn: DCNRanker, name: str, tmp_path: Path) -> None:
    dcn.save(tmp_path)
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptRanker, match=name.replace(".", r"\.")):
        DCNRanker.load(tmp_path)
    file.unlink()
    with pytest.raises(CorruptRanker, match=rf"{name}.* cannot be read"):
        DCNRanker.load(tmp_path)


def test_one_kind_is_not_loaded_as_another(dcn: DCNRanker, tmp_path: Path) -> None:
    dcn.save(tmp_path)
    with pytest.raises(CorruptRanker, match="'dcn' ranker, and a 'sequence' one"):
        SequenceRanker.load(tmp_path)


def test_serves_without_torch_and_from_many_threads(dcn: DCNRanker, tmp_path: Path) -> None:
    dcn.save(tmp_path)
    features = rows(200, seed=3)
    np.save(tmp_path / "features.npy", features)
    code = (
        "import sys, numpy as np; from explorank.rankers import DCNRanker\n"
        f"ranker = DCNRanker.load({str(tmp_path)!r})\n"
        f"np.save({str(tmp_path / 'scores.npy')!r}, ranker.score(np.load({str(tmp_path / 'features.npy')!r})))\n"
        "late = {'torch', 'onnx', 'captum', 'safetensors', 'pandas', 'lightgbm', 'onnxscript'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    expected = dcn.score(features)
    assert np.array_equal(np.load(tmp_path / "scores.npy"), expected)
    with ThreadPoolExecutor(8) as threads:
        assert all(np.array_equal(scores, expected) for scores in threads.map(dcn.score, [features] * 64))


def test_says_what_to_install_where_onnxruntime_is_missing(dcn: DCNRanker, tmp_path: Path) -> None:
    dcn.save(tmp_path)
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from explorank.rankers import DCNRanker, RankerError\n"
        "try:\n"
        f"    DCNRanker.load({str(tmp_path)!r})\n"
        "except RankerError as error:\n"
        "    assert \"pip install 'explorank[neural]'\" in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: replace(data, labels=np.ones(len(data))), r"All training labels are \[1.0\]"),
        (lambda data: replace(data, labels=data.labels * 2), "knows 0 and 1 only"),
        (
            lambda data: replace(data, features=np.ones_like(data.features)),
            "Each of the 4 features is constant",
        ),
        (lambda data: data.take(np.arange(20)), "20 training rows"),
    ],
)
def test_data_that_teach_nothing_are_refused(
    crossed_data: Data, change: Callable[..., RankingData], message: str
) -> None:
    with pytest.raises(InvalidTraining, match=message):
        DCNRanker.fit(change(crossed_data(100, seed=1)), options=DCNOptions(objective="binary"))


def test_ranking_needs_requests_ids_and_free_names(crossed_data: Data) -> None:
    data = crossed_data(100, seed=1)
    with pytest.raises(InvalidTraining, match="has no groups"):
        DCNRanker.fit(data)
    grouped = replace(data, groups=np.full(20, 5))
    with pytest.raises(InvalidTraining, match="all labels are equal"):
        DCNRanker.fit(replace(grouped, labels=np.zeros(100)))
    with pytest.raises(InvalidTraining, match="gains"):
        DCNRanker.fit(replace(grouped, labels=data.labels - 1))
    with pytest.raises(InvalidTraining, match="no item_ids"):
        DCNRanker.fit(grouped, options=DCNOptions(item_ids=True))
    names = replace(grouped, feature_names=("a", "b", "item_code", "kind"))
    with pytest.raises(InvalidTraining, match="'item_code' has the name of a column"):
        DCNRanker.fit(replace(names, item_ids=np.full(100, "x")), options=DCNOptions(item_ids=True))
    with pytest.raises(InvalidTraining, match="validation data has other feature columns"):
        DCNRanker.fit(grouped, valid=replace(names, called="validation"))


@pytest.mark.parametrize("objective", ["listwise", "pairwise"])
def test_orders_requests_of_any_length_and_lives_with_a_constant_column(
    objective: str, crossed_data: Data
) -> None:
    data = crossed_data(1_500, seed=1)
    data.features[:, 2] = 3.0
    sizes = np.tile([4, 11], 100)
    options = DCNOptions(
        objective=objective,  # type: ignore[arg-type]
        hidden=(16,),
        rank=3,
        structure="parallel",
        training=TrainingOptions(epochs=12, batch_rows=128, learning_rate=1e-2),
    )
    split = replace(data, groups=sizes)
    ranker = DCNRanker.fit(
        split.take(np.arange(150)),
        valid=replace(split.take(np.arange(150, 200)), called="validation"),
        options=options,
    )
    assert ranker.manifest.metrics["ndcg@10"] > 0.93
    told = ranker.explain(data.features[:5])
    assert told.link == "identity"
    assert told.scores == pytest.approx(ranker.score(data.features[:5]), abs=1e-4)


def test_heads_foresee_what_they_are_for(crossed_data: Data) -> None:
    data = crossed_data(3_000, seed=1)
    rng = np.random.default_rng(0)
    clicked = data.labels == 1
    bought = np.where(clicked, (rng.random(3_000) < np.where(data.features[:, 2] > 0, 0.8, 0.2)), np.nan)
    paid = 50 + 10 * data.features[:, 0].astype(float)
    paid[::2] = np.nan
    options = DCNOptions(
        objective="binary",
        hidden=(32,),
        tasks=TaskOptions(
            outcomes=("bought", "paid"), entire_space="bought", weighting="uncertainty", score={"bought": 1.0}
        ),
        training=TrainingOptions(epochs=12, batch_rows=128, learning_rate=1e-2),
    )
    ranker = DCNRanker.fit(replace(data, outcomes={"bought": bought, "paid": paid}), options=options)
    test = crossed_data(2_000, seed=2)
    seen = ranker.foresee(test.features)
    assert np.array_equal(ranker.score(test.features), seen["bought"])
    # The product's second factor is P(bought | clicked): 0.78 and 0.20 of the clicked rows that it was learnt from.
    given_click = seen["bought"] / seen["label"]
    assert (given_click <= 1).all()
    clicks, high = test.labels == 1, test.features[:, 2] > 0
    assert given_click[clicks & high].mean() > 0.6
    assert given_click[clicks & ~high].mean() < 0.35
    assert np.abs(seen["paid"] - (50 + 10 * test.features[:, 0])).mean() < 3
    told = ranker.explain(test.features[:20])
    assert told.link == "identity"
    assert told.scores == pytest.approx(seen["bought"][:20], abs=1e-5)


def test_training_stops_by_the_outcome_that_serves() -> None:
    """On the later slice the label runs against the outcome, so that it falls while the outcome is learnt."""

    def requests(seed: int, sign: float, called: str) -> RankingData:
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((2_000, 2)).astype(np.float32)
        later = features[:, 0] if sign > 0 else -features[:, 1]
        return RankingData(
            features=features,
            feature_names=("a", "b"),
            labels=later > 0.5,
            outcomes={"bought": (features[:, 1] > 0.5).astype(float)},
            groups=np.full(200, 10),
            called=called,
        )

    options = DCNOptions(
        objective="binary",
        hidden=(8,),
        tasks=TaskOptions(outcomes=("bought",), score={"bought": 1.0}),
        training=TrainingOptions(epochs=6, batch_rows=100, learning_rate=2e-2, patience=2),
    )
    valid = requests(2, -1.0, "validation")

    ranker = DCNRanker.fit(requests(1, 1.0, "training"), valid=valid, options=options)

    reached = ndcg(ranker.score(valid.features), valid.outcomes["bought"], valid.groups)
    assert ranker.manifest.metrics["ndcg@10"] == pytest.approx(reached, abs=1e-6)
    assert reached > 0.95
    assert ranker.manifest.metrics["best_epoch"] > 1


@pytest.mark.parametrize(("tolerance", "kind"), [(1.0, "int8"), (0.0, "float32")])
def test_int8_serves_only_where_it_costs_little(tolerance: float, kind: str, crossed_data: Data) -> None:
    data = replace(crossed_data(600, seed=1), groups=np.full(60, 10))
    options = DCNOptions(training=TrainingOptions(epochs=3, quantize=True, quantize_tolerance=tolerance))
    valid = replace(crossed_data(600, seed=2), groups=np.full(60, 10), called="validation")
    ranker = DCNRanker.fit(data, valid=valid, options=options)
    precision = ranker.manifest.details["precision"]
    if kind == "int8":  # at no tolerance the coin may fall on either side
        assert precision["kind"] == kind
        scores = ranker.score(valid.features)
        assert np.array_equal(ranker.score(valid.features[5:6]), scores[5:6])  # no batch has a say
    assert "NDCG@10 on the validation data is" in precision["reason"]


def test_int8_without_proof_is_refused_with_the_reason(crossed_data: Data) -> None:
    data = replace(crossed_data(100, seed=1), groups=np.full(10, 10))
    options = DCNOptions(training=TrainingOptions(epochs=1, quantize=True))
    precision = DCNRanker.fit(data, options=options).manifest.details["precision"]
    assert precision["kind"] == "float32"
    assert "no validation groups" in precision["reason"]
