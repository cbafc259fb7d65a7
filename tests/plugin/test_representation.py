"""Exploration over the last layer of the ranker that serves, through promotions and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from explorank import Stage, load
from explorank.artefacts import ArtefactStore
from explorank.assembly import RANKER
from explorank.checks import run_checks
from explorank.errors import SettingsError
from explorank.hooks import hookimpl
from explorank.hooks.evaluation import replay
from explorank.hooks.types import Candidates, Features, RankingRequest, Scores
from explorank.pipeline.evidence import Verdict
from explorank.pipeline.models import Models
from explorank.pipeline.train import _unless_none_would_start
from explorank.rankers import (
    DCNOptions,
    DCNRanker,
    LightGBMOptions,
    LightGBMRanker,
    RankingData,
    TrainingOptions,
)
from explorank.settings import parse_settings

OpenStage = Callable[..., Stage]
NAMES = ("a", "b")
CANDIDATES = 10
OVER_THE_LAYER: dict[str, Any] = {
    "ranker": {"use": "dcn", "budget_ms": 5_000.0},
    "retrieval": {"retrievers": [{"use": "popular"}]},
    "exploration": {
        "policy": {"use": "neural_linear", "noise": 0.5, "floor": 0.05, "draws": 128},
        "features": ["representation"],
        "slots": [0],
    },
    "feedback": {"horizon_s": 1e9},
}


def outlying(columns: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows lie far out in `a`, half of them; the best by any weighted sum of the columns mostly do."""
    return np.abs(columns[:, 0]) > 0.6745


def past(rows: int, seed: int) -> RankingData:
    """Labels say which rows lie far out."""
    features = np.random.default_rng(seed).standard_normal((rows, 2)).astype(np.float32)
    return RankingData(features=features, feature_names=NAMES, labels=outlying(features).astype(np.float64))


def network(seed: int, width: int = 8) -> DCNRanker:
    options = DCNOptions(
        objective="binary",
        hidden=(16, width),
        training=TrainingOptions(epochs=12, batch_rows=128, learning_rate=5e-3),
    )
    return DCNRanker.fit(past(2_000, seed=1), options=options, seed=seed)


@pytest.fixture(scope="module")
def first() -> DCNRanker:
    return network(seed=0)


@pytest.fixture(scope="module")
def second() -> DCNRanker:
    return network(seed=1)


class World:
    """Candidates with two columns each, drawn anew for each request; as a plugin it retrieves and enriches them.

    What earns does not lie far out: the opposite of what the ranker was trained to find.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._columns: NDArray[np.float32] = np.empty((0, 2), np.float32)
        self._asked = 0

    @hookimpl
    def ranking_retrieve(self, request: RankingRequest, k: int) -> Candidates:
        self._columns = self._rng.standard_normal((CANDIDATES, 2)).astype(np.float32)
        self._asked += 1
        return Candidates.of([f"{self._asked}-{row}" for row in range(CANDIDATES)], "world")

    @hookimpl
    def ranking_enrich(self, request: RankingRequest, candidates: Candidates) -> Features:
        rows = [int(item.split("-")[1]) for item in candidates.id_list]
        return Features(NAMES, self._columns[rows])

    def earns(self, item_id: str) -> bool:
        return not outlying(self._columns)[int(item_id.split("-")[1])]


def publish(folder: Path, ranker: Any) -> str:
    return ArtefactStore(folder / ".explorank" / "artefacts").publish(RANKER, ranker.save)


def visit(stage: Stage, world: World, visits: int) -> NDArray[np.bool_]:
    """Return which of the visits found in the explored slot what earns; rewards are told, whether or not."""
    earned = []
    for number in range(visits):
        decision = stage.rank(slots=1)
        earned.append(world.earns(decision.items[0]))
        stage.reward(decision.decision_id, slot=0, value=float(earned[-1]))
        if number % 5 == 4:
            stage.installation.learner.step()
    return np.array(earned)


def test_what_raw_columns_do_not_separate_is_learnt_over_the_last_layer(
    open_stage: OpenStage, tmp_path: Path, first: DCNRanker
) -> None:
    """Half of the candidates earn. After 60 visits the layer finds one in 9 of 10 visits, raw columns by chance.

    A share of 120 visits has a standard error of at most 0.046.
    """
    publish(tmp_path, first)
    shares = {}
    for columns in (["representation"], ["a", "b"]):
        world = World()
        stage = open_stage(
            {**OVER_THE_LAYER, "exploration": {**OVER_THE_LAYER["exploration"], "features": columns}},
            plugins=[world],
        )
        visit(stage, world, 60)
        shares[columns[0]] = visit(stage, world, 120).mean()
        stage.close()
    assert shares["representation"] > 0.85
    assert shares["a"] < 0.65


def test_a_decision_says_over_what_it_was_made_and_is_replayed_so(
    open_stage: OpenStage, tmp_path: Path, first: DCNRanker
) -> None:
    publish(tmp_path, first)
    world = World()
    stage = open_stage(OVER_THE_LAYER, plugins=[world])
    visit(stage, world, 20)
    decision = stage.rank(slots=2)
    record = stage.decision(decision.decision_id)
    assert record.versions["representation"] == first.manifest.version
    assert record.feature_names == ("constant", *(f"representation_{unit}" for unit in range(8)))
    # The columns as served: standardised over training, cut, and of length 1 on the whole.
    mean, deviation = first.representation_scale
    hidden = (first.representation(world._columns[record.feature_rows]) - mean) / deviation
    np.testing.assert_allclose(record.features[:, 1:], np.clip(hidden, -5, 5) / np.sqrt(8), atol=1e-5)
    np.testing.assert_allclose(record.scores, first.score(world._columns), atol=1e-6)
    again = replay(record, stage.installation.policy, stage.installation.learner.snapshot)
    assert again.order.tolist() == record.slate.order.tolist()
    assert again.propensities.tolist() == record.slate.propensities.tolist()


def test_another_ranker_starts_from_the_prior_and_the_former_is_found_again(
    open_stage: OpenStage, tmp_path: Path, first: DCNRanker, second: DCNRanker
) -> None:
    publish(tmp_path, first)
    world = World()
    stage = open_stage(OVER_THE_LAYER, plugins=[world])
    learner, artefacts = stage.installation.learner, ArtefactStore(tmp_path / ".explorank" / "artefacts")
    visit(stage, world, 40)
    learner.step()
    known = learner.snapshot.over(first.manifest.version)
    late = stage.rank(slots=1)

    publish(tmp_path, second)
    stage.installation.refresh()
    assert learner.snapshot.over(second.manifest.version) is None
    visit(stage, world, 10)
    fresh = learner.snapshot.over(second.manifest.version)
    assert fresh.shape == pytest.approx(6.0 + 10 / 2)  # what ten rewards teach, and none before
    assert learner.snapshot.over(first.manifest.version).belief.mean.tolist() == known.belief.mean.tolist()

    # A reward for what was shown by the former ranker is learnt over the former one's layer.
    stage.reward(late.decision_id, slot=0, value=1.0)
    learner.step()
    assert learner.snapshot.over(first.manifest.version).shape == pytest.approx(known.shape + 0.5)
    assert learner.snapshot.over(second.manifest.version).shape == pytest.approx(fresh.shape)

    artefacts.roll_back(RANKER)
    stage.installation.refresh()
    assert visit(stage, world, 60).mean() > 0.75  # half by chance; the standard error is 0.065

    before = learner.snapshot
    learner.rebuild()
    for name, state in before.states:
        np.testing.assert_allclose(learner.snapshot.over(name).belief.mean, state.belief.mean, rtol=1e-6)


class Plain:
    """A third party's ranker, which is no network."""

    @hookimpl(tryfirst=True)
    def ranking_score(self, candidates: Candidates) -> Scores:
        return Scores(np.arange(len(candidates), dtype=np.float64), version="plain-1")


@pytest.mark.parametrize("successor", ["wider", "plain"])
def test_a_ranker_without_that_layer_is_served_and_explores_nothing(
    open_stage: OpenStage,
    tmp_path: Path,
    first: DCNRanker,
    successor: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(tmp_path, first)
    stage = open_stage(OVER_THE_LAYER, plugins=[World(), *([Plain()] if successor == "plain" else [])])
    assert stage.status()["unexplored_because"] == ""
    if successor == "wider":
        publish(tmp_path, network(seed=2, width=12))
        with caplog.at_level("WARNING", logger="explorank.assembly"):
            stage.installation.refresh()
            stage.installation.refresh()
        # Told once, when it is taken up, and as long as it lasts where somebody asks.
        (told,) = [record.getMessage() for record in caplog.records if record.name == "explorank.assembly"]
        assert "has a last layer of 12 columns, and `exploration.features` named one of 8" in told
        assert stage.status()["unexplored_because"] == told
    decision = stage.rank(slots=1)
    assert decision.methods == ("score",)
    assert decision.propensity_known
    reasons = [fallback.reason for fallback in decision.fallbacks]
    expected = "came with one of 12 columns" if successor == "wider" else "of 'plain-1' came with none"
    assert any("8 columns when the server was started" in one and expected in one for one in reasons)


def test_started_anew_the_other_width_is_explored(
    open_stage: OpenStage, tmp_path: Path, first: DCNRanker
) -> None:
    publish(tmp_path, first)
    world = World()
    stage = open_stage(OVER_THE_LAYER, plugins=[world])
    visit(stage, world, 10)
    stage.close()
    publish(tmp_path, network(seed=2, width=12))

    again = open_stage(OVER_THE_LAYER, plugins=[world])
    decision = again.rank(slots=1)

    assert again.status()["unexplored_because"] == ""
    assert decision.methods == ("explore",)
    visit(again, world, 10)


def test_no_ranker_is_promoted_with_which_no_server_would_start(tmp_path: Path, first: DCNRanker) -> None:
    publish(tmp_path, first)
    trees = LightGBMRanker.fit(past(500, seed=3), options=LightGBMOptions(objective="binary", rounds=3))
    store = ArtefactStore(tmp_path / ".explorank" / "artefacts")
    version = store.publish(RANKER, trees.save, promote=False)
    settings = parse_settings({"version": 1, **OVER_THE_LAYER}, tmp_path)
    models = Models(parse_settings({"version": 1, **OVER_THE_LAYER, "ranker": {"use": "lightgbm"}}, tmp_path))

    with pytest.raises(SettingsError, match=r"a 'lightgbm' ranker has none"):
        models.promote(version, force=True)  # a plugin serves the columns

    assert store.current(RANKER)[1] != store.pointer(RANKER).parent / version  # type: ignore[index]
    good = Verdict(promoted=True, reason="better")
    assert _unless_none_would_start(settings, first, good) == good
    refused = _unless_none_would_start(settings, trees, good)
    assert not refused.promoted
    assert "no server would start with it" in refused.reason


def test_a_layer_that_nobody_has_is_refused_where_settings_are_read(tmp_path: Path, first: DCNRanker) -> None:
    settings = parse_settings({"version": 1, **OVER_THE_LAYER}, tmp_path)
    with pytest.raises(SettingsError, match=r"exploration.features: .*none is trained yet.*--ranker dcn"):
        load(settings)
    publish(tmp_path, first)
    found = {one.name: one for one in run_checks(settings)}
    assert found["policy"].detail.startswith("represented_neural_linear")
    assert "exploration.features" not in found

    publish(
        tmp_path / "trees",
        LightGBMRanker.fit(past(500, seed=3), options=LightGBMOptions(objective="binary", rounds=3)),
    )
    trees = {**OVER_THE_LAYER, "ranker": {"use": "lightgbm"}}
    found = {one.name: one for one in run_checks(parse_settings({"version": 1, **trees}, tmp_path / "trees"))}
    assert found["components"].verdict == "wrong"
    assert "a 'lightgbm' ranker has none" in found["components"].detail
