"""A ranker scores by the compiled forest where that is exact, and by LightGBM where it is not, and says which."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from explorank.rankers import LightGBMRanker, Scoring
from explorank.rankers._lightgbm_text import ModelText
from explorank.rankers.scoring import exact_forest, probe_rows
from tests.rankers.random_models import random_model


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((400, 3)).astype(np.float32)
    return features, (features[:, 0] > 0).astype(float)


def trained(**options: object) -> lightgbm.Booster:
    features, labels = data()
    options = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 7, **options}
    return lightgbm.train(options, lightgbm.Dataset(features, labels, params=options), 10)


def test_a_usual_model_is_scored_in_lockstep() -> None:
    ranker = LightGBMRanker.from_booster(trained())
    assert ranker.scoring == Scoring("lockstep")
    rows = data()[0]
    scores = ranker.score(rows)
    assert scores.any()
    ranker._booster.set_leaf_output(0, 0, 7.0)  # LightGBM would score otherwise from now on
    np.testing.assert_array_equal(ranker.score(rows), scores)


def test_what_a_compiled_forest_cannot_do_is_left_to_lightgbm(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    booster = trained(objective="regression", linear_tree=True)
    with caplog.at_level(logging.WARNING, "explorank.rankers"):
        ranker = LightGBMRanker.from_booster(booster, name="linear")
    assert ranker.scoring.method == "booster"
    assert "linear trees" in ranker.scoring.reason
    assert f"Ranker 'linear' version {ranker.manifest.version} is scored by LightGBM itself" in caplog.text
    assert "linear trees" in caplog.text
    rows = data()[0]
    np.testing.assert_array_equal(ranker.score(rows), booster.predict(rows))
    assert ranker.score(rows[:0]).shape == (0,)
    ranker.save(tmp_path)
    assert LightGBMRanker.load(tmp_path).scoring == ranker.scoring


def test_where_nothing_may_be_compiled_lightgbm_scores(tmp_path: Path) -> None:
    ranker = LightGBMRanker.from_booster(trained())
    ranker.save(tmp_path)
    code = (
        "import sys; from explorank.rankers import LightGBMRanker; import numpy as np;"
        "r = LightGBMRanker.load(sys.argv[1]); print(r.scoring.reason); print(repr(r.score(np.zeros((1, 3)))[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[2],
    )
    reason, score = done.stdout.splitlines()
    assert "NUMBA_DISABLE_JIT" in reason
    assert "scored by LightGBM itself" in done.stderr
    assert score == repr(ranker.score(np.zeros((1, 3), np.float32))[0])


def test_a_forest_that_scores_otherwise_is_not_used() -> None:
    forest, scoring = exact_forest(trained().model_to_string(), trained(learning_rate=0.1001))
    assert forest is None
    assert scoring.method == "booster"
    assert "512 of 512 probe rows" in scoring.reason


def test_one_bit_is_enough() -> None:
    # Without the line of sizes LightGBM looks for the trees itself, and a number may change its length.
    text = re.sub(r"tree_sizes=.*\n", "", trained(objective="regression").model_to_string())
    start = text.index("leaf_value=") + len("leaf_value=")
    value = text[start : text.index(" ", start)]
    other = text.replace(value, repr(np.nextafter(float(value), 1.0).item()), 1)
    forest, scoring = exact_forest(text, lightgbm.Booster(model_str=other))
    assert forest is None
    assert "different scores" in scoring.reason


def test_both_ways_read_features_as_float32() -> None:
    features = data()[0].astype(np.float64) + 1e-12
    for ranker in (
        LightGBMRanker.from_booster(trained()),
        LightGBMRanker.from_booster(trained(objective="regression", linear_tree=True)),
    ):
        np.testing.assert_array_equal(ranker.score(features), ranker.score(features.astype(np.float32)))


def test_probe_rows_stand_on_both_sides_of_thresholds_and_hold_what_is_special() -> None:
    booster = trained()
    text = booster.model_to_string()
    rows = probe_rows(ModelText.of(text))
    np.testing.assert_array_equal(rows, probe_rows(ModelText.of(text)))
    assert rows.dtype == np.float32
    for feature, thresholds in booster.trees_to_dataframe().groupby("split_feature")["threshold"]:
        values = rows[:, int(feature.removeprefix("Column_"))]
        near = np.abs(values[:, None] - thresholds.to_numpy()) < 1e-6
        assert (near & (values[:, None] <= thresholds.to_numpy())).any()
        assert (near & (values[:, None] > thresholds.to_numpy())).any()
        assert np.isnan(values).any()
        assert np.isinf(values).any()
        assert (values == 0).any()


def test_probe_rows_hold_categories() -> None:
    text, _ = next(
        found
        for found in (random_model(seed, "binary", "gbdt") for seed in range(50))
        if ModelText.of(found[0]).sets.any()
    )
    model = ModelText.of(text)
    feature = int(model.feature[(model.decision & 1) > 0][0])
    values = probe_rows(model)[:, feature]
    assert len(np.unique(values[values >= 0])) > 10
    assert (values < 0).any()
