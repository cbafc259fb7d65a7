"""Which ranker serves is changed over a running stage: by evidence, by hand, and back in one step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from explorank import Stage, load
from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION, RANKER
from explorank.checks import run_checks
from explorank.errors import DamagedArtefact, RankerError, UnknownArtefact, UnknownComponent
from explorank.hooks.exploration import Calibration
from explorank.pipeline.models import Models
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.tables import past_interactions
from explorank.pipeline.train import TrainOptions, train_ranker
from explorank.rankers import LightGBMRanker
from explorank.settings import RankerComponent, Settings, load_settings

SMALL = TrainOptions(queries=QueryOptions(positive_from=4.0), max_queries=60, negatives=20)


@pytest.fixture(scope="module")
def linear(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    return module_at(Path(__file__).with_name("linear_ranker.py"))


@pytest.fixture
def settings(installation: Path) -> Settings:
    return load_settings(installation / "explorank.yaml")


@pytest.fixture
def train(settings: Settings, installation: Path, linear: ModuleType) -> Callable[..., Any]:
    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))

    def train_(use: str = "lightgbm", *, promote: Any = "unless-worse", seed: int = 0, **options: Any) -> Any:
        return train_ranker(
            settings, events, component=RankerComponent(use=use, **options),
            options=replace(SMALL, promote=promote, seed=seed), plugins=[linear.Shop()],
        )  # fmt: skip

    return train_


def serving(stage: Stage) -> str:
    stage.installation.refresh()
    decision = stage.rank(user_id="reader-3", slots=3)
    assert not decision.fallbacks
    return decision.versions["ranker"]


def test_a_running_stage_follows_each_change(settings: Settings, train: Callable[..., Any]) -> None:
    models = Models(settings)
    (first,) = models.list()
    with load(settings) as stage:
        was = serving(stage)
        ranker, report = train(rounds=30, promote="never")
        assert serving(stage) == was
        assert [(model.version, model.current) for model in models.list()] == [
            (first.version, True), (report.version, False),
        ]  # fmt: skip

        promoted = models.promote(report.version[:25])
        assert (promoted.version, promoted.former) == (report.version, first.version)
        assert serving(stage) == ranker.manifest.version != was

        assert models.roll_back().version == first.version
        assert serving(stage) == was
        with pytest.raises(UnknownArtefact, match="nothing to go back to"):
            models.roll_back()
        # As decisions name it, too.
        assert models.promote(ranker.manifest.version[:8]).version == report.version
        assert serving(stage) == ranker.manifest.version


def test_a_worse_one_is_published_and_does_not_serve(settings: Settings, train: Callable[..., Any]) -> None:
    good, report = train(rounds=60)
    assert report.verdict.promoted, report.verdict.reason

    _, worse = train(rounds=1, num_leaves=2, learning_rate=1e-9)

    assert not worse.verdict.promoted
    assert "surely worse" in worse.verdict.reason
    assert worse.comparison.former == report.version
    assert worse.comparison.difference.high < 0
    with load(settings) as stage:
        assert serving(stage) == good.manifest.version
    _, unsure = train(rounds=60, promote="if-better")
    assert (unsure.comparison.difference.mean, unsure.verdict.promoted) == (0.0, False)


def test_another_kind_of_ranker_serves_and_is_gone_back_from(
    settings: Settings, train: Callable[..., Any], linear: ModuleType
) -> None:
    """The settings go on naming lightgbm: what was promoted serves, and a stage without its plugin keeps the last."""
    with load(settings, plugins=[linear.Shop()]) as stage, load(settings) as without:
        was = serving(stage)
        ranker, _ = train("linear", promote="always")
        assert serving(stage) == ranker.manifest.version
        decision = stage.rank(user_id="reader-3", slots=3)
        assert all(0 < score < 1 for score in decision.scores), (
            "probabilities, which lambdarank does not give"
        )
        assert serving(without) == was
        assert "registers a ranker 'linear'" in str(without.installation.ranker.error)
        with pytest.raises(UnknownComponent, match="'linear'"):
            Models(settings).promote(ranker.manifest.version)
        Models(settings).roll_back()
        assert serving(stage) == serving(without) == was
        assert without.installation.ranker.error is None


def test_what_is_damaged_is_not_promoted(settings: Settings, train: Callable[..., Any]) -> None:
    models = Models(settings)
    _, report = train(rounds=5, promote="never")
    store = ArtefactStore(settings.folder_path / "artefacts")
    before = store.current(RANKER)

    (store.verify(RANKER, report.version) / "model.txt").write_text("?", encoding="utf-8")
    with pytest.raises(DamagedArtefact, match=r"model\.txt is damaged"):
        models.promote(report.version)
    assert store.current(RANKER) == before


def test_columns_that_nobody_serves_are_named(settings: Settings, train: Callable[..., Any]) -> None:
    ranker, _ = train(rounds=5)
    renamed = ranker._text.replace("similarity", "smell_of_it")
    booster_text = LightGBMRanker.from_booster(_booster(renamed))
    version = ArtefactStore(settings.folder_path / "artefacts").publish(
        RANKER, booster_text.save, promote=False
    )
    with pytest.raises(RankerError, match="missing smell_of_it"):
        Models(settings).promote(version)
    assert Models(settings).promote(version, force=True).version == version
    results = {result.name: result for result in run_checks(settings)}
    assert results["ranker"].verdict == "wrong"


def _booster(text: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=text)


def test_misspelt_and_ambiguous_versions(settings: Settings, train: Callable[..., Any]) -> None:
    _, report = train(rounds=5)
    models = Models(settings)
    with pytest.raises(UnknownArtefact, match="fits 2 versions"):
        models.resolve("20")
    wrong = report.version[:-3] + "zzz"
    with pytest.raises(UnknownArtefact, match=f"Did you mean '{report.version}'"):
        models.promote(wrong)


def test_the_map_of_scores_to_rewards_goes_with_its_ranker(
    settings: Settings, train: Callable[..., Any]
) -> None:
    store = ArtefactStore(settings.folder_path / "artefacts")
    former, first = train(rounds=20)
    own = store.publish(
        CALIBRATION, Calibration([-1.0, 1.0], [0.1, 0.3], ranker=former.manifest.version).save
    )

    ranker, report = train(rounds=25, seed=1, promote="never")

    assert report.calibration is not None
    assert store.current(CALIBRATION) == (own, store.verify(CALIBRATION, own)), "it waits as the ranker does"
    assert Models(settings).promote(report.version).calibration == report.calibration
    current = store.current(CALIBRATION)
    assert current is not None
    assert Calibration.load(current[1]).ranker == ranker.manifest.version
    assert Models(settings).roll_back().calibration == own
    assert {model.version: model.calibration for model in Models(settings).list()}[first.version] == own


def test_a_current_one_that_cannot_be_scored_is_replaced(
    settings: Settings, train: Callable[..., Any]
) -> None:
    store = ArtefactStore(settings.folder_path / "artefacts")
    current = store.current(RANKER)
    assert current is not None
    (current[1] / "model.txt").write_text("?", encoding="utf-8")

    _, report = train(rounds=5, promote="if-better")

    assert report.verdict.promoted
    assert "not compared" in report.verdict.reason
    assert "model.txt" in report.verdict.reason
    assert report.comparison is None
    with pytest.raises(DamagedArtefact):
        Models(settings).roll_back()
    shutil.rmtree(current[1])
    with pytest.raises(UnknownArtefact, match="nothing to go back to"):
        Models(settings).roll_back()
