"""What LightGBM's options promise: amounts are foreseen, constraints kept, and a search never does worse."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from explorank.rankers import InvalidTraining, LightGBMOptions, LightGBMRanker, RankingData, search_lightgbm

NAMES = ("age", "price", "kind")


def revenue(seed: int, n: int = 3_000) -> RankingData:
    """Nine of ten rows earn nothing; the others exp(price), times 3 for kind 1."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 3)).astype(np.float32)
    features[:, 2] = rng.integers(0, 3, n)
    amount = np.exp(features[:, 1]) * np.where(features[:, 2] == 1, 3.0, 1.0) * (rng.random(n) < 0.1)
    return RankingData(features=features, feature_names=NAMES, labels=amount, categorical=["kind"])


def fit(data: RankingData, valid: RankingData | None = None, **options: Any) -> LightGBMRanker:
    settings = {"rounds": 30, "num_threads": 1} | options
    return LightGBMRanker.fit(data, valid=valid, options=LightGBMOptions(**settings))


@pytest.mark.parametrize("objective", ["regression", "poisson", "tweedie"])
def test_amounts_are_foreseen_in_their_unit_and_explained(objective: Any) -> None:
    ranker = fit(revenue(1, n=20_000), revenue(2), objective=objective, rounds=60)
    fresh = revenue(3, n=20_000)
    scores = ranker.score(fresh.features)
    # The mean of 2,000 amounts above 0 with a coefficient of variation near 1.5 has a standard error of about 4 %. The
    # loss of `tweedie` weighs large amounts less, and does not keep the mean of them all.
    assert scores.mean() == pytest.approx(fresh.labels.mean(), rel=0.35 if objective == "tweedie" else 0.2)
    true = 0.1 * np.exp(fresh.features[:, 1]) * np.where(fresh.features[:, 2] == 1, 3.0, 1.0)
    assert np.corrcoef(np.argsort(np.argsort(scores)), np.argsort(np.argsort(true)))[0, 1] > 0.7
    explained = ranker.explain(fresh.features[:50])
    np.testing.assert_allclose(explained.scores, scores[:50], rtol=1e-9)
    on_scale = explained.on_score_scale()
    np.testing.assert_allclose(on_scale.base + on_scale.attributions.sum(axis=1), scores[:50], rtol=1e-9)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_monotone_feature_never_moves_a_score_the_other_way(sign: int) -> None:
    rng = np.random.default_rng(5)
    features = rng.standard_normal((600, 3)).astype(np.float32)
    labels = features[:, 0] + np.sin(3 * features[:, 1]) + 0.3 * rng.standard_normal(600) > 0
    data = RankingData(features=features, feature_names=NAMES, labels=labels)
    rows = np.repeat(features[:50], 40, axis=0)
    rows[:, 1] = np.tile(np.linspace(-2, 2, 40), 50)
    params = {"min_data_in_leaf": 5}
    free = fit(data, objective="binary", params=params).score(rows)
    bound = fit(data, objective="binary", params=params, monotone={"price": sign}).score(rows)
    assert (np.diff(free.reshape(50, 40), axis=1) * sign < 0).any()
    assert (np.diff(bound.reshape(50, 40), axis=1) * sign >= 0).all()
    assert np.ptp(bound) > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"monotone": {"prize": 1}}, "'prize', which is not among the features.*age, price"),
        ({"monotone": {"kind": 1}}, "'kind', which is categorical"),
        ({"monotone": {"price": 2}}, "neither 1, scores rise"),
        ({"rounds": 0}, "`rounds` is 0"),
        ({"rounds": 5.5}, "num_iterations should be of type int"),
        ({"feature_fraction": 2.0}, r"Check failed: \(feature_fraction\) <= \(1.0\)\. Correct the option"),
        ({"params": {"max_bin": -3}}, r"\(max_bin\) > \(1\)\. Correct .* among `params`"),
        ({"objective": "poisson", "labels": -1.0}, "'poisson' knows amounts from 0 on"),
        ({"objective": "regression", "labels": 3.0}, "All training labels are 3"),
    ],
)
def test_wrong_options_and_amounts_are_refused(options: dict[str, Any], said: str) -> None:
    data = revenue(1, n=200)
    if "labels" in options:
        labels = np.full(200, options.pop("labels"))
        data = dataclasses.replace(
            data, labels=labels if labels[0] > 0 else np.where(np.arange(200) == 3, labels, 1)
        )
    with pytest.raises(InvalidTraining, match=said):
        fit(data, **({"objective": "regression"} | options))


def test_weights_count_rows() -> None:
    data = revenue(1, n=400)
    heavy = np.where(data.features[:, 1] > 0, 50.0, 1.0)
    upper = data.features[:, 1] > 0
    weighed = fit(dataclasses.replace(data, weights=heavy), objective="regression", rounds=1).score(
        data.features
    )
    plain = fit(data, objective="regression", rounds=1).score(data.features)
    # The first tree starts from the weighed mean, which lies nearer to the rows with more weight.
    assert abs(weighed.mean() - data.labels[upper].mean()) < abs(plain.mean() - data.labels[upper].mean())


# ---- the search -------------------------------------------------------------------------------------------


def graded(seed: int) -> RankingData:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((600, 3)).astype(np.float32)
    relevance = features[:, 1] + 0.5 * features[:, 0] * features[:, 1] + rng.standard_normal(600)
    labels = (relevance.reshape(60, 10).argsort(axis=1).argsort(axis=1) >= 8).ravel()
    return RankingData(features=features, feature_names=NAMES, labels=labels, groups=np.full(60, 10))


@pytest.mark.parametrize("objective", ["lambdarank", "binary"])
def test_a_search_is_never_worse_than_what_it_began_with_and_the_same_for_a_seed(objective: Any) -> None:
    data, valid = graded(1), dataclasses.replace(graded(2), called="validation")
    options = LightGBMOptions(objective=objective, rounds=15, num_threads=1, params={"num_leaves": 500})
    seen: list[tuple[int, int]] = []
    found = search_lightgbm(
        data,
        valid,
        options=options,
        trials=6,
        seed=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 6) for done in range(1, 7)]
    assert len(found.trials) == 6
    first = LightGBMRanker.fit(data, valid=valid, options=options, seed=3).manifest.metrics[found.metric]
    best = LightGBMRanker.fit(data, valid=valid, options=found.options, seed=3).manifest.metrics[found.metric]
    assert found.trials[0].value == first
    assert found.value == best
    assert best >= first if objective == "lambdarank" else best <= first
    again = search_lightgbm(data, valid, options=options, trials=6, seed=3)
    assert again.options == found.options
    assert [trial.value for trial in again.trials] == [trial.value for trial in found.trials]


def test_a_search_ends_with_its_time_but_not_before_the_first_trial() -> None:
    options = LightGBMOptions(rounds=5, num_threads=1)
    found = search_lightgbm(graded(1), graded(2), options=options, seconds=0.0, trials=100)
    assert len(found.trials) == 1
    assert found.options == options


def test_parameters_that_grow_no_tree_are_passed_over() -> None:
    few = graded(1).take(range(8))  # 80 rows: most of what is tried allows no split
    found = search_lightgbm(
        few, graded(2), options=LightGBMOptions(rounds=3, num_threads=1), trials=15, seed=1
    )
    assert any(np.isnan(trial.value) for trial in found.trials)
    assert not np.isnan(found.value)


def test_without_optuna_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['optuna'] = None;"
        "from explorank.rankers import MissingDependency, search_lightgbm\n"
        "try: search_lightgbm(None, None)\n"
        "except MissingDependency as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'explorank[tune]'" in said
