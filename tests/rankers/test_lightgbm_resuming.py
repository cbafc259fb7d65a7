"""A LightGBM training that was cut off grows the very trees that it would have grown, or starts anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank.rankers import CorruptRanker, LightGBMOptions, LightGBMRanker, RankingData
from explorank.rankers._lightgbm_rounds import can_go_on

OPTIONS = LightGBMOptions(
    rounds=70, num_threads=1, learning_rate=0.1, num_leaves=7, min_data_in_leaf=10, early_stopping_rounds=25
)
"""A tree is offered half of the features, which is drawn."""


def data(seed: int, *, called: str = "training", noise: float = 1.0, **changes: Any) -> RankingData:
    """Rows with missing values, a category and weights; a product and the category tell the label."""
    rng = np.random.default_rng(seed)
    rows = 600
    features = rng.standard_normal((rows, 9)).astype(np.float32)
    features[:, 8] = rng.integers(0, 7, rows)
    wanted = features[:, 0] * features[:, 1] + (features[:, 8] > 3) + noise * rng.standard_normal(rows)
    features[rng.random((rows, 9)) < 0.1] = np.nan
    parts: dict[str, Any] = {
        "features": features,
        "feature_names": tuple("abcdefghi"),
        "categorical": ("i",),
        "labels": wanted > 0.5,
        "groups": np.full(rows // 10, 10),
        "weights": rng.random(rows) + 0.5,
        "called": called,
    }
    return RankingData(**{**parts, **changes})


def cut_at(last: int) -> Callable[[int, int], None]:
    def cut(done: int, _: int) -> None:
        if done == last:
            raise KeyboardInterrupt

    return cut


def text_of(ranker: LightGBMRanker, folder: Path) -> str:
    ranker.save(folder)
    return (folder / "model.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("objective", ["lambdarank", "binary", "regression", "tweedie"])
@pytest.mark.parametrize("stops", [False, True])
def test_it_ends_in_the_same_model_to_the_last_bit(objective: Any, stops: bool, tmp_path: Path) -> None:
    options = replace(OPTIONS, objective=objective, early_stopping_rounds=60)
    more: dict[str, Any] = {"options": options, "seed": 3}
    if stops:
        more["valid"] = data(2, called="validation")
    whole = LightGBMRanker.fit(data(1), **more)

    for last in (33, 59):  # cut off twice
        with pytest.raises(KeyboardInterrupt):
            LightGBMRanker.fit(data(1), **more, checkpoint=tmp_path / "run", progress=cut_at(last))
    steps: list[int] = []
    resumed = LightGBMRanker.fit(
        data(1), **more, checkpoint=tmp_path / "run", progress=lambda done, _: steps.append(done)
    )

    assert steps[0] == 41
    assert text_of(resumed, tmp_path / "resumed") == text_of(whole, tmp_path / "whole")
    assert resumed.manifest.version == whole.manifest.version
    assert resumed.manifest.metrics == whole.manifest.metrics
    # One that has ended takes no round more.
    again = LightGBMRanker.fit(data(1), **more, checkpoint=tmp_path / "run", progress=cut_at(41))
    assert again.manifest.metrics == whole.manifest.metrics
    assert again.manifest.version == whole.manifest.version


def test_what_was_best_before_the_cut_is_still_best_after_it(tmp_path: Path) -> None:
    """The later slice runs against the label, so that the first rounds are the best there."""
    later = data(2, called="validation")
    later = replace(later, labels=1 - later.labels)
    options = replace(OPTIONS, objective="binary", early_stopping_rounds=30)
    steps: list[int] = []
    whole = LightGBMRanker.fit(
        data(1), valid=later, options=options, progress=lambda *now: steps.append(now[0])
    )
    assert steps[-1] == whole.manifest.metrics["trees"] + 30
    assert steps[-1] > 26

    with pytest.raises(KeyboardInterrupt):
        LightGBMRanker.fit(data(1), valid=later, options=options, checkpoint=tmp_path, progress=cut_at(26))
    again: list[int] = []
    resumed = LightGBMRanker.fit(
        data(1), valid=later, options=options, checkpoint=tmp_path, progress=lambda *now: again.append(now[0])
    )

    assert again == [step for step in steps if step > 20]
    assert resumed.manifest.version == whole.manifest.version
    assert resumed.manifest.metrics == whole.manifest.metrics


@pytest.mark.parametrize(
    "options",
    [
        {"params": {"bagging_fraction": 0.5, "bagging_freq": 1}},
        {"params": {"extra_trees": True}},
        {"params": {"data_sample_strategy": "goss"}},
        {"params": {"subsample": 0.5}},  # another name for one of them
        {"position_bias": "lightgbm"},
    ],
)
def test_what_draws_by_a_memory_of_its_own_starts_anew(options: dict[str, Any], tmp_path: Path) -> None:
    own = replace(OPTIONS, **options)
    past = data(1, positions=np.tile(np.arange(10), 60))
    assert not can_go_on(own.of_lightgbm(600), position_bias=own.position_bias == "lightgbm")
    assert can_go_on(OPTIONS.of_lightgbm(600), position_bias=False)
    with pytest.raises(KeyboardInterrupt):
        LightGBMRanker.fit(past, options=own, checkpoint=tmp_path / "run", progress=cut_at(45))
    assert not (tmp_path / "run").exists()

    steps: list[int] = []
    resumed = LightGBMRanker.fit(
        past, options=own, checkpoint=tmp_path / "run", progress=lambda done, _: steps.append(done)
    )

    assert steps[0] == 1
    assert resumed.manifest.version == LightGBMRanker.fit(past, options=own).manifest.version


def test_a_damaged_or_foreign_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        LightGBMRanker.fit(data(1), options=OPTIONS, checkpoint=tmp_path, progress=cut_at(30))
    (model,) = tmp_path.glob("round-20.txt")
    facts = json.loads((tmp_path / "checkpoint.json").read_text())
    assert facts["content"]["done"] == 20

    for other in ({"seed": 1}, {"options": replace(OPTIONS, rounds=80)}, {"data": data(9)}):
        given = {"data": data(1), "options": OPTIONS, **other}
        with pytest.raises(CorruptRanker, match=r"over other data, options or seed, cut off after round 20"):
            LightGBMRanker.fit(given.pop("data"), **given, checkpoint=tmp_path)
    kept = model.read_bytes()
    model.write_bytes(kept.replace(b"leaf_value=", b"leaf_value=9 ", 1))
    with pytest.raises(
        CorruptRanker, match=r"round-20\.txt is damaged.*delete it to train from the beginning"
    ):
        LightGBMRanker.fit(data(1), options=OPTIONS, checkpoint=tmp_path)
    model.write_bytes(kept)
    (tmp_path / "checkpoint.json").write_text(json.dumps(facts).replace('"done": 20', '"done": 10'))
    with pytest.raises(CorruptRanker, match=r"checkpoint\.json was changed"):
        LightGBMRanker.fit(data(1), options=OPTIONS, checkpoint=tmp_path)


def test_a_probability_is_stopped_by_its_log_loss_alone() -> None:
    """One threshold tells the classes apart, so that the first tree orders them; probabilities sharpen for long."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((400, 1)).astype(np.float32)
    past = RankingData(features=features, feature_names=("x",), labels=features[:, 0] > 0)
    later = replace(past, called="validation")
    options = replace(OPTIONS, objective="binary", rounds=40, early_stopping_rounds=5, feature_fraction=1.0)

    ranker = LightGBMRanker.fit(past, valid=later, options=options)

    assert ranker.manifest.metrics["auc"] == 1.0
    assert ranker.manifest.metrics["trees"] == 40
