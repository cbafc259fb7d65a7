"""The matrix that a policy sees, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from explorank.errors import InvalidBatch, SettingsError
from explorank.exploration_features import ExplorationFeatures, exploration_columns
from explorank.hooks.types import Features, Scores
from explorank.rankers import LightGBMOptions, LightGBMRanker, RankingData
from explorank.settings import parse_settings

FEATURES = Features(
    ("pages", "age", "flat"),
    np.array([[100, np.nan, 7], [300, 1, 7], [200, 3, 7], [200, np.nan, 7]], np.float32),
)
SCORES = np.array([4.0, 2.0, 0.0, 2.0])


def matrix_of(*names: str, scale: dict[str, tuple[float, float]] | None = None) -> np.ndarray:
    matrix = ExplorationFeatures(names).matrix(FEATURES, Scores(SCORES), scale or {})
    assert matrix is not None
    assert matrix.dtype == np.float32
    return matrix


def test_no_names_no_matrix() -> None:
    features = ExplorationFeatures(())
    assert features.dim == 0
    assert features.matrix(FEATURES, Scores(SCORES), {}) is None
    assert features.names_of(None) == ()


def test_a_constant_stands_in_front() -> None:
    features = ExplorationFeatures(("pages", "score"))
    assert features.names == ("constant", "pages", "score")
    assert features.dim == 3
    np.testing.assert_array_equal(matrix_of("pages", "score")[:, 0], 1.0)


def test_a_column_is_scaled_within_the_request() -> None:
    # Mean 200, deviation sqrt((100² + 100² + 0 + 0) / 4) = 70.71.
    np.testing.assert_allclose(matrix_of("pages")[:, 1], [-np.sqrt(2), np.sqrt(2), 0, 0], rtol=1e-6)


def test_the_training_scale_is_preferred() -> None:
    np.testing.assert_allclose(
        matrix_of("pages", scale={"pages": (150.0, 50.0)})[:, 1], [-1.0, 3.0, 1.0, 1.0]
    )


def test_the_score_is_scaled_within_the_request() -> None:
    # Mean 2, deviation sqrt((4 + 0 + 4 + 0) / 4) = sqrt(2).
    np.testing.assert_allclose(matrix_of("score")[:, 1], [np.sqrt(2), 0, -np.sqrt(2), 0], rtol=1e-6)


def test_a_missing_value_is_the_mean_of_those_present() -> None:
    # Present are 1 and 3: mean 2, deviation 1.
    np.testing.assert_allclose(matrix_of("age")[:, 1], [0.0, -1.0, 1.0, 0.0])
    np.testing.assert_allclose(matrix_of("age", scale={"age": (0.0, 2.0)})[:, 1], [0.0, 0.5, 1.5, 0.0])


def test_a_column_without_spread_says_nothing() -> None:
    np.testing.assert_array_equal(matrix_of("flat")[:, 1], 0.0)
    np.testing.assert_array_equal(matrix_of("flat", scale={"flat": (6.0, 0.0)})[:, 1], 1.0)


def test_a_column_that_is_missing_altogether_says_nothing() -> None:
    unknown = Features(("age",), np.full((4, 1), np.nan, np.float32))
    matrix = ExplorationFeatures(("age",)).matrix(unknown, Scores(SCORES), {})
    assert matrix is not None
    np.testing.assert_array_equal(matrix[:, 1], 0.0)


@pytest.mark.parametrize(("value", "seen"), [(1e30, 5.0), (-1e30, -5.0), (np.inf, 5.0), (-np.inf, -5.0)])
def test_absurd_values_are_cut(value: float, seen: float) -> None:
    wild = Features(("age",), np.array([[value], [0], [0], [0]], np.float32))
    matrix = ExplorationFeatures(("age",)).matrix(wild, Scores(SCORES), {"age": (0.0, 1.0)})
    assert matrix is not None
    assert matrix[0, 1] == seen


def test_nobody_to_show_is_an_empty_matrix() -> None:
    matrix = ExplorationFeatures(("score",)).matrix(Features.empty(0), Scores(np.zeros(0)), {})
    assert matrix is not None
    assert matrix.shape == (0, 2)


def test_a_column_nobody_supplies_is_named() -> None:
    with pytest.raises(InvalidBatch, match=r"\['colour'\].*supplied: \['pages', 'age', 'flat'\]"):
        matrix_of("pages", "colour")


def test_the_version_changes_with_the_columns_and_their_order() -> None:
    versions = [ExplorationFeatures(names).version for names in (("a", "b"), ("b", "a"), ("a",), ("a", "b"))]
    assert len(set(versions)) == 3
    assert versions[0] == versions[3]


def test_a_hosts_own_columns_are_numbered() -> None:
    features = ExplorationFeatures(("a", "b"))
    assert features.names_of(np.zeros((2, 3), np.float32)) == ("constant", "a", "b")
    assert features.names_of(np.zeros((2, 2), np.float32)) == ("column_0", "column_1")


def test_a_star_is_the_score_and_all_columns_of_the_newest_ranker() -> None:
    rows = np.random.default_rng(0).random((200, 2), dtype=np.float32)
    data = RankingData(features=rows, labels=rows[:, 0] > 0.5, feature_names=("a", "b"))
    ranker = LightGBMRanker.fit(data, options=LightGBMOptions(objective="binary"))
    starred = parse_settings({"version": 1, "exploration": {"features": "*"}})
    assert exploration_columns(starred, lambda: ranker) == ("score", "a", "b")
    with pytest.raises(SettingsError, match="explorank train"):
        exploration_columns(starred, lambda: None)


def test_named_columns_need_no_ranker() -> None:
    def unasked() -> None:
        raise AssertionError

    named = parse_settings({"version": 1, "exploration": {"features": ["score", "b"]}})
    assert exploration_columns(named, unasked) == ("score", "b")
