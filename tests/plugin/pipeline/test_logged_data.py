"""What was displayed becomes rows that know their slot, and tells how likely slots are looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank import Stage
from explorank.artefacts import ArtefactStore
from explorank.builtin.retrieval import history_of
from explorank.errors import DataError
from explorank.hooks.evaluation import AdjacentSlots
from explorank.model_card import ModelCard, moment
from explorank.pipeline.examination import estimate_examination
from explorank.pipeline.features import feature_access
from explorank.pipeline.logged_data import logged_data
from explorank.pipeline.train import train_ranker
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import LightGBMRanker
from explorank.settings import RankerComponent

OpenStage = Callable[..., Stage]
SLOTS = 4
THETA = (1.0, 0.6, 0.4, 0.2)
LATER = 200_000.0


def test_rows_of_the_log_know_their_slot(open_books: OpenStage, spy: Any) -> None:
    changes = {
        "exploration": {"slots": "all", "policy": {"use": "epsilon_greedy", "epsilon": 0.8}},
        # What costs a little when nothing comes, so that a mere mention is more than that, and not liked.
        "feedback": {
            "rewards": {"click": 1.0, "regret": {"weight": -1.0, "maximum": 2.0}, "noticed": 0.0},
            "default_reward": -0.1,
        },
    }
    stage = open_books(changes, plugins=[spy])
    rng = np.random.default_rng(0)
    due: dict[str, list[tuple[str, int, bool]]] = {}
    for number in range(40):
        decision = stage.rank(user_id=f"reader-{number}", slots=SLOTS)
        displayed = decision.items[: SLOTS - number % 2]
        stage.shown(decision.decision_id, displayed)
        clicks = rng.random(len(displayed)) < 0.6 * np.array(THETA)[: len(displayed)]
        for slot in np.flatnonzero(clicks).tolist():
            stage.reward(decision.decision_id, slot=slot)
            if rng.random() < 0.3:
                stage.reward(decision.decision_id, slot=slot, kind="regret")
                clicks[slot] = False
        stage.reward(decision.decision_id, slot=0, value=0.5, kind="noticed")
        due[decision.decision_id] = [(item, slot, bool(clicks[slot])) for slot, item in enumerate(displayed)]
    turned = stage.rank(user_id="reader-1", slots=SLOTS)
    stage.shown(turned.decision_id, turned.items[::-1])
    stage.reward(stage.rank(slots=SLOTS).decision_id, slot=0)  # an anonymous visitor
    stage.rank(user_id="reader-2", slots=SLOTS)  # nothing is known of what was displayed

    installation = stage.installation
    catalogue, access = installation.catalogue.get(), feature_access(installation.settings)
    assert catalogue is not None
    past = logged_data(installation.settings, catalogue, access, TrainOptions(), now=time.time() + LATER)
    assert (past.training.requests, past.later.requests) == (32, 8)
    records = [stage.decision(one) for one in due]
    similarities = {one.request.decision_id: one.similarities for one in spy.seen}
    for data, part in ((past.training, records[:32]), (past.later, records[32:])):
        columns = (data.item_ids, data.positions, data.labels.astype(bool))
        found = list(zip(*(column.tolist() for column in columns), strict=True))
        assert found == [row for record in part for row in due[record.decision_id]]
        assert data.groups.tolist() == [len(due[record.decision_id]) for record in part]
        assert data.histories == tuple(history_of(record.request) for record in part)
        served = [
            similarities[record.decision_id][item]
            for record in part
            for item, _, _ in due[record.decision_id]
        ]
        column = data.features[:, data.feature_names.index("similarity")]
        np.testing.assert_allclose(column, served, atol=1e-5)
    assert past.later_users.tolist() == [record.request.user_id for record in records[32:]]
    assert past.training.window[1] <= past.later.window[0]
    since = records[9].request.time
    newer = logged_data(
        installation.settings, catalogue, access, TrainOptions(since=since), now=time.time() + LATER
    )
    assert newer.training.requests + newer.later.requests == 30
    assert newer.training.window[0] == records[10].request.time
    assert newer.sampling.requests["since"] == moment(since)
    with pytest.raises(DataError, match=r"0 displayed slates"):
        logged_data(installation.settings, catalogue, access, TrainOptions(), now=time.time())


def test_a_ranker_is_trained_from_the_log_and_allows_for_slots(
    open_books: OpenStage, installation: Path
) -> None:
    stage = open_books({"retrieval": {"by_use": {"log": True}}})
    settings = stage.installation.settings
    for number in range(60):
        decision = stage.rank(user_id=f"reader-{number % 40}", slots=SLOTS)
        stage.shown(decision.decision_id, decision.items)
        stage.reward(decision.decision_id, slot=number % 2)
    component = RankerComponent.model_validate(
        {"use": "lightgbm", "rounds": 5, "min_data_in_leaf": 5, "position_bias": "lightgbm"}
    )
    ranker, report = train_ranker(
        settings, None, component=component, options=TrainOptions(rows="log", until=time.time() + LATER)
    )
    assert isinstance(ranker, LightGBMRanker)
    assert "similarity_by_use" in ranker.manifest.feature_names
    assert report.queries + report.validation_queries == 60
    card = ModelCard.read(ArtefactStore(settings.folder_path / "artefacts").verify("ranker", report.version))
    assert card is not None
    assert card.sampling is not None
    assert (card.sampling.rows, card.sampling.drawn_evenly) == ("log", 0)
    assert card.by_use == settings.retrieval.by_use.model_dump(mode="json")
    assert "| rows from | log |" in card.to_markdown()
    assert "| model | `auto` |" in card.to_markdown()
    assert "evenly" not in card.to_markdown()
    with pytest.raises(DataError, match="--from-log"):
        train_ranker(settings, None, component=component)


def test_the_curve_of_the_log_is_that_of_its_explored_slots(open_stage: OpenStage) -> None:
    stage = open_stage({"exploration": {"policy": {"use": "epsilon_greedy", "epsilon": 0.7}}})
    with pytest.raises(DataError, match=r"0 decisions explored both.*`exploration.slots`"):
        estimate_examination(stage.installation.settings, now=time.time() + LATER)
    rng = np.random.default_rng(1)
    slots = AdjacentSlots()
    for number in range(120):
        decision = stage.explore([f"i{row}" for row in range(6)], rng.standard_normal(6), slots=SLOTS)
        displayed = SLOTS - number % 2
        stage.shown(decision.decision_id, decision.items[:displayed])
        clicks = rng.random(displayed) < THETA[:displayed]
        for slot in np.flatnonzero(clicks).tolist():
            stage.reward(decision.decision_id, slot=slot)
        slots.add(stage.decision(decision.decision_id), dict(enumerate(clicks.astype(float))))
    found = estimate_examination(stage.installation.settings, now=time.time() + LATER)
    due = slots.curve()
    assert found.probabilities == pytest.approx(due.probabilities)
    assert found.decisions.tolist() == [120, 120, 60]
    assert found.low == pytest.approx(due.low)
