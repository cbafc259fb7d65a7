"""A warm start: the map is fitted to the log, logged with each decision, and learnt against as it was then."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from explorank import Stage, load
from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION
from explorank.checks import run_checks
from explorank.errors import DataError, SettingsError
from explorank.hooks.evaluation import replay
from explorank.hooks.exploration import BetaThompson, Calibration, SlidingWindow
from explorank.pipeline.calibrate import CalibrateOptions, calibrate
from explorank.settings import load_settings, parse_settings

OpenStage = Callable[..., Stage]
SCORES = np.linspace(-2.0, 2.0, 12)
ITEMS = [f"i{number}" for number in range(12)]
LATER = 200_000.0
"""Seconds, by which every horizon has passed."""


WARM = {
    "exploration": {"policy": {"use": "gaussian_thompson", "floor": 0.5}, "warm_start": True},
    "feedback": {"learn_every_s": 3600.0, "horizon_s": 100.0},
}


def truth(scores: Any) -> Any:
    return 0.1 + 0.2 * (np.asarray(scores) + 2.0)


def visit(stage: Stage, decisions: int, seed: int) -> None:
    """Show slates of three and click by the true rate at each score."""
    rng = np.random.default_rng(seed)
    for _ in range(decisions):
        rows = rng.permutation(12)[:8]
        decision = stage.explore([ITEMS[row] for row in rows], SCORES[rows], slots=3)
        stage.shown(decision.decision_id, decision.items)
        for item, score in zip(decision.items, decision.scores, strict=True):
            if rng.random() < truth(score):
                stage.reward(decision.decision_id, item_id=item)


@pytest.fixture
def warm(open_stage: OpenStage) -> Stage:
    """A stage whose map is fitted to 300 decisions that explored nothing, for want of one."""
    stage = open_stage(WARM)
    visit(stage, 300, seed=1)
    calibrate(stage.installation.settings, now=time.time() + LATER)
    stage.installation.refresh()
    return stage


def test_nothing_explores_before_there_is_a_map(open_stage: OpenStage) -> None:
    stage = open_stage(WARM)
    decision = stage.explore(ITEMS, SCORES, slots=3)
    assert decision.items == ("i11", "i10", "i9")
    assert decision.methods == ("score",) * 3
    assert decision.propensity_known
    assert "explorank calibrate" in decision.fallbacks[0].reason
    assert "explorank calibrate" in stage.status()["unexplored_because"]
    assert stage.readiness() == {}  # the baseline answers, and without answers no rewards to fit a map to
    assert decision.versions["calibration"] == ""


def test_too_few_rewards_are_no_map(open_stage: OpenStage) -> None:
    stage = open_stage(WARM)
    visit(stage, 20, seed=1)
    with pytest.raises(DataError, match=r"60 rewards of 20 decisions.*fewer than 500"):
        calibrate(stage.installation.settings, now=time.time() + LATER)
    # None of them counts before its horizon has passed.
    with pytest.raises(DataError, match="0 rewards of 0 decisions"):
        calibrate(stage.installation.settings, now=time.time())


def test_the_map_is_fitted_taken_up_and_logged(warm: Stage) -> None:
    """900 rewards: a bin of the map has a standard error of some 0.05; 0.2 are 4 of them."""
    assert warm.status()["unexplored_because"] == ""
    calibration = warm.installation.calibration.get()
    assert calibration is not None
    shown = SCORES[4:]
    assert np.abs(calibration(shown) - truth(shown)).max() < 0.2
    decision = warm.explore(ITEMS, SCORES, slots=3)
    assert decision.methods == ("explore",) * 3
    assert decision.fallbacks == ()
    record = warm.decision(decision.decision_id)
    assert record.versions["calibration"] == decision.versions["calibration"] == calibration.version
    due = calibration(record.scores)[record.feature_rows]
    assert record.columns["offsets"].tolist() == due.tolist()


def test_decisions_are_replayed_with_the_offsets_of_their_time(warm: Stage) -> None:
    visit(warm, 30, seed=2)
    installation = warm.installation
    installation.learner.step(time.time() + LATER)
    decisions = [warm.explore(ITEMS, SCORES, slots=4) for _ in range(20)]
    publish(warm, Calibration([-2.0, 2.0], [5.0, 9.0]))
    for decision in decisions:
        record = warm.decision(decision.decision_id)
        again = replay(record, installation.policy, installation.learner.snapshot)
        assert again.order.tolist() == record.slate.order.tolist()
        assert again.propensities.tolist() == record.slate.propensities.tolist()


def test_residuals_are_learnt_against_the_map_of_their_time(warm: Stage) -> None:
    """Sums by hand from the records; a later map rewrites none of them, not even in a rebuild."""
    installation = warm.installation
    visit(warm, 40, seed=3)
    learner = installation.learner
    now = time.time() + LATER
    learner.step(now)
    totals: dict[str, float] = {}
    for entry in entries(installation.settings.folder_path / "log"):
        record = entry.record
        if "offsets" not in record.columns:
            continue
        expected = dict(zip(record.feature_rows.tolist(), record.columns["offsets"].tolist(), strict=True))
        clicked = {reward.item_id for reward in entry.rewards}
        for row in record.slate.order.tolist():
            item = str(record.item_ids[row])
            totals[item] = totals.get(item, 0.0) + (item in clicked) - expected[row]
    state = learner.snapshot
    found = dict(zip(state.item_ids.tolist(), state.totals.tolist(), strict=True))
    assert found == pytest.approx(totals)
    assert learner.stats.folded == 120
    publish(warm, Calibration([-2.0, 2.0], [5.0, 9.0]))
    learner.rebuild(now)
    state = learner.snapshot
    assert dict(zip(state.item_ids.tolist(), state.totals.tolist(), strict=True)) == pytest.approx(totals)


def test_the_map_of_another_ranker_is_not_used(warm: Stage) -> None:
    publish(warm, Calibration([-2.0, 2.0], [0.0, 1.0], ranker="another"))
    decision = warm.explore(ITEMS, SCORES, slots=3)
    assert decision.methods == ("score",) * 3
    assert "explorank calibrate" in warm.status()["unexplored_because"]
    assert warm.readiness() == {}


def test_check_says_whether_there_is_a_map(warm: Stage) -> None:
    def found() -> tuple[str, str]:
        results = run_checks(warm.installation.settings)
        return next((one.verdict, one.detail) for one in results if one.name == "calibration")

    # The plugin of these tests is none that a command would find; what is checked here comes after it.
    assert found()[0] == "ok"
    publish(warm, Calibration([-2.0, 2.0], [0.0, 1.0], ranker="another"))
    verdict, detail = found()
    assert verdict == "warning"
    assert "another ranker" in detail


def test_explored_rewards_stand_for_all_that_could_have_been_shown(warm: Stage) -> None:
    """Weighed by 1 / propensity: the effective number is below the number of rewards."""
    visit(warm, 100, seed=4)
    _, report = calibrate(
        warm.installation.settings,
        now=time.time() + LATER,
        options=CalibrateOptions(method="linear", minimum=100.0),
    )
    assert (report.decisions, report.rewards, report.method) == (400, 1200, "linear")
    assert report.effective < 1200
    assert sum(one.count for one in report.later.bins) == 240
    assert report.later.error < 0.2


def publish(stage: Stage, calibration: Calibration) -> None:
    store = ArtefactStore(stage.installation.settings.folder_path / "artefacts")
    store.publish(CALIBRATION, calibration.save)
    stage.installation.refresh()


def entries(folder: Path) -> Any:
    from explorank.hooks.feedback import read_log

    return read_log(folder)


@pytest.mark.parametrize("policy", ["beta_thompson", "logistic_thompson", "epsilon_greedy"])
def test_a_policy_that_learns_whole_rewards_is_refused(tmp_path: Path, policy: str) -> None:
    config = tmp_path / "explorank.yaml"
    config.write_text(
        "version: 1\nranker: null\nretrieval: {retrievers: []}\nexploration:\n"
        f"  policy: {{use: {policy}}}\n  features: [a]\n  warm_start: true\n",
        encoding="utf-8",
    )
    with pytest.raises(
        SettingsError, match=rf"explorank.yaml:7: exploration.warm_start: .*{policy} learns whole"
    ):
        load(config)


def test_settings_lay_a_window_over_the_policy(open_stage: OpenStage) -> None:
    stage = open_stage(
        {"exploration": {"policy": {"use": "beta_thompson"}, "forgetting": {"window": 20, "blocks": 4}}}
    )
    policy = stage.installation.policy
    assert policy == SlidingWindow(BetaThompson(), rewards=20, blocks=4)
    for _ in range(30):
        decision = stage.explore(ITEMS, SCORES, slots=1)
        stage.reward(decision.decision_id, slot=0)
    stage.installation.learner.step()
    merged = stage.installation.learner.snapshot.merged
    assert 15 < merged.successes.sum() <= 20
    assert stage.explore(ITEMS, SCORES, slots=1).policy == "windowed_beta_thompson"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "exploration:\n  policy: {use: beta_thompson, half_life: 9.0}\n  forgetting: {window: 20}",
            ":4: .*additive",
        ),
        ("exploration:\n  forgetting: {window: 25, blocks: 10}", ":3: .*no multiple of `blocks`.*Write 20"),
        ("feedback:\n  examination: {use: position_based}", ":3: .*Try `\\[1.0, 0.6, 0.4\\]`"),
        ("feedback:\n  examination: {use: cascade, probabilities: [1.0]}", ":3: .*Remove it"),
        ("feedback:\n  examination: {use: position_based, probabilities: [0.0]}", ":3: .*probabilities"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_with_its_line(tmp_path: Path, lines: str, said: str) -> None:
    config = tmp_path / "explorank.yaml"
    config.write_text(f"version: 1\n{lines}\nranker: null\nretrieval: {{retrievers: []}}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=said):
        load(load_settings(config))


def test_settings_say_which_slots_are_looked_at(open_stage: OpenStage) -> None:
    stage = open_stage(
        {
            "exploration": {"policy": {"use": "gaussian_thompson"}},
            "feedback": {"examination": {"use": "position_based", "probabilities": [1.0, 0.5]}},
        }
    )
    decision = stage.explore(ITEMS, SCORES, slots=2)
    stage.reward(decision.decision_id, slot=1)
    stage.installation.learner.step()
    state = stage.installation.learner.snapshot
    assert (state.counts.tolist(), state.totals.tolist()) == ([0.5], [1.0])


def test_equal_settings_have_equal_fingerprints_whatever_they_say_of_windows() -> None:
    plain = parse_settings({"version": 1})
    assert plain.exploration.forgetting is None
    assert plain.feedback.examination is None
    assert (
        plain.fingerprint
        == parse_settings(yaml.safe_load("version: 1\nfeedback: {examination: null}")).fingerprint
    )
