"""Collaborative models: exact answers where they can be derived, structure found where it was planted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from explorank.retrieval import CorruptArtefact, InvalidOption, InvalidTable
from explorank.retrieval.collaborative import (
    EASE,
    EASEOptions,
    ImplicitALS,
    ImplicitALSOptions,
    Interactions,
    ItemKNN,
    ItemKNNOptions,
)

MODELS: list[Any] = [EASE, ItemKNN, ImplicitALS]
PAIRS = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b"), ("u2", "c"), ("u3", "c"), ("u4", "a")]
X = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]], float)


def small() -> Interactions:
    return Interactions.of([user for user, _ in PAIRS], [item for _, item in PAIRS])


def two_clubs(users: int = 60, seed: int = 0) -> Interactions:
    """Even users take up items 00-09, odd ones 10-19, six each."""
    generator = np.random.default_rng(seed)
    who, what = [], []
    for user in range(users):
        for item in generator.choice(10, 6, replace=False):
            who.append(f"u{user:02}")
            what.append(f"{item + 10 * (user % 2):02}")
    return Interactions.of(who, what)


def test_interactions_are_a_matrix_by_id() -> None:
    interactions = small()

    assert interactions.user_ids.tolist() == ["u1", "u2", "u3", "u4"]
    assert interactions.matrix.toarray().tolist() == X.tolist()
    assert interactions.popularity.tolist() == [3, 2, 2]
    assert interactions.activity.tolist() == [2, 3, 1, 1]


def test_of_repeated_interactions_the_last_counts() -> None:
    seen = Interactions.of(["u", "u", "u"], ["a", "b", "a"], values=[5.0, 2.0, 1.0], times=[30.0, 20.0, 10.0])

    assert (seen.items.tolist(), seen.values.tolist()) == ([1, 0], [2.0, 5.0])
    assert seen.times is not None
    assert seen.times.tolist() == [20.0, 30.0]


def test_items_and_users_without_interactions_are_columns_and_rows() -> None:
    seen = Interactions.of(["u"], ["b"], all_items=["c", "a"], all_users=["t"])

    assert seen.matrix.toarray().tolist() == [[0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"user_ids": [], "item_ids": []}, "0 user_ids"),
        ({"user_ids": ["u"], "item_ids": ["a", "b"]}, "2 item_ids"),
        ({"user_ids": ["u"], "item_ids": ["a"], "times": [np.nan]}, "times"),
        ({"user_ids": ["u"], "item_ids": ["a"], "values": [1.0, 2.0]}, "values"),
        ({"user_ids": [1], "item_ids": ["a"]}, "user_ids holds the integer 1"),
    ],
)
def test_columns_that_do_not_fit_are_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidTable, match=named):
        Interactions.of(**given)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1_000.0))
def test_ease_solves_its_constrained_least_squares(seed: int, l2: float) -> None:
    generator = np.random.default_rng(seed)
    dense = generator.integers(0, 2, (8, 5)).astype(float)
    dense[0] = 1.0  # each item was taken up
    users, items = dense.nonzero()
    interactions = Interactions.of([f"u{u}" for u in users], [f"i{i}" for i in items])
    weights = EASE.fit(interactions, options=EASEOptions(l2=l2)).weights

    for item in range(5):  # column by column: ridge regression of an item on all others
        others = [other for other in range(5) if other != item]
        Z = interactions.matrix.toarray().astype(float)
        expected = np.linalg.solve(
            Z[:, others].T @ Z[:, others] + l2 * np.eye(4), Z[:, others].T @ Z[:, item]
        )
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-5)
        assert weights[item, item] == 0.0


def test_item_knn_by_hand() -> None:
    # Together: a and b 2 users, a and c 1, b and c 1; users of a 3, of b 2, of c 2.
    ab, ac, bc = 2 / (np.sqrt(6) + 1), 1 / (np.sqrt(6) + 1), 1 / (2 + 1)
    model = ItemKNN.fit(small(), options=ItemKNNOptions(neighbours=2, shrinkage=1.0))

    np.testing.assert_allclose(model.weights.toarray(), [[0, ab, ac], [ab, 0, bc], [ac, bc, 0]], rtol=1e-6)
    np.testing.assert_allclose(model.scores(["a", "b"]), [ab, ab, ac + bc], rtol=1e-6)


def test_item_knn_keeps_the_nearest_of_each_item() -> None:
    model = ItemKNN.fit(small(), options=ItemKNNOptions(neighbours=1, shrinkage=1.0))

    assert (model.weights.toarray() > 0).tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_als_minimises_its_objective() -> None:
    options = ImplicitALSOptions(factors=2, l2=0.5, confidence=2.0, iterations=200)
    items = ImplicitALS.fit(small(), options=options).factors

    def users_given(items: np.ndarray) -> np.ndarray:
        solved = []
        for row in X:
            c = np.diag(1 + options.confidence * row)
            solved.append(np.linalg.solve(items.T @ c @ items + options.l2 * np.eye(2), items.T @ c @ row))
        return np.array(solved)

    def loss(items: np.ndarray) -> float:
        users = users_given(items)
        fit = ((1 + options.confidence * X) * (X - users @ items.T) ** 2).sum()
        return float(fit + options.l2 * ((users**2).sum() + (items**2).sum()))

    nearby = np.random.default_rng(0).normal(0, 1e-2, (50, *items.shape))
    assert all(loss(items) <= loss(items + step) for step in nearby)
    np.testing.assert_allclose(
        ImplicitALS.fit(small(), options=options).scores(["a", "b"]),
        users_given(items)[0] @ items.T,
        atol=1e-6,
    )


@pytest.mark.parametrize("model", MODELS)
class TestEveryModel:
    def test_scores_of_many_are_the_scores_of_each(self, model: Any) -> None:
        fitted = model.fit(two_clubs())
        histories = [["00", "01"], ["10", "15", "19"], []]
        rows = [[float(item in history) for item in fitted.item_ids] for history in histories]

        many = fitted.scores_of_many(csr_matrix(np.array(rows, np.float32)))

        assert many.shape == (3, 20)
        assert many.dtype == np.float32
        for history, scores in zip(histories, many, strict=True):
            np.testing.assert_allclose(scores, fitted.scores(history), atol=1e-6)

    def test_the_own_club_comes_first(self, model: Any) -> None:
        fitted = model.fit(two_clubs())
        scores = fitted.scores(["10", "12", "14"])

        unseen = [item for item in range(20) if item not in {10, 12, 14}]
        assert scores[[item for item in unseen if item >= 10]].min() > scores[:10].max()

    def test_unknown_items_are_passed_over(self, model: Any) -> None:
        fitted = model.fit(two_clubs())

        assert fitted.scores(["10", "nobody's"]).tolist() == fitted.scores(["10"]).tolist()
        assert not fitted.scores(["nobody's"]).any()

    def test_the_same_seed_gives_the_same_model(self, model: Any) -> None:
        scores = [model.fit(two_clubs(), seed=3).scores(["00"]).tolist() for _ in range(2)]

        assert scores[0] == scores[1]

    def test_a_saved_model_scores_the_same(self, model: Any, tmp_path: Path) -> None:
        fitted = model.fit(two_clubs())
        fitted.save(tmp_path)
        loaded = model.load(tmp_path)

        assert loaded.item_ids.tolist() == fitted.item_ids.tolist()
        assert loaded.scores(["00", "13"]).tolist() == fitted.scores(["00", "13"]).tolist()

    def test_a_damaged_file_is_named(self, model: Any, tmp_path: Path) -> None:
        model.fit(two_clubs()).save(tmp_path)
        for file in sorted(tmp_path.glob("*.npy")):
            content = file.read_bytes()
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(CorruptArtefact, match=file.name):
                model.load(tmp_path)
            file.write_bytes(content)

    def test_a_cut_off_manifest_is_named(self, model: Any, tmp_path: Path) -> None:
        model.fit(two_clubs()).save(tmp_path)
        manifest = tmp_path / "manifest.json"
        manifest.write_bytes(manifest.read_bytes()[:40])
        with pytest.raises(CorruptArtefact, match=r"manifest\.json"):
            model.load(tmp_path)

    def test_another_models_folder_is_refused(self, model: Any, tmp_path: Path) -> None:
        other = next(one for one in MODELS if one is not model)
        other.fit(two_clubs()).save(tmp_path)
        with pytest.raises(CorruptArtefact, match="was expected"):
            model.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (EASEOptions, {"l2": 0.0}),
        (ItemKNNOptions, {"neighbours": 0}),
        (ItemKNNOptions, {"shrinkage": -1.0}),
        (ImplicitALSOptions, {"factors": 0}),
        (ImplicitALSOptions, {"confidence": float("nan")}),
    ],
)
def test_options_outside_their_range_are_named(options: Any, values: dict[str, float]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(values))):
        options(**values)
