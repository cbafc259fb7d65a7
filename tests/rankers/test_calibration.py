"""Probabilities that come true: curves and errors by hand, maps that follow known truths, attributions that add up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.rankers import (
    Calibrated,
    CalibratedOptions,
    Explanation,
    InvalidProbabilities,
    InvalidTraining,
    LightGBMOptions,
    LightGBMRanker,
    RankingData,
    expected_calibration_error,
    plot_reliability,
    reliability_curve,
)
from explorank.rankers._logistic import logistic, logistic_regression


def test_a_reliability_curve_by_hand() -> None:
    chances, labels = [0.1, 0.9, 0.3, 0.7, 0.5, 0.5], [0, 1, 1, 1, 0, 1]
    curve = reliability_curve(chances, labels, bins=3)
    np.testing.assert_allclose(curve.foreseen, [0.2, 0.5, 0.8])
    np.testing.assert_allclose(curve.observed, [0.5, 0.5, 1.0])
    assert curve.rows.tolist() == [2, 2, 2]
    assert curve.expected_calibration_error == pytest.approx((0.3 + 0.0 + 0.2) / 3)
    # Wilson's interval of 1 in 2 at 95 %.
    assert (curve.lower[0], curve.upper[0]) == (
        pytest.approx(0.0945, abs=1e-4),
        pytest.approx(0.9055, abs=1e-4),
    )


def test_equal_probabilities_stay_in_one_bin() -> None:
    curve = reliability_curve([0.2] * 10 + [0.8] * 3, [1, 0, 0, 0, 0] * 2 + [1, 1, 0], bins=5)
    assert curve.rows.tolist() == [10, 3]
    np.testing.assert_allclose(curve.foreseen, [0.2, 0.8])
    assert curve.observed[0] == pytest.approx(0.2)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=60), st.integers(1, 20))
def test_an_error_lies_between_none_and_all(rows: list[tuple[float, int]], bins: int) -> None:
    chances, labels = map(list, zip(*rows, strict=True))
    curve = reliability_curve(chances, labels, bins=bins)
    assert curve.rows.sum() == len(rows)
    assert (np.diff(curve.foreseen) > 0).all()
    assert 0.0 <= curve.expected_calibration_error <= 1.0 + 1e-12
    assert ((curve.lower <= curve.observed + 1e-12) & (curve.observed <= curve.upper + 1e-12)).all()


@pytest.mark.parametrize(
    ("chances", "labels", "bins", "said"),
    [
        ([0.5], [0, 1], 15, r"\(1,\) probabilities for \(2,\)"),
        ([], [], 15, "one at least"),
        ([1.5], [1], 15, r"outside \[0, 1\]"),
        ([float("nan")], [1], 15, r"outside \[0, 1\]"),
        ([0.5], [2], 15, "neither 0 nor 1"),
        ([0.5], [1], 0, "hold no rows"),
    ],
)
def test_what_is_no_probability_is_refused(chances: Any, labels: Any, bins: int, said: str) -> None:
    with pytest.raises(InvalidProbabilities, match=said):
        expected_calibration_error(chances, labels, bins=bins)


def test_a_plot_shows_each_curve_and_its_error() -> None:
    pytest.importorskip("matplotlib")
    curve = reliability_curve([0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1], bins=2)
    axes = plot_reliability({"before": curve, "after": curve})
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    assert said == ["comes true", "before (ECE 0.175)", "after (ECE 0.175)"]
    assert plot_reliability({}, axes) is axes


def test_without_matplotlib_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib.figure'] = None;"
        "from explorank.rankers import MissingDependency, plot_reliability\n"
        "try: plot_reliability({})\n"
        "except MissingDependency as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'explorank[train]'" in said


# ---- the regression behind Platt's map and stacks -------------------------------------------------------------


def test_a_logistic_regression_is_where_its_gradient_vanishes() -> None:
    rng = np.random.default_rng(1)
    columns = rng.standard_normal((4_000, 2))
    labels = (rng.random(4_000) < logistic(columns @ [1.5, -0.5] + 0.3)).astype(float)
    weights = rng.uniform(0.5, 2.0, 4_000)
    slopes, intercept = logistic_regression(columns, labels, weights, penalty=2.0)
    residual = weights * (logistic(columns @ slopes + intercept) - labels)
    np.testing.assert_allclose(columns.T @ residual + 2.0 * slopes, 0.0, atol=1e-5)
    assert residual.sum() == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose([*slopes, intercept], [1.5, -0.5, 0.3], atol=0.15)


def test_labels_that_are_told_apart_perfectly_have_finite_slopes() -> None:
    columns = np.array([[-1.0], [-0.5], [0.5], [1.0]])
    slopes, intercept = logistic_regression(columns, np.array([0.0, 0, 1, 1]), penalty=0.1)
    assert 1 < slopes[0] < 20
    assert intercept == pytest.approx(0.0, abs=1e-6)
    assert logistic(np.array([-1e9, 0.0, 1e9])).tolist() == [0.0, 0.5, 1.0]


# ---- the ranker -----------------------------------------------------------------------------------------------


def clicks(seed: int, n: int = 3_000) -> RankingData:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 2)).astype(np.float32)
    labels = rng.random(n) < logistic(2.0 * features[:, 0].astype(float) - 1.0)
    return RankingData(features=features, feature_names=("signal", "noise"), labels=labels)


MEMBER: dict[str, Any] = {"use": "lightgbm", "objective": "binary", "rounds": 150, "num_threads": 1}
MEMBER |= {
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "feature_fraction": 1.0,
    "lambda_l2": 0.0,
}


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_overconfident_probabilities_come_true_afterwards(method: Any) -> None:
    training, fresh = clicks(1), clicks(2, n=20_000)
    calibrated = Calibrated.fit(training, options=CalibratedOptions(member=MEMBER, method=method))
    (member,) = calibrated.members
    before = expected_calibration_error(member.ranker.score(fresh.features), fresh.labels)
    after = expected_calibration_error(calibrated.score(fresh.features), fresh.labels)
    # Chance alone makes for 0.8 √(0.35 · 0.65 / 1333) = 0.01.
    assert before > 0.05
    assert after < 0.03
    metrics = calibrated.manifest.metrics
    assert metrics["calibration_error"] < 0.05 < metrics["member_calibration_error"]


def test_scores_of_any_scale_become_probabilities_in_the_same_order() -> None:
    training, fresh = clicks(3), clicks(4, n=500)
    ranker = LightGBMRanker.fit(
        training, options=LightGBMOptions(objective="regression", rounds=30, num_threads=1)
    )
    for method in ("isotonic", "platt"):
        calibrated = Calibrated.of(ranker, clicks(5), method=method)  # type: ignore[arg-type]
        scores = calibrated.score(fresh.features)
        assert ((scores >= 0) & (scores <= 1)).all()
        order = np.argsort(ranker.score(fresh.features), kind="stable")
        assert (np.diff(scores[order]) >= 0).all()
        assert scores.mean() == pytest.approx(fresh.labels.mean(), abs=0.05)


def test_an_isotonic_map_goes_through_the_means_of_its_steps() -> None:
    rng = np.random.default_rng(6)
    features = np.repeat([[0.0], [1.0], [2.0], [3.0]], 1_000, axis=0).astype(np.float32)
    labels = rng.random(4_000) < np.repeat([0.1, 0.5, 0.3, 0.9], 1_000)
    rows = RankingData(features=features, feature_names=("level",), labels=labels)
    ranker = LightGBMRanker.fit(
        RankingData(features=features, feature_names=("level",), labels=features[:, 0]),
        options=LightGBMOptions(objective="regression", rounds=100, num_threads=1),
    )
    scores = Calibrated.of(ranker, rows).score(np.array([[0], [1], [2], [3]], np.float32))
    rates = labels.reshape(4, 1_000).mean(axis=1)
    middle = (rates[1] + rates[2]) / 2  # levels 1 and 2 stand the wrong way round, and share a step
    # Straight lines join the means of steps, so at the ends of the shared step it rises a little.
    assert scores[[0, 3]] == pytest.approx(rates[[0, 3]], abs=1e-9)
    assert scores[[1, 2]].mean() == pytest.approx(middle, abs=0.12)


def test_labels_and_rows_that_cannot_be_calibrated_are_refused() -> None:
    with pytest.raises(InvalidTraining, match=r"hold 3\.0"):
        Calibrated.fit(
            RankingData(features=np.zeros((9, 1)), feature_names=("a",), labels=[3.0] * 9),
            options=CalibratedOptions(member=MEMBER),
        )
    ranker = LightGBMRanker.fit(clicks(1, n=500), options=LightGBMOptions(objective="binary", rounds=5))
    with pytest.raises(InvalidTraining, match="50 training rows are too few"):
        Calibrated.of(ranker, clicks(2, n=50))
    turned = clicks(3)
    with pytest.raises(InvalidTraining, match="do not rise with the labels"):
        Calibrated.of(
            ranker,
            RankingData(features=-turned.features, feature_names=turned.feature_names, labels=turned.labels),
            method="platt",
        )


# ---- attributions through a curve -----------------------------------------------------------------------------

NUMBERS = st.floats(-20, 20)


@given(
    st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=8),
    NUMBERS,
    st.sampled_from(["logistic", "steps", "line"]),
)
def test_attributions_through_a_rising_function_sum_to_its_value(
    rows: list[list[float]], base: float, name: str
) -> None:
    functions: dict[str, Any] = {"logistic": logistic, "steps": np.floor, "line": lambda raw: 2.0 * raw + 1.0}
    function = functions[name]
    explained = Explanation(
        feature_names=("a", "b", "c"),
        attributions=np.array(rows),
        base=np.full(len(rows), base),
        method="given",
    )
    through = explained.through(function)
    np.testing.assert_allclose(through.raw_scores, function(explained.raw_scores), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(through.base, function(explained.base))
    assert through.method == "given+rescale"
    if name == "line":
        np.testing.assert_allclose(through.attributions, 2.0 * explained.attributions, rtol=1e-6, atol=1e-6)
    # However little is left of attributions that cancel, none grows beyond what the function can rise by.
    size = np.abs(explained.attributions).sum(axis=1)
    most = {"logistic": 0.25, "steps": 1001.0, "line": 2.0}[name]
    assert (np.abs(through.attributions).sum(axis=1) <= (most * size + 2.0) * 1.01).all()


def test_a_link_is_gone_on_the_scale_of_the_score() -> None:
    explained = Explanation(
        feature_names=("a",),
        attributions=np.array([[2.0]]),
        base=np.array([-1.0]),
        method="given",
        link="logistic",
    )
    on_scale = explained.on_score_scale()
    assert on_scale.link == "identity"
    np.testing.assert_allclose(on_scale.scores, explained.scores)
    np.testing.assert_allclose(
        on_scale.attributions, logistic(np.array([[1.0]])) - logistic(np.array([[-1.0]]))
    )
    assert on_scale.on_score_scale() is on_scale
