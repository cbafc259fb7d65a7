"""`explorank calibrate` and `explorank forget-user`, as somebody types them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank import load
from explorank.hooks.feedback import read_log

SETTINGS = """\
version: 1
ranker: null
retrieval: {retrievers: []}
exploration: {mode: live, holdout: 0.0, policy: {use: beta_thompson}}
feedback: {horizon_s: 60.0}
"""


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Run) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "explorank.yaml").write_text(SETTINGS, encoding="utf-8")
    return run_command


def visit(stage: Any, decisions: int) -> None:
    rng = np.random.default_rng(5)
    scores = np.linspace(0.1, 0.9, 6)
    for number in range(decisions):
        decision = stage.explore(list("abcdef"), scores, slots=3, user_id=f"reader-{number % 4}")
        stage.shown(decision.decision_id, decision.items)
        for item, score in zip(decision.items, decision.scores, strict=True):
            if rng.random() < score:
                stage.reward(decision.decision_id, item_id=item, time=decision_time(stage, decision))


def decision_time(stage: Any, decision: Any) -> float:
    return float(stage.decision(decision.decision_id).request.time)


def test_calibrate_fits_prints_and_publishes(run: Run, tmp_path: Path) -> None:
    with load("explorank.yaml") as stage:
        visit(stage, 200)
    # With so short a horizon to begin with, a visit that the machine holds up would come to nothing.
    (tmp_path / "explorank.yaml").write_text(SETTINGS.replace("60.0", "0.001"), encoding="utf-8")
    time.sleep(0.002)
    code, out, _ = run("calibrate", "--minimum", "50", "--method", "linear")
    assert code == 0
    assert "scores from" in out
    assert "of 600 rewards" in out
    assert "linear" in out
    assert len(list((tmp_path / ".explorank" / "artefacts" / "calibration").glob("2*"))) == 1
    code, _, err = run("calibrate", "--minimum", "5000")
    assert code == 1
    assert "fewer than 5,000" in err


def test_forget_user_while_a_server_runs_and_when_none_does(run: Run, tmp_path: Path) -> None:
    with load("explorank.yaml") as stage:
        visit(stage, 40)
        learner = stage.installation.learner
        learner.step(time.time() + 61.0)
        assert learner.stats.folded == 120
        code, out, _ = run("forget-user", "reader-1")
        assert (code, out) == (
            0,
            "user reader-1: 10 decisions erased, with what was shown, earned and learnt\n",
        )
        assert learner.stats.folded == 90
        assert stage.readiness() == {}
    assert run("forget-user", "reader-2")[1].startswith("user reader-2: 10 decisions erased")
    assert run("forget-user", "reader-2")[1] == "user reader-2: no decision in the log\n"
    users = {entry.record.request.user_id for entry in read_log(tmp_path / ".explorank" / "log")}
    assert users == {"reader-0", "reader-3"}
    for path in (tmp_path / ".explorank").rglob("*"):
        if path.is_file():
            assert b"reader-1" not in path.read_bytes(), path
            assert b"reader-2" not in path.read_bytes(), path
