"""Trained by its name in YAML, the ranker that reads texts serves, alone and as the second of two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import explorank
from explorank.artefacts import ArtefactStore
from explorank.assembly import CATALOGUE, RANKER
from explorank.cross_encoder import CrossEncoderRanker
from explorank.effort import Effort
from explorank.model_card import ModelCard
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.tables import past_interactions
from explorank.pipeline.train import train_ranker
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import Rerank
from explorank.retrieval import Catalogue
from explorank.settings import RankerComponent, Settings, load_settings, parse_settings

pytestmark = pytest.mark.slow
SMALL = TrainOptions(queries=QueryOptions(positive_from=4.0), max_queries=60, negatives=20, promote="always")
TREES: dict[str, Any] = {"use": "lightgbm", "objective": "binary", "rounds": 20, "num_threads": 1}


@pytest.fixture(scope="module")
def reader(
    write_tiny_bert: Callable[..., Path], installation_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The options of a small one that knows the books' words."""
    texts = pd.read_parquet(installation_folder / "items.parquet")["text"]
    words = " ".join(texts).lower().replace(":", " : ").replace(".", " . ").split()
    model = write_tiny_bert(tmp_path_factory.mktemp("books"), {*words, "|"}, seed=1, longest=64)
    return {
        "use": "cross_encoder", "model": str(model), "steps": 20, "batch_size": 8, "learning_rate": 5e-3,
        "history": 3, "max_tokens": 64, "device": "cpu",
    }  # fmt: skip


@pytest.fixture
def settings(installation: Path) -> Settings:
    return load_settings(installation / "explorank.yaml")


@pytest.fixture
def events(installation: Path) -> pd.DataFrame:
    return past_interactions(pd.read_parquet(installation / "interactions.parquet"))


@pytest.fixture
def serve(installation: Path) -> Iterator[Callable[..., explorank.Stage]]:
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    with ExitStack() as stages:

        def serve(ranker: dict[str, Any]) -> explorank.Stage:
            changed = {
                **written,
                "ranker": ranker,
                "exploration": {"mode": "off", "policy": {"use": "uniform"}},
            }
            return stages.enter_context(explorank.load(parse_settings(changed, installation)))

        yield serve


def component(options: dict[str, Any]) -> RankerComponent:
    return RankerComponent(**options)


def scores_of(stage: explorank.Stage, decision: explorank.Decision) -> dict[str, float]:
    """The score of each candidate; among equal ones the order of items is drawn."""
    record = stage.decision(decision.decision_id)
    return dict(zip(record.item_ids.tolist(), record.scores.tolist(), strict=True))


def test_it_is_trained_published_served_and_explained(
    settings: Settings, events: pd.DataFrame, serve: Callable[..., explorank.Stage], reader: dict[str, Any]
) -> None:
    ranker, report = train_ranker(settings, events, component=component(reader), options=SMALL)
    assert isinstance(ranker, CrossEncoderRanker)
    store = ArtefactStore(settings.folder_path / "artefacts")
    card = ModelCard.read(store.verify(RANKER, report.version))
    assert card is not None
    assert (card.ranker, card.options["steps"]) == ("cross_encoder", 20)
    assert report.features == ("candidate_text", "history_text_1", "history_text_2", "history_text_3")

    stage = serve(reader)
    history = ["sea-1", "sea-2"]
    decision = stage.rank(context={"history": history}, slots=3)
    assert decision.fallbacks == ()
    served = stage.installation.ranker.get()
    assert isinstance(served, CrossEncoderRanker)
    expected = served.score(served.read_ids(decision.items, history))
    np.testing.assert_allclose(decision.scores, expected, atol=1e-6)
    explained = stage.explain(decision.decision_id)
    assert explained.items[0].as_served
    assert {part.name for part in explained.items[0].parts} == set(report.features)


def test_an_item_of_a_new_catalogue_is_read(
    settings: Settings, events: pd.DataFrame, serve: Callable[..., explorank.Stage], reader: dict[str, Any]
) -> None:
    train_ranker(settings, events, component=component(reader), options=SMALL)
    stage = serve(reader)
    before = stage.installation.ranker.get()
    assert isinstance(before, CrossEncoderRanker)
    assert before.read_ids(["sea-new"], []).tolist() == [[0, 0, 0, 0]]

    content = settings.repository_path / "data" / "item_content.parquet"  # type: ignore[operator]
    known = pd.read_parquet(content)
    new = known[known["item_id"] == "sea-1"].assign(item_id="sea-new")
    pd.concat([known, new]).to_parquet(content)
    store = stage.installation.artefacts
    catalogue = stage.installation.catalogue.get()
    assert catalogue is not None
    ids = [*catalogue.item_ids.tolist(), "sea-new"]
    vectors = np.concatenate([catalogue.vectors, catalogue.vectors[catalogue.rows(["sea-1"])]])
    store.publish(CATALOGUE, Catalogue.build(ids, vectors).save)
    stage.installation.refresh()

    after = stage.installation.ranker.get()
    assert isinstance(after, CrossEncoderRanker)
    scores = after.score(after.read_ids(["sea-new", "sea-1"], ["sea-2"]))
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert after.manifest.version == before.manifest.version


def test_it_orders_the_best_of_another_and_where_it_fails_their_order_stands(
    settings: Settings,
    events: pd.DataFrame,
    serve: Callable[..., explorank.Stage],
    reader: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"use": "rerank", "first": TREES, "then": reader, "top": 5, "budget_ms": 60_000.0}
    ranker, report = train_ranker(settings, events, component=component(options), options=SMALL)
    assert isinstance(ranker, Rerank)
    assert report.features[-4:] == (
        "1.candidate_text", "1.history_text_1", "1.history_text_2", "1.history_text_3",
    )  # fmt: skip

    stage = serve(options)
    asked = {"user_id": "reader-3", "slots": 8}
    whole = stage.rank(**asked)
    assert whole.fallbacks == ()
    hurried = stage.rank(**asked, effort=Effort(ranker="cheaper", reason="too much to do"))
    assert hurried.versions["ranker"].endswith("-cheaper")
    # Some of the five best by trees have exchanged their scores, and nobody else has moved.
    by_both, by_trees = scores_of(stage, whole), scores_of(stage, hurried)
    best = sorted(by_trees, key=by_trees.__getitem__, reverse=True)[:5]
    moved = {item for item, score in by_trees.items() if by_both[item] != pytest.approx(score, rel=1e-9)}
    assert moved
    assert moved <= set(best)
    np.testing.assert_allclose(sorted(by_both.values()), sorted(by_trees.values()), rtol=1e-9)

    # One item is explained as it was placed among all.
    explained = stage.explain(whole.decision_id, [whole.items[1], whole.items[7]])
    assert all(one.as_served for one in explained.items)
    added = [{part.name: part.attribution for part in one.parts} for one in explained.items]
    assert added[0]["1.candidate_text"] != 0.0
    assert added[1]["1.candidate_text"] == 0.0

    def fail(self: CrossEncoderRanker, features: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(CrossEncoderRanker, "score", fail)
    fallen = stage.rank(**asked)
    assert scores_of(stage, fallen) == by_trees
    (fallback,) = fallen.fallbacks
    assert (fallback.step, fallback.reason) == ("score", "RuntimeError: no memory left")
    assert fallback.action == "lightgbm alone, without cross_encoder"


def test_it_teaches_another(settings: Settings, events: pd.DataFrame, reader: dict[str, Any]) -> None:
    student = {
        "use": "dcn", "objective": "binary", "hidden": [8], "training": {"epochs": 1, "batch_rows": 64},
        "taught_by": {**reader, "steps": 2, "cross_fit": 2},
    }  # fmt: skip
    _, report = train_ranker(settings, events, component=component(student), options=SMALL)
    assert report.teaching is not None
    assert report.teaching.teacher == "cross_encoder"
