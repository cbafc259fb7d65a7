"""A decision is explained from its record: parts that sum to the score, the history behind it, exploration's part."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import orjson
import pandas as pd
import pytest

from explorank import Stage, cli
from explorank.artefacts import ArtefactStore
from explorank.cli import console
from explorank.errors import DataError, InvalidRequest, UnknownDecision
from explorank.explanation_plot import draw
from explorank.hooks import hookimpl
from explorank.hooks.registry import Registry
from explorank.pipeline.features import feature_access

OpenStage: TypeAlias = Callable[..., Stage]


def test_the_parts_sum_to_the_score_of_the_decision(open_books: OpenStage) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-3", slots=6)

    explained = stage.explain(decision.decision_id)

    ranker = stage.installation.ranker.get()
    assert ranker is not None
    assert explained.ranker == ranker.manifest.version
    assert explained.artefact == stage.installation.ranker.version
    assert [one.item_id for one in explained.items] == list(decision.items)
    assert explained.notes == ()
    for slot, one in enumerate(explained.items):
        assert one.base is not None
        assert one.base + sum(part.attribution for part in one.parts) == pytest.approx(
            decision.scores[slot], abs=1e-9
        )
        assert one.recomputed_score == pytest.approx(one.score) == pytest.approx(decision.scores[slot])
        assert one.as_served
        assert {part.name for part in one.parts} == set(ranker.manifest.feature_names)
        sizes = [abs(part.attribution) for part in one.parts]
        assert sizes == sorted(sizes, reverse=True)
        assert one.method_of_attribution == "tree_shap"


def test_what_exploration_did_stands_beside_the_baseline(open_books: OpenStage) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-5", slots=6)
    record = stage.decision(decision.decision_id)

    explained = stage.explain(decision.decision_id)

    baseline = record.item_ids[record.baseline_order].tolist()
    for slot, one in enumerate(explained.items):
        assert (one.slot, one.method, one.propensity) == (
            slot,
            decision.methods[slot],
            decision.propensities[slot],
        )
        assert one.baseline_slot == (baseline.index(one.item_id) if one.item_id in baseline else None)
        assert one.choices == record.slate.support[slot].sum()
        assert (one.choices == 1) == (one.method == "score")
        assert one.sources == decision.sources[slot]
        assert one.score_rank == 1 + sum(score > one.score for score in record.scores)
    assert {one.method for one in explained.items} == {"score", "explore"}
    # What the policy saw is in the log, of the items that it could draw.
    (drawn, *_) = [one for one in explained.items if one.method == "explore"]
    assert set(drawn.policy_saw) == {"constant", "score", "similarity"}


def test_the_history_that_a_candidate_is_like(open_books: OpenStage, installation: Path) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-3", slots=3)

    explained = stage.explain(decision.decision_id)

    catalogue = stage.installation.catalogue.get()
    assert catalogue is not None
    liked = stage.decision(decision.decision_id).request.context["liked"]
    content = pd.read_parquet(installation / "feature_repo" / "data" / "item_content.parquet")
    texts = content.set_index("item_id")["item_text"]
    for one in explained.items:
        vector = catalogue.vectors[catalogue.rows([one.item_id])[0]]
        others = [item for item in dict.fromkeys(liked) if item != one.item_id]
        cosines = catalogue.vectors[catalogue.rows(others)] @ vector
        expected = [others[place] for place in np.argsort(-cosines, kind="stable")[:3]]
        assert [near.item_id for near in one.nearest] == expected
        assert one.nearest[0].cosine == pytest.approx(float(cosines.max()), abs=1e-6)
        assert one.text == texts[one.item_id]
        assert [near.text for near in one.nearest] == texts[expected].tolist()


@pytest.mark.parametrize("broken", ["absent", "damaged"])
def test_without_texts_items_are_told_by_their_ids(
    open_books: OpenStage, installation: Path, broken: str
) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-3", slots=1)
    content = installation / "feature_repo" / "data" / "item_content.parquet"
    content.unlink()
    if broken == "damaged":
        content.write_bytes(b"PAR1, once")

    (one,) = stage.explain(decision.decision_id).items

    assert one.text == ""
    assert {near.text for near in one.nearest} == {""}


def test_a_text_feature_is_told_as_its_text(open_books: OpenStage) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-3", slots=3)
    for one in stage.explain(decision.decision_id).items:
        (subject,) = [part for part in one.parts if part.name == "item_subject"]
        assert subject.text == one.item_id.partition("-")[0]


def test_a_candidate_that_was_not_shown(open_books: OpenStage) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-3", slots=2)
    record = stage.decision(decision.decision_id)
    last = str(record.item_ids[int(record.scores.argmin())])

    (one,) = stage.explain(decision.decision_id, [last]).items

    assert (one.slot, one.method, one.propensity, one.choices) == (None, None, None, None)
    assert one.score_rank >= len(record.item_ids) - 1
    assert one.as_served
    misspelt = f"{last}x"
    with pytest.raises(InvalidRequest, match=r"was none of the \d+ candidates of decision"):
        stage.explain(decision.decision_id, [misspelt])
    with pytest.raises(UnknownDecision):
        stage.explain("0" * 32)


def test_features_that_changed_since_are_said_to_have(open_books: OpenStage, installation: Path) -> None:
    """That decades pass changes nothing: ages are counted to the decision. That the store was emptied does."""
    decision = open_books().rank(user_id="reader-3", slots=4)
    later = open_books({"features": {"as_of": "2090-01-01T00:00:00Z"}})
    assert all(one.as_served for one in later.explain(decision.decision_id).items)

    access = feature_access(later.installation.settings)
    access.reset()
    access.apply()
    explained = open_books().explain(decision.decision_id)

    assert not all(one.as_served for one in explained.items)
    assert any("read from the store of now" in note for note in explained.notes)
    for one in explained.items:
        assert one.base is not None
        total = one.base + sum(part.attribution for part in one.parts)
        assert total == pytest.approx(one.recomputed_score, abs=1e-9)
        # The similarity follows from the logged history, however old it is.
        (similarity,) = [part for part in one.parts if part.name == "similarity"]
        assert similarity.value is not None


def test_explaining_changes_nothing_for_the_user(open_books: OpenStage) -> None:
    stage = open_books()
    first = stage.rank(user_id="reader-3", slots=3)
    stage.reward(first.decision_id, slot=0)
    before = stage.rank(user_id="reader-3", slots=3, context={"x": 1})
    stage.explain(first.decision_id)
    after = stage.rank(user_id="reader-3", slots=3, context={"x": 1})
    assert before.scores[0] == after.scores[0]


def test_a_ranker_that_is_gone_is_named(open_books: OpenStage, installation: Path) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-3", slots=3)
    assert stage.installation.ranker.version is not None
    (
        installation / ".explorank" / "artefacts" / "ranker" / stage.installation.ranker.version / "model.txt"
    ).write_text("?")

    explained = stage.explain(decision.decision_id)

    assert explained.artefact == ""
    assert any("no longer published, or damaged" in note for note in explained.notes)
    assert [one.parts for one in explained.items] == [()] * 3
    assert [one.score for one in explained.items] == list(decision.scores)
    with pytest.raises(DataError, match="no attributions to draw"):
        draw(explained, installation / "plot.png")


def test_scores_of_the_host_have_no_parts(open_stage: OpenStage) -> None:
    stage = open_stage()
    decision = stage.explore(["a", "b", "c"], [0.3, 0.2, 0.1], slots=2, user_id="ann")

    explained = stage.explain(decision.decision_id)

    assert explained.ranker == ""
    assert any("No trained ranker scored this decision" in note for note in explained.notes)
    assert [one.score for one in explained.items] == list(decision.scores)
    assert json.loads(orjson.dumps(explained.to_dict()))["items"][0]["parts"] == []


class Silent:
    """A ranker that is scored and says nothing of why."""

    @staticmethod
    def load(folder: Path) -> Any:
        from explorank.rankers import LightGBMRanker

        inner = LightGBMRanker.load(folder)

        class Without:
            manifest, score, check = inner.manifest, inner.score, inner.check

        return Without()


class Failing:
    """A ranker whose explanations fail, by whatever a library of theirs raises."""

    @staticmethod
    def load(folder: Path) -> Any:
        inner = Silent.load(folder)

        def explain(features: Any) -> Any:
            raise RuntimeError("no gradient")

        inner.explain = explain
        return inner


class SilentPlugin:
    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        registry.ranker("silent", Silent)
        registry.ranker("failing", Failing)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("silent", "The ranker 'lightgbm' does not say what each feature adds."),
        ("failing", "What each feature adds could not be computed: RuntimeError: no gradient"),
    ],
)
def test_a_ranker_that_explains_nothing(
    open_books: OpenStage, installation: Path, name: str, note: str
) -> None:
    folder = next((installation / ".explorank" / "artefacts" / "ranker").glob("2*"))
    card = (folder / "card.json").read_text().replace('"ranker": "lightgbm"', f'"ranker": "{name}"')
    (folder / "card.json").write_text(card)
    names = ("model.txt", "manifest.json", "card.json")
    store = ArtefactStore(installation / ".explorank" / "artefacts")
    store.publish("ranker", lambda draft: [shutil.copy(folder / name, draft) for name in names])
    stage = open_books(plugins=[SilentPlugin()])
    decision = stage.rank(user_id="reader-3", slots=2)
    assert not decision.fallbacks

    explained = stage.explain(decision.decision_id)

    assert explained.notes == (note,)
    assert [one.as_served for one in explained.items] == [True, True]
    assert [one.parts for one in explained.items] == [(), ()]


# ---- the command ----------------------------------------------------------------------------------------


def test_the_command(
    open_books: OpenStage,
    installation: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(installation)
    for screen in (console.output, console.errors):
        monkeypatch.setattr(screen, "width", 200)
    decision = open_books().rank(user_id="reader-3", slots=3)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["explorank", "explain", decision.decision_id, *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    said = run("--features", "2", "--plot", "why.svg")
    for part in (
        *decision.items,
        f"{decision.items[0]} “",  # and its text
        "most like, of the history:",
        "similarity",
        "25 others",
        "(the score)",
        "drawn: why.svg",
    ):
        assert part in said
    assert (installation / "why.svg").read_text().startswith("<?xml")
    told = json.loads(run("--json", "--item", decision.items[1]))
    assert [one["item_id"] for one in told["items"]] == [decision.items[1]]
    assert told["items"][0]["parts"][0]["attribution"] == pytest.approx(
        max((part["attribution"] for part in told["items"][0]["parts"]), key=abs)
    )
    with pytest.raises(DataError, match=r"Name a file that can be written, ending in \.png"):
        draw(open_books().explain(decision.decision_id), installation / "why.nothing")
