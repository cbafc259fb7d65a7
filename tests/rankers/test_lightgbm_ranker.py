"""The ranker learns what can be learnt, scores only the features it knows, and is what its manifest says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from explorank.rankers import (
    CorruptRanker,
    FeatureMismatch,
    HurriedRanker,
    InvalidTraining,
    LightGBMOptions,
    LightGBMRanker,
    RankerManifest,
    RankingData,
    feature_hash,
)

NAMES = ("age", "price", "genre")
GROUP = 10


def data(requests: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, grades and groups; within a request the grade rises with `price` alone."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((requests * GROUP, 3)).astype(np.float32)
    features[:, 2] = rng.integers(0, 4, requests * GROUP)
    ranks = features[:, 1].reshape(requests, GROUP).argsort(axis=1).argsort(axis=1)
    return features, (ranks // 4).ravel(), np.full(requests, GROUP)


_OF_OPTIONS = {field.name for field in dataclasses.fields(LightGBMOptions)}


def fit(
    *, seed: int = 0, valid: tuple[Any, Any, Any] | None = None, progress: Any = None, **changes: Any
) -> LightGBMRanker:
    features, labels, groups = data(60, seed=1)
    parts: dict[str, Any] = {
        "features": features,
        "labels": labels,
        "groups": groups,
        "feature_names": NAMES,
        "rounds": 20,
        "num_threads": 1,
        "learning_rate": 0.1,
        "num_leaves": 31,
        "min_data_in_leaf": 20,
        "feature_fraction": 1.0,
        "lambda_l2": 0.0,
    } | changes
    options = {name: parts.pop(name) for name in _OF_OPTIONS & set(parts)}
    training = RankingData(**parts)
    later = None
    if valid is not None:
        columns = dict(zip(("features", "labels", "groups"), valid, strict=True))
        later = RankingData(**{**parts, **columns}, called="validation")
    return LightGBMRanker.fit(
        training, valid=later, options=LightGBMOptions(**options), seed=seed, progress=progress
    )


class Heard:
    """Notes what training tells."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.metrics: list[tuple[int, dict[str, float]]] = []

    def __call__(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def measured(self, step: int, metrics: Any) -> None:
        self.metrics.append((step, dict(metrics)))


@pytest.fixture(scope="module")
def ranker() -> LightGBMRanker:
    return fit(window=(100.0, 200.0))


def test_each_round_tells_what_was_measured() -> None:
    heard = Heard()

    trained = fit(valid=data(20, seed=9), rounds=6, progress=heard)

    assert heard.steps == [(step, 6) for step in range(1, 7)]
    assert [step for step, _ in heard.metrics] == [1, 2, 3, 4, 5, 6]
    best = max(metrics["valid/ndcg@10"] for _, metrics in heard.metrics)
    assert best == pytest.approx(trained.manifest.metrics["ndcg@10"])


def test_few_rows_lower_what_a_leaf_needs() -> None:
    assert LightGBMOptions().of_lightgbm(100_000)["min_data_in_leaf"] == 100
    assert LightGBMOptions().of_lightgbm(1_000)["min_data_in_leaf"] == 20
    assert LightGBMOptions().of_lightgbm(10)["min_data_in_leaf"] == 10
    given = LightGBMOptions(min_data_in_leaf=7, params={"num_leaves": 3}).of_lightgbm(10)
    assert (given["min_data_in_leaf"], given["num_leaves"]) == (7, 3)


def test_scores_rise_with_the_feature_that_matters(ranker: LightGBMRanker) -> None:
    everyone = data(30, seed=14)[0]
    scores = []
    for price in (-1.5, -0.5, 0.0, 0.5, 1.5):
        everyone[:, 1] = price
        scores.append(ranker.score(everyone))
    assert scores[0].dtype == np.float64
    # Between such distant prices the order holds for nearly all of the 300 rows, whatever else is in them.
    assert (np.diff(scores, axis=0) > 0).mean() > 0.98
    assert (scores[-1] > scores[0]).all()


def test_later_requests_are_ranked_right(ranker: LightGBMRanker) -> None:
    features, labels, _ = data(50, seed=2)
    scores, grades = ranker.score(features).reshape(50, GROUP), labels.reshape(50, GROUP)
    chosen = np.take_along_axis(grades, scores.argmax(axis=1)[:, None], 1)
    # Grade 2 is the best two of ten; by chance 20 % of the choices would be.
    assert (chosen == 2).mean() > 0.9


def test_binary_scores_are_probabilities() -> None:
    rng = np.random.default_rng(3)
    features = rng.standard_normal((4_000, 3)).astype(np.float32)
    labels = rng.random(4_000) < np.where(features[:, 0] > 0, 0.8, 0.2)
    ranker = fit(features=features, labels=labels, groups=None, objective="binary", params={"num_leaves": 4})
    high, low = ranker.score(np.array([[1.5, 0, 0], [-1.5, 0, 0]], np.float32))
    # The true rates are 0.8 and 0.2; twenty rounds at rate 0.1 shrink towards 0.5 by an eighth.
    assert high == pytest.approx(0.8, abs=0.1)
    assert low == pytest.approx(0.2, abs=0.1)


def test_training_stops_on_the_later_slice_and_keeps_its_best_round() -> None:
    rng = np.random.default_rng(4)
    features, _, groups = data(60, seed=4)
    seen: list[tuple[int, int]] = []
    noise = fit(
        features=features,
        labels=rng.integers(0, 2, 600),
        valid=(features[:200], rng.integers(0, 2, 200), groups[:20]),
        rounds=500,
        early_stopping_rounds=5,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert noise.manifest.metrics["trees"] + 5 == len(seen) < 500
    assert seen[0] == (1, 500)
    assert 0 < noise.manifest.metrics["ndcg@10"] <= 1
    assert noise._booster.num_trees() == noise.manifest.metrics["trees"]


def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    subsampled = {"bagging_fraction": 0.5, "bagging_freq": 1}
    one, two = fit(params=subsampled, seed=5), fit(params=subsampled, seed=5)
    assert one.manifest.model_sha256 == two.manifest.model_sha256
    assert one.manifest.version == two.manifest.version
    assert fit(params=subsampled, seed=6).manifest.version != one.manifest.version
    rows = data(5, seed=7)[0]
    np.testing.assert_array_equal(fit(num_threads=2).score(rows), fit(num_threads=1).score(rows))


def test_the_number_of_threads_does_not_change_the_trees(tmp_path: Path) -> None:
    texts = []
    for threads in (1, 3):
        fit(num_threads=threads).save(tmp_path)
        texts.append((tmp_path / "model.txt").read_text().partition("end of trees")[0])
    assert texts[0] == texts[1]


def test_missing_values_are_scored(ranker: LightGBMRanker) -> None:
    assert np.isfinite(ranker.score(np.full((2, 3), np.nan, np.float32))).all()
    assert np.isfinite(ranker.score(np.full((2, 3), np.inf, np.float32))).all()
    assert ranker.score(np.zeros((0, 3), np.float32)).shape == (0,)


def test_rows_do_not_influence_each_other(ranker: LightGBMRanker) -> None:
    rows = data(3, seed=8)[0]
    alone = np.concatenate([ranker.score(row[None, :]) for row in rows])
    np.testing.assert_array_equal(ranker.score(rows), alone)
    np.testing.assert_array_equal(ranker.score(np.asfortranarray(rows)), alone)
    with ThreadPoolExecutor(4) as pool:
        for scores in pool.map(ranker.score, [rows] * 40):
            np.testing.assert_array_equal(scores, alone)


def test_attributions_sum_to_the_score(ranker: LightGBMRanker) -> None:
    rows = data(3, seed=9)[0]
    explained = ranker.explain(rows)
    assert explained.attributions.shape == (30, 3)
    np.testing.assert_allclose(explained.scores, ranker.score(rows), atol=1e-9)
    size = np.abs(explained.attributions).mean(axis=0)
    assert size[1] > 10 * size[0]
    assert ranker.explain(rows[:0]).attributions.shape == (0, 3)


def test_attributions_of_a_probability_sum_to_its_log_odds() -> None:
    ranker = fit(labels=FEATURES[:, 1] > 0, groups=None, objective="binary")
    explained = ranker.explain(FEATURES)
    np.testing.assert_allclose(explained.scores, ranker.score(FEATURES), atol=1e-9)


def test_the_cheaper_way_is_the_first_fifth_of_the_trees(ranker: LightGBMRanker) -> None:
    rows = data(5, seed=15)[0]
    assert ranker.cheaper_way == "the first 4 of 20 rounds of trees"
    np.testing.assert_array_equal(ranker.score_cheaply(rows), ranker._booster.predict(rows, num_iteration=4))
    assert isinstance(ranker, HurriedRanker)


def test_a_single_tree_has_no_cheaper_way() -> None:
    single = fit(rounds=1)
    assert single.cheaper_way == ""
    np.testing.assert_array_equal(single.score_cheaply(FEATURES), single.score(FEATURES))


def test_a_categorical_feature_has_no_order() -> None:
    rng = np.random.default_rng(10)
    features = rng.standard_normal((2_000, 3)).astype(np.float32)
    features[:, 2] = rng.integers(0, 6, 2_000)
    labels = np.isin(features[:, 2], [1, 4])
    ranker = fit(features=features, labels=labels, groups=None, objective="binary", categorical=["genre"])
    rows = np.zeros((6, 3), np.float32)
    rows[:, 2] = np.arange(6)
    assert (ranker.score(rows) > 0.5).tolist() == [False, True, False, False, True, False]
    assert ranker.manifest.categorical == ("genre",)


def test_the_manifest_tells_what_it_was_trained_on() -> None:
    features = data(60, seed=1)[0]
    features[::2, 0] = np.nan
    features[:, 2] = 7
    manifest = fit(features=features, window=(100.0, 200.0)).manifest
    assert (manifest.name, manifest.objective) == ("lightgbm", "lambdarank")
    assert manifest.feature_names == NAMES
    assert manifest.feature_hash == feature_hash(NAMES) != feature_hash(NAMES[::-1])
    assert manifest.training_window == (100.0, 200.0)
    assert manifest.metrics == {"rows": 600.0, "trees": 20.0}
    assert manifest.feature_mean is not None
    assert manifest.feature_std is not None
    exact = features.astype(np.float64)
    np.testing.assert_allclose(manifest.feature_mean, np.nanmean(exact, axis=0), rtol=1e-6)
    np.testing.assert_allclose(manifest.feature_std, [*np.nanstd(exact, axis=0)[:2], 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["age", "genre"], "missing price"),
        (["age", "price", "genre", "weight"], "unexpected weight"),
        (["age", "cost", "genre"], "missing price; unexpected cost"),
        (["age", "price", "genre", "age"], "unexpected age"),
        (["age", "genre", "price"], "order differs from column 1 on, which is price and came as genre"),
        ([], "missing age, price, genre"),
    ],
)
def test_other_features_are_refused_by_name(ranker: LightGBMRanker, names: list[str], said: str) -> None:
    with pytest.raises(FeatureMismatch, match=said):
        ranker.check(names)
    ranker.check(NAMES)


@pytest.mark.parametrize("shape", [(2, 2), (2, 4), (3,), (0, 2)])
def test_other_shapes_are_refused(ranker: LightGBMRanker, shape: tuple[int, ...]) -> None:
    for use in (ranker.score, ranker.explain):
        with pytest.raises(FeatureMismatch, match=r"takes \(n, 3\)"):
            use(np.zeros(shape, np.float32))


def test_saved_and_loaded(ranker: LightGBMRanker, tmp_path: Path) -> None:
    ranker.save(tmp_path / "ranker")
    loaded = LightGBMRanker.load(tmp_path / "ranker")
    assert loaded.manifest == ranker.manifest
    rows = data(5, seed=11)[0]
    np.testing.assert_array_equal(loaded.score(rows), ranker.score(rows))
    text = (tmp_path / "ranker" / "model.txt").read_text()
    np.testing.assert_array_equal(lightgbm.Booster(model_str=text).predict(rows), ranker.score(rows))


@pytest.mark.parametrize("name", ["model.txt", "manifest.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"1", b"2", 1),
        lambda content: b"",
        lambda content: b"[]",
        lambda content: b"\x80\x04 no text",
        None,
    ],
    ids=["truncated", "changed", "empty", "foreign", "binary", "missing"],
)
def test_a_damaged_file_is_named_and_refused(
    ranker: LightGBMRanker, name: str, damage: Callable[[bytes], bytes] | None, tmp_path: Path
) -> None:
    ranker.save(tmp_path)
    file = tmp_path / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CorruptRanker, match=name.replace(".", r"\.")):
        LightGBMRanker.load(tmp_path)


def test_a_manifest_of_another_model_or_version_is_refused(ranker: LightGBMRanker, tmp_path: Path) -> None:
    ranker.save(tmp_path)
    file = tmp_path / "manifest.json"
    renamed = dataclasses.replace(ranker.manifest, feature_names=("age", "genre", "price"))
    file.write_text(renamed.to_json())
    with pytest.raises(CorruptRanker, match=r"manifest\.json lists other features"):
        LightGBMRanker.load(tmp_path)
    content = json.loads(ranker.manifest.to_json())["content"] | {"format": "explorank.ranker/9"}
    seal = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    file.write_text(json.dumps({"content": content, "seal": seal}))
    with pytest.raises(CorruptRanker, match="ranker/9"):
        RankerManifest.read(file)


@pytest.mark.parametrize("objective", ["regression", "binary", "lambdarank"])
def test_a_foreign_booster(objective: str, tmp_path: Path) -> None:
    features, labels, groups = data(60, seed=12)
    booster = lightgbm.train(
        {"objective": objective, "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(features, np.minimum(labels, 1), group=groups, feature_name=list(NAMES)),
        5,
    )
    ranker = LightGBMRanker.from_booster(booster, name="ours")
    ranker.check(NAMES)
    assert (ranker.manifest.name, ranker.manifest.objective) == ("ours", objective)
    assert ranker.manifest.feature_mean is None
    np.testing.assert_array_equal(ranker.score(features), booster.predict(features))
    ranker.save(tmp_path)
    np.testing.assert_array_equal(LightGBMRanker.load(tmp_path).score(features), booster.predict(features))
    scaled = LightGBMRanker.from_booster(booster, features=features).manifest.scale
    assert scaled["price"] == pytest.approx((features[:, 1].mean(), features[:, 1].std()), rel=1e-5)


def test_a_booster_with_several_scores_is_refused() -> None:
    features, labels, _ = data(60, seed=13)
    options = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(options, lightgbm.Dataset(features, labels), 2)
    with pytest.raises(InvalidTraining, match="3 scores per row"):
        LightGBMRanker.from_booster(booster)


FEATURES, LABELS, GROUPS = data(60, seed=1)
INFINITE = np.where(np.arange(600)[:, None] == 5, [0, np.inf, 0], FEATURES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": FEATURES[:30], "labels": LABELS[:30], "groups": GROUPS[:3]}, "30 training rows"),
        ({"labels": np.where(np.arange(600) == 9, np.nan, LABELS)}, "Row 9 of the training labels"),
        ({"labels": LABELS[:-1]}, r"\(599,\) training labels"),
        ({"features": FEATURES[:, :2]}, "for 3 names"),
        ({"features": INFINITE}, "'price' of the training data holds infinity"),
        ({"features": np.ones_like(FEATURES)}, "3 features is constant"),
        ({"features": np.full_like(FEATURES, np.nan)}, "3 features is constant"),
        ({"groups": None}, "has no groups"),
        ({"groups": GROUPS[:-1]}, "sum to 590 for 600 rows"),
        ({"groups": [300, 300, 0]}, "sum to 600 for 600 rows, or are not"),
        ({"groups": [300.0, 300.0]}, "whole numbers"),
        ({"labels": np.repeat(np.arange(60) % 3, GROUP)}, "Within each of the 60 training groups"),
        ({"labels": LABELS - 1}, "training label is -1"),
        ({"labels": LABELS + 0.5}, "whole numbers from 0"),
        ({"labels": LABELS * 20}, "from 0 to 30"),
        ({"objective": "binary", "labels": LABELS * 0}, r"All training labels are \[0\.0\]"),
        ({"objective": "binary"}, "hold 2.0"),
        ({"objective": "pairwise"}, "'pairwise', none of"),
        ({"feature_names": ("age", "age", "genre")}, "'age' is named twice"),
        ({"feature_names": ("age", "price, net", "genre")}, "'price, net' holds"),
        ({"feature_names": ("age", "", "genre")}, "is empty"),
        ({"categorical": ["gender"]}, "Categorical gender"),
        ({"valid": (FEATURES, LABELS, None)}, "validation data has no groups"),
        ({"valid": (FEATURES[:, :1], LABELS, GROUPS)}, "validation features"),
        ({"params": {"min_gain_to_split": 1e9}}, "found no split"),
    ],
)
def test_data_that_teaches_nothing(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTraining, match=said):
        fit(**changes)


def test_a_column_that_is_partly_missing_is_not_constant() -> None:
    features = np.where(FEATURES[:, 1:2] > 0, np.float32(1), np.nan) * np.ones((1, 3), np.float32)
    assert np.ptp(fit(features=features).score(features)) > 0


def test_scoring_prints_nothing_and_training_neither() -> None:
    code = (
        "import numpy as np; from explorank.rankers import LightGBMOptions, LightGBMRanker, RankingData;"
        "x = np.random.default_rng(0).standard_normal((400, 2)).astype('f4');"
        "d = RankingData(features=x, labels=x[:, 0] > 0, feature_names=('a', 'b'));"
        "o = LightGBMOptions(objective='binary', rounds=3);"
        "r = LightGBMRanker.fit(d, valid=d, options=o); r.score(x)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
