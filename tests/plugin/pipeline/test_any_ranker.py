"""Any registered ranker is trained: with its options, what it measures told, and runs that were cut off resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from explorank.artefacts import ArtefactStore
from explorank.assembly import RANKER
from explorank.errors import DataError, SettingsError, UnknownArtefact
from explorank.model_card import ModelCard
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.tracking import default_trackers
from explorank.pipeline.train import train_ranker
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import (
    CorruptRanker,
    FeatureMismatch,
    InvalidTraining,
    RankingData,
    features_for,
    score_data,
)
from explorank.settings import RankerComponent, Settings

PROGRAM = Path(__file__).with_name("linear_ranker.py")
SMALL = TrainOptions(queries=QueryOptions(positive_from=4.0), max_queries=60, negatives=20)


@pytest.fixture(scope="module")
def linear(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    return module_at(PROGRAM)


def trained(
    settings: Settings, events: pd.DataFrame, linear: ModuleType, use: str = "linear", **more: Any
) -> Any:
    component = RankerComponent(use=use, **more.pop("of_ranker", {}))
    return train_ranker(
        settings, events, component=component, options=replace(SMALL, **more), plugins=[linear.Shop()]
    )


def test_a_ranker_of_a_plugin_is_trained_and_described(
    settings: Settings, events: pd.DataFrame, linear: ModuleType
) -> None:
    ranker, report = trained(settings, events, linear, of_ranker={"steps": 7})

    assert type(ranker) is linear.LinearRanker
    assert report.ranker == "linear"
    assert not report.resumed
    folder = ArtefactStore(settings.folder_path / "artefacts").verify(RANKER, report.version)
    card = ModelCard.read(folder)
    assert card is not None
    assert (card.ranker, card.version, card.seed) == ("linear", ranker.manifest.version, 0)
    assert card.options == {"steps": 7, "rate": 0.5}


def test_a_ranker_begins_as_another_and_says_so(
    settings: Settings, events: pd.DataFrame, linear: ModuleType, tmp_path: Path
) -> None:
    small = {"hidden": [8], "training": {"epochs": 1, "batch_rows": 64}}
    start, first = trained(settings, events, linear, "dcn", of_ranker=small, promote="never")
    ranker, report = trained(settings, events, linear, "dcn", of_ranker=small, start=first.version, seed=1)

    assert ranker.manifest.details["lineage"] == [start.manifest.version]
    assert report.start == start.manifest.version
    card = ModelCard.read(ArtefactStore(settings.folder_path / "artefacts").verify(RANKER, report.version))
    assert card is not None
    assert any(start.manifest.version in note for note in card.notes)

    with pytest.raises(DataError, match=r"'linear' always begins from scratch.*Leave `--from` out"):
        trained(settings, events, linear, start=first.version)
    with pytest.raises(UnknownArtefact):
        trained(settings, events, linear, "dcn", start="nowhere")
    start.save(tmp_path)
    with pytest.raises(CorruptRanker, match="a 'sequence' one was asked for"):
        trained(settings, events, linear, "sequence", start=str(tmp_path))


def test_a_ranker_learns_from_ids_and_histories(
    settings: Settings, events: pd.DataFrame, linear: ModuleType
) -> None:
    """Readers like two of six subjects, and an id begins with its subject: a share of the history speaks for a book."""
    ranker, report = trained(settings, events, linear, "by_subject", of_ranker={"steps": 60})

    assert ranker.manifest.feature_names[-1] == "subject_share"
    weights = dict(zip(ranker.manifest.feature_names, ranker.arrays["weights"], strict=True))
    assert weights["subject_share"] > 0.1
    assert report.validation_ndcg_at_10 > 0.7
    # In past requests the column is that of each request's own history.
    data = RankingData(
        features=np.zeros((3, 1)), feature_names=("unused",), labels=[0, 1, 0], groups=[2, 1],
        item_ids=["sea-1", "chess-1", "sea-2"], histories=[("sea-4", "sea-5"), ("chess-2", "sea-1")],
    )  # fmt: skip
    alone = linear.SubjectRanker.fit(data)
    np.testing.assert_array_equal(features_for(alone, data.take([0])), [[0, 1], [0, 0]])
    expected = alone.score(np.array([[0, 1], [0, 0], [0, 0.5]], np.float32))
    np.testing.assert_array_equal(score_data(alone, data), expected)
    with pytest.raises(FeatureMismatch, match="missing unused"):
        features_for(alone, replace(data, feature_names=("other",)))


@pytest.mark.parametrize(
    ("use", "options", "said"),
    [
        ("liner", {}, "No installed plugin registers a ranker 'liner'. Did you mean 'linear'?"),
        ("linear", {"stepss": 3}, "ranker.stepss: unknown key; did you mean `steps`?"),
        ("linear", {"rate": "fast"}, "ranker.rate: given the text 'fast'; accepted: a number"),
    ],
)
def test_what_cannot_be_trained_is_told(
    settings: Settings, events: pd.DataFrame, linear: ModuleType, use: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        trained(settings, events, linear, use, of_ranker=options)
    assert said in str(refused.value)


# ---- runs that are cut off ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_it_would_have(
    installation: Path, linear: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = linear.train(installation)
    checkpoints = installation / ".explorank" / "training"
    assert list(checkpoints.glob("*")) == [], "nothing is left of a run that ended"
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(installation)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "LINEAR_PAUSE_S": "0.2"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while process.stdout.readline() != "5\n":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(list(checkpoints.glob("linear-*/step.npz"))) == 1
    steps: list[int] = []

    resumed, report = linear.train(installation, progress=lambda done, total: steps.append(done))

    assert report.resumed
    assert steps[0] in (6, 7)
    assert steps[-1] == 20
    np.testing.assert_array_equal(resumed.arrays["weights"], whole.arrays["weights"])
    assert list(checkpoints.glob("*")) == []


def test_another_seed_begins_anew(settings: Settings, events: pd.DataFrame, linear: ModuleType) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise Interrupted

    def run(seed: int, **more: Any) -> Any:
        return train_ranker(
            settings, events, component=RankerComponent(use="linear"), options=replace(SMALL, seed=seed),
            plugins=[linear.Shop()], **more,
        )  # fmt: skip

    with pytest.raises(Interrupted):
        run(0, progress=interrupt)
    assert not run(1)[1].resumed
    assert run(0)[1].resumed
    # What was saved may be damaged: that is told, and the way out works.
    with pytest.raises(Interrupted):
        run(0, progress=interrupt)
    (saved,) = (settings.folder_path / "training").glob("linear-*/step.npz")
    saved.write_bytes(b"scribbled over")
    with pytest.raises(
        DataError, match=rf"step\.npz is no state of a run.*Delete {saved.parent}, and the run"
    ):
        run(0)
    shutil.rmtree(saved.parent)
    assert not run(0)[1].resumed


def test_data_that_a_ranker_refuses_changes_nothing(
    settings: Settings, events: pd.DataFrame, linear: ModuleType
) -> None:
    store = ArtefactStore(settings.folder_path / "artefacts")
    before = store.current(RANKER), store.versions(RANKER)
    with pytest.raises(InvalidTraining, match="`steps` is 0"):
        trained(settings, events, linear, of_ranker={"steps": 0})
    assert (store.current(RANKER), store.versions(RANKER)) == before


# ---- what is measured -----------------------------------------------------------------------------------


def test_each_round_is_written_for_tensorboard(
    settings: Settings, events: pd.DataFrame, linear: ModuleType
) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    assert default_trackers() == ("tensorboard",)

    _, report = trained(settings, events, linear, trackers=("tensorboard",))

    assert report.log_folder is not None
    assert report.log_folder.parent == settings.folder_path / "runs"
    (file,) = report.log_folder.glob("events.out.tfevents.*")
    scalars = [
        (event.step, value.tag)
        for event in loader.LegacyEventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    assert scalars[:20] == [(step, "train/error") for step in range(1, 21)]
    assert {tag for _, tag in scalars[20:]} == {"final/ndcg@10", "final/recall@10", "final/mrr"}


def recording(name: str, calls: list[tuple[str, Any]]) -> ModuleType:
    """Return a module that notes what is called of it; the packages themselves want a server, or an account."""

    class Recorder(types.ModuleType):
        def __getattr__(self, called: str) -> Any:
            if called.startswith("__"):
                raise AttributeError(called)

            def note(*arguments: Any, **named: Any) -> Any:
                calls.append((called, (*arguments, named)))
                return self

            return note

    return Recorder(name)


@pytest.mark.parametrize(("name", "logs"), [("mlflow", "log_metrics"), ("wandb", "log")])
def test_other_trackers_are_told_the_same(
    settings: Settings,
    events: pd.DataFrame,
    linear: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    name: Any,
    logs: str,
) -> None:
    calls: list[tuple[str, Any]] = []
    monkeypatch.setitem(sys.modules, name, recording(name, calls))

    trained(settings, events, linear, trackers=(name,))

    logged = [arguments for called, arguments in calls if called == logs]
    assert [arguments[-1]["step"] for arguments in logged] == [*range(1, 21), 20]
    assert (
        calls[-1] == {"mlflow": ("end_run", ("FINISHED", {})), "wandb": ("finish", ({"exit_code": 0},))}[name]
    )
    with pytest.raises(InvalidTraining):
        trained(settings, events, linear, trackers=(name,), of_ranker={"steps": 0})
    assert (
        calls[-1] == {"mlflow": ("end_run", ("FAILED", {})), "wandb": ("finish", ({"exit_code": 1},))}[name]
    )


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_tracker_that_fails_ends_no_training(
    settings: Settings,
    events: pd.DataFrame,
    linear: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    when: str,
) -> None:
    """Its server is away: before anything is trained that is an error, later a warning."""

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("nobody answers.")

    client = recording("mlflow", [])
    called = ["set_experiment"] if when == "at the start" else ["log_metrics", "end_run"]
    for name in called:
        monkeypatch.setattr(client, name, away, raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", client)
    if when == "at the start":
        with pytest.raises(
            DataError, match=r"nobody answers\. Nothing was trained\. Set MLFLOW_TRACKING_URI"
        ):
            trained(settings, events, linear, trackers=("mlflow",))
        return
    ranker, _ = trained(settings, events, linear, trackers=("mlflow",))
    assert ranker is not None
    assert [record.message for record in caplog.records if "tracker" in record.message] == [
        "The tracker 'mlflow' failed and misses what follows; training goes on: nobody answers."
    ]


@pytest.mark.filterwarnings("ignore")  # of its own making
def test_mlflow_keeps_what_was_measured(
    settings: Settings,
    events: pd.DataFrame,
    linear: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    mlflow = pytest.importorskip("mlflow", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    trained(settings, events, linear, trackers=("mlflow",))
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    measured = client.get_metric_history(run.info.run_id, "train/error")
    assert [metric.step for metric in measured] == list(range(1, 21))
    assert "final/ndcg_at_10" in run.data.metrics


@pytest.mark.filterwarnings("ignore")  # of its own making
def test_weights_and_biases_keep_what_was_measured(
    settings: Settings, events: pd.DataFrame, linear: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", exc_type=ImportError)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    _, report = trained(settings, events, linear, trackers=("wandb",))
    (file,) = report.log_folder.glob("wandb/offline-run-*/run-*.wandb")
    written = file.read_bytes()  # in a form of its own, that has changed before
    assert written.count(b"train/error") >= 20
    assert b"final/ndcg@10" in written


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named(
    settings: Settings, events: pd.DataFrame, linear: ModuleType, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=rf"pip install 'explorank\[{name}\]'"):
        trained(settings, events, linear, trackers=(name,))


# ---- the card -------------------------------------------------------------------------------------------


def test_the_card_tells_what_was_trained_on_what_and_for_whom(
    settings: Settings, events: pd.DataFrame, linear: ModuleType
) -> None:
    _, first = trained(settings, events, linear, of_ranker={"steps": 1}, promote="always")
    ranker, report = trained(settings, events, linear, of_ranker={"steps": 60}, promote="always")
    folder = ArtefactStore(settings.folder_path / "artefacts").verify(RANKER, report.version)
    card = ModelCard.read(folder)
    assert card is not None

    assert card.training.requests == report.queries
    assert card.validation.requests == report.validation_queries
    assert card.training.rows + card.validation.rows == report.rows
    assert card.training.first < card.training.last <= card.validation.first < card.validation.last
    assert card.features == ranker.manifest.feature_names
    # Without a share from retrieval all that nobody liked was drawn evenly.
    assert card.sampling is not None
    assert card.sampling.rows == "interactions"
    assert card.sampling.requests["positive_from"] == SMALL.queries.positive_from
    assert (card.sampling.negatives, card.sampling.retrieved_share) == (SMALL.negatives, 0.0)
    assert card.sampling.drawn_from_retrieval == 0
    liked = card.training.positives + card.validation.positives
    assert card.sampling.drawn_evenly == report.rows - liked
    assert card.by_use is None
    assert {"python", "explorank", "numpy", "lightgbm"} <= set(card.libraries)
    ndcg = card.metrics["ndcg@10"]
    assert ndcg.low <= ndcg.mean <= ndcg.high
    assert ndcg.mean == pytest.approx(report.validation_ndcg_at_10)
    # The scores are probabilities, and full gradient steps make their mean that of the labels, nearly.
    assert card.probabilities is not None
    bins = card.probabilities.bins
    assert sum(one.rows for one in bins) == card.validation.rows
    distance = sum(one.rows * abs(one.expected - one.observed) for one in bins) / card.validation.rows
    assert card.probabilities.error == pytest.approx(distance)
    # Ages and activity divide the readers; nobody is counted twice or left out.
    by: dict[str, list[Any]] = {}
    for segment in card.segments:
        by.setdefault(segment.by, []).append(segment)
    assert set(by) == {"user_age", "activity", "item popularity"}
    for divides in ("user_age", "activity"):
        assert sum(segment.requests for segment in by[divides]) == card.validation.requests
    # Items need no column either. A request counts in each third that it has a liked item of.
    assert sum(one.requests for one in by["item popularity"]) >= card.validation.requests
    assert max(one.requests for one in by["item popularity"]) <= card.validation.requests
    weighted = sum(one.requests * one.ndcg_at_10.mean for one in by["user_age"]) / card.validation.requests
    assert weighted == pytest.approx(ndcg.mean)
    assert card.comparison is not None
    assert card.comparison.former == first.version
    assert card.comparison.difference.mean == pytest.approx(
        ndcg.mean - card.comparison.former_ndcg_at_10.mean
    )

    page = (folder / "card.md").read_text(encoding="utf-8")
    for part in (card.model_sha256, "| user_age | 50 and over |", "| steps | `60` |"):
        assert part in page
    assert f"| negatives wanted per request | {SMALL.negatives} |" in page
    assert f"## Calibration: error {card.probabilities.error:.4f}" in page
    assert "are no probabilities" in replace(card, probabilities=None).to_markdown()
    written = json.loads((folder / "card.json").read_text())
    assert written["format"] == "explorank.card/1"

    # A card of before this was written down is a card.
    for added in ("encoder_fingerprint", "by_use", "sampling"):
        del written[added]
    (folder / "card.json").write_text(json.dumps(written))
    earlier = ModelCard.read(folder)
    assert earlier == replace(card, encoder_fingerprint="", by_use=None, sampling=None)
