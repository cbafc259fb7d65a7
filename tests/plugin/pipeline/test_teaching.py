"""A teacher that the settings name is trained, asked about users that it has not seen, and written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from explorank.artefacts import ArtefactStore
from explorank.assembly import RANKER
from explorank.checks import run_checks
from explorank.errors import DataError, SettingsError
from explorank.model_card import ModelCard
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.train import train_ranker
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import InvalidTraining
from explorank.settings import RankerComponent, Settings, parse_settings

SMALL = TrainOptions(queries=QueryOptions(positive_from=4.0), max_queries=60, negatives=20, promote="never")
NETWORK: dict[str, Any] = {
    "use": "dcn", "objective": "binary", "hidden": [8], "training": {"epochs": 2, "batch_rows": 64},
}  # fmt: skip
TREES: dict[str, Any] = {"use": "lightgbm", "objective": "binary", "rounds": 8, "num_threads": 1}


def with_ranker(installation: Path, ranker: dict[str, Any]) -> Settings:
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    return parse_settings({**written, "ranker": ranker}, installation)


def component(**taught_by: Any) -> RankerComponent:
    return RankerComponent.model_validate({**NETWORK, **({"taught_by": taught_by} if taught_by else {})})


def test_a_teacher_is_trained_listened_to_and_written_down(settings: Settings, events: pd.DataFrame) -> None:
    begun: list[str] = []
    teacher = component(**TREES, cross_fit=3)
    alone, untaught = train_ranker(settings, events, component=component(), options=SMALL)
    ranker, report = train_ranker(settings, events, component=teacher, options=SMALL, begins=begun.append)

    assert begun == ["training the teacher", "training"]
    assert untaught.teaching is None
    assert report.teaching is not None
    store = ArtefactStore(settings.folder_path / "artefacts")
    folder = store.verify(RANKER, report.version)
    card = ModelCard.read(folder)
    assert card is not None
    assert card.teaching == report.teaching
    assert (card.teaching.teacher, card.teaching.cross_fit) == ("lightgbm", 3)
    assert card.teaching.options["rounds"] == 8
    assert card.teaching.rows == card.training.rows == ranker.manifest.metrics["taught_rows"]
    assert "taught_rows" not in alone.manifest.metrics
    told = card.teaching.ndcg_at_10
    assert None not in (told.low, told.mean, told.high)
    assert "## Taught by" in (folder / "card.md").read_text(encoding="utf-8")
    earlier = ModelCard.read(store.verify(RANKER, untaught.version))
    assert earlier is not None
    assert earlier.teaching is None
    # What serves is the network alone, and another than without the teacher.
    assert ranker.manifest.name == alone.manifest.name == "dcn"
    assert ranker.manifest.feature_names == alone.manifest.feature_names
    assert ranker.manifest.version != alone.manifest.version


def test_a_run_that_was_cut_off_goes_on_with_what_was_taught(
    settings: Settings, events: pd.DataFrame
) -> None:
    class Interrupted(Exception):
        pass

    def run(stop_after: float = 1.0) -> tuple[Any, Any, list[str]]:
        """Train; stop where a share of the teacher's training is done, or of the student's where it is above 1."""
        begun: list[str] = []

        def interrupt(done: int, total: int) -> None:
            share = done / total + len(begun) - 1
            if share > stop_after:
                raise Interrupted

        ranker, report = train_ranker(
            settings, events, component=component(**TREES), options=replace(SMALL, seed=4),
            progress=interrupt if stop_after != 1.0 else None, begins=begun.append,
        )  # fmt: skip
        return ranker, report, begun

    whole, report, _ = run()
    assert not report.resumed
    for cut_off_at in (0.5, 1.4):  # while the teacher learns, while the student does
        with pytest.raises(Interrupted):
            run(cut_off_at)
    resumed, report, _ = run()

    assert report.resumed
    assert resumed.manifest.version == whole.manifest.version
    assert not list((settings.folder_path / "training").glob("*"))


def test_a_teacher_of_the_command_line_lies_over_that_of_the_settings(installation: Path) -> None:
    from explorank.settings import ranker_component

    settings = with_ranker(installation, {**NETWORK, "taught_by": TREES})
    assert ranker_component(settings) == settings.ranker
    more = ranker_component(settings, None, ["taught_by.rounds=3", "taught_by.cross_fit=2", "budget_ms=5"])
    assert more is not None
    assert more.taught_by is not None
    assert (more.taught_by.use, more.taught_by.cross_fit, more.budget_ms) == ("lightgbm", 2, 5.0)
    assert more.taught_by.options == {**{k: v for k, v in TREES.items() if k != "use"}, "rounds": 3}
    whole = ranker_component(settings, None, ["taught_by={use: stack, meta: logistic, folds: 3}"])
    assert whole is not None
    assert whole.taught_by is not None
    assert (whole.taught_by.use, whole.taught_by.options) == ("stack", {"meta": "logistic", "folds": 3})
    nobody = ranker_component(settings, None, ["taught_by=null"])
    assert nobody is not None
    assert nobody.taught_by is None
    # Another ranker has nothing of the configured one's.
    other = ranker_component(settings, "lightgbm", ["rounds=3"])
    assert other is not None
    assert other.taught_by is None
    with pytest.raises(SettingsError, match=r"ranker\.taught_by\.cross_fit.*1.*at least 2"):
        ranker_component(settings, None, ["taught_by.cross_fit=1"])


# ---- refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranker", "said"),
    [
        ({**NETWORK, "taught_by": {"use": "lightgmb"}}, "ranker 'lightgmb'. Did you mean 'lightgbm'?"),
        (
            {**NETWORK, "taught_by": {**TREES, "roundss": 2}},
            "taught_by.roundss: unknown key; did you mean `rounds`?",
        ),
        ({**NETWORK, "taught_by": {**TREES, "objective": "binry"}}, "ranker.taught_by.objective"),
        ({**TREES, "taught_by": TREES}, "ranker.taught_by: lightgbm learns from what came of its rows alone"),
    ],
)
def test_a_teacher_that_is_missing_or_not_listened_to_is_told_before_and_when_training(
    installation: Path, events: pd.DataFrame, ranker: dict[str, Any], said: str
) -> None:
    settings = with_ranker(installation, ranker)
    with pytest.raises(SettingsError) as refused:
        train_ranker(settings, events, options=SMALL)
    assert said in str(refused.value)
    results = {result.name: result for result in run_checks(settings)}
    assert results["components"].verdict == "wrong"
    assert said in results["components"].detail


def test_a_teacher_that_can_be_trained_is_told(installation: Path) -> None:
    settings = with_ranker(installation, {**NETWORK, "taught_by": TREES})
    (result,) = [one for one in run_checks(settings) if one.name == "ranker.taught_by"]
    assert (result.verdict, result.detail) == ("ok", "lightgbm teaches dcn")


def test_scores_that_are_no_probabilities_teach_nothing(settings: Settings, events: pd.DataFrame) -> None:
    with pytest.raises(InvalidTraining, match=r"'lightgbm' scores the training data.*no probabilities"):
        train_ranker(
            settings, events, component=component(use="lightgbm", rounds=3, num_threads=1), options=SMALL
        )


def test_the_log_has_no_items_that_nobody_chose_between(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"pseudo_labels is 5, and rows of the log"):
        train_ranker(
            settings, None, component=component(**TREES, pseudo_labels=5), options=replace(SMALL, rows="log")
        )
