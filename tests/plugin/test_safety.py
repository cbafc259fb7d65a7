"""The limits on what exploration may cost, through a whole stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from explorank import Stage
from explorank.checks import run_checks
from explorank.host.metrics import HostMetrics
from explorank.settings import Settings, parse_settings

OpenStage = Callable[..., Stage]

ITEMS = [f"i{number}" for number in range(12)]
SCORES = np.linspace(2.0, 0.9, 12)
HOUR = 3600.0


def settings(**safety: Any) -> dict[str, Any]:
    """A policy that shows anything, to half of the users."""
    return {
        "exploration": {
            "share": 0.5,
            "policy": {"use": "epsilon_greedy", "epsilon": 1.0},
            "safety": {"window_s": HOUR, **safety},
        }
    }


def visit(stage: Stage, users: range, worth: Callable[[str], float]) -> list[str]:
    """Let each user come once, then let the first items earn what `worth` says; return the decisions' ids.

    The learner's thread stands still, so that only `learn` brings news.
    """
    stage.installation.learner.stop()
    decisions = [stage.explore(ITEMS, SCORES, user_id=user, slots=1) for user in users]
    for decision in decisions:
        if value := worth(decision.items[0]):
            stage.reward(decision.decision_id, slot=0, value=value)
    return [decision.decision_id for decision in decisions]


def learn(stage: Stage, *, hours: float = 0.0) -> None:
    stage.installation.learner.step(time.time() + hours * HOUR)


def only_the_best(item: str) -> float:
    return float(item == ITEMS[0])


def test_without_limits_nothing_is_watched(open_stage: OpenStage) -> None:
    stage = open_stage()
    assert stage.installation.safety is None
    assert stage.status()["safety"] is None
    assert (
        stage.installation.learner.fingerprint == open_stage({"folder": "x"}).installation.learner.fingerprint
    )


def test_a_harmful_policy_is_stopped(open_stage: OpenStage) -> None:
    stage = open_stage(settings(stop={"drop": 0.1, "false_alarm": 0.05}))
    visit(stage, range(300), only_the_best)
    learn(stage)
    assert not stage.kill_switch.engaged
    learn(stage, hours=2.0)
    reason = stage.kill_switch.reason or ""
    assert reason.startswith("Automatic stop: the mean reward per decision of the explore arm is at most")
    assert "`explorank kill-switch release` lets it go on" in reason
    assert stage.readiness() == {}  # the baseline answers; no load balancer must take this process out
    assert {stage.explore(ITEMS, SCORES, user_id=user, slots=1).mode for user in range(20)} == {"off"}
    described = stage.status()["safety"]["stop"]
    assert (described["stopped"], described["reason"]) == (True, reason)
    whole = described["comparisons"]["whole"]
    assert whole["explore_at_most"] < 0.9 * whole["baseline_at_least"]
    assert whole["baseline"]["mean"] == 1.0
    # What others may not know yet, this gate does: without the switch, the request is held back all the same.
    stage.kill_switch.path.unlink()
    explorer = next(
        user for user in range(20) if stage.installation.decider and _arm(stage, user) == "explore"
    )
    decision = stage.explore(ITEMS, SCORES, user_id=explorer, slots=1)
    record = stage.decision(decision.decision_id)
    assert (decision.mode, decision.items, record.held_back) == ("live", (ITEMS[0],), f"stop: {reason}")


def _arm(stage: Stage, user: int) -> str:
    from explorank.hooks.feedback import traffic

    exploration = stage.installation.settings.exploration
    return traffic.assign(
        str(user), salt=exploration.salt, holdout=exploration.holdout, share=exploration.share
    )


def test_a_release_begins_anew(open_stage: OpenStage) -> None:
    stage = open_stage(settings(stop={"drop": 0.1, "false_alarm": 0.05}))
    visit(stage, range(300), only_the_best)
    learn(stage, hours=2.0)
    assert stage.kill_switch.engaged
    stage.kill_switch.release()
    learn(stage, hours=2.0)
    assert not stage.kill_switch.engaged
    visit(stage, range(300), lambda item: 1.0)  # mended
    learn(stage, hours=2.0)
    assert not stage.kill_switch.engaged
    described = stage.status()["safety"]
    assert described["stop"]["since"] == stage.kill_switch.released_at
    assert described["stop"]["comparisons"]["whole"]["baseline"]["mean"] == 1.0
    assert sum(group["settled"] for group in described["groups"].values()) == 600


def test_a_budget_holds_requests_back_and_opens_again(open_stage: OpenStage) -> None:
    stage = open_stage(settings(conservative={"alpha": 0.2, "confidence": 0.9}))
    first = [stage.decision(name) for name in visit(stage, range(100), only_the_best)]
    explorers = [record for record in first if record.arm == "explore"]
    # Nothing was earned yet, so nothing may be lost.
    assert all(record.held_back.startswith("conservative: one more explored") for record in explorers)
    assert all(record.shown_ids == [ITEMS[0]] for record in first)
    assert not any(record.held_back for record in first if record.arm == "baseline")
    learn(stage)
    budget = stage.status()["safety"]["conservative"]
    assert (budget["open"], budget["refused"]) == (True, len(explorers))
    # Each that was held back leaves 0.2 of the baseline, each explored one may lose 0.8 of it.
    assert budget["allowed"] == len(explorers) // 4
    second = [stage.decision(name) for name in visit(stage, range(100), only_the_best)]
    explored = [record for record in second if record.arm == "explore" and not record.held_back]
    assert len(explored) == len(explorers) // 4
    assert all(record.slate.method == ("explore",) for record in explored)
    learn(stage, hours=2.0)
    groups = stage.status()["safety"]["groups"]
    assert groups["explored"]["settled"] == len(explored)
    assert groups["held_back"]["mean"] == 1.0


def test_a_good_policy_is_let_go_on(open_stage: OpenStage) -> None:
    """All is worth as much, so that after some hundred decisions everybody in the explore arm explores."""
    stage = open_stage(settings(conservative={"alpha": 0.3, "confidence": 0.9}))
    for _ in range(8):
        visit(stage, range(150), lambda item: 1.0)
        learn(stage, hours=2.0)
    records = [stage.decision(name) for name in visit(stage, range(60), lambda item: 1.0)]
    assert not any(record.held_back for record in records)


def test_the_limits_survive_a_restart(open_stage: OpenStage) -> None:
    stage = open_stage(settings(conservative={}))
    visit(stage, range(100), only_the_best)
    learn(stage, hours=2.0)
    before = stage.status()["safety"]
    stage.close()
    after = open_stage(settings(conservative={})).status()["safety"]
    assert after["groups"] == before["groups"]
    assert after["conservative"]["allowed"] == before["conservative"]["allowed"] > 0


def test_the_metrics_follow_the_status(open_stage: OpenStage) -> None:
    stage = open_stage(settings(conservative={}, stop={}))
    visit(stage, range(50), only_the_best)
    learn(stage)
    metrics = HostMetrics(lambda: False, status=stage.status)
    found = {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }
    groups = stage.status()["safety"]["groups"]
    assert found["explorank_safety_decisions_open", "group=held_back"] == groups["held_back"]["open"] > 0
    assert found["explorank_safety_refused", "limit=conservative"] == groups["held_back"]["open"]
    assert found["explorank_safety_refused", "limit=stop"] == 0
    assert found[("explorank_safety_budget_open",)] == 1
    assert found[("explorank_safety_stopped",)] == 0
    assert found["explorank_safety_stop_bound", "arm=explore", "comparison=whole"] == 1.0
    without = HostMetrics(lambda: False, status=open_stage({"folder": "other"}).status)
    assert b"explorank_safety" not in without.exposition()


def parsed(tmp_path: Path, changes: Mapping[str, Any]) -> Settings:
    return parse_settings({"version": 1, **changes}, tmp_path)


@pytest.mark.parametrize(
    ("rewards", "safety", "bounds"),
    [
        pytest.param({"click": 1.0}, {}, (0.0, 1.0), id="a click"),
        pytest.param(
            {"click": 0.5, "order": {"weight": 2.0, "maximum": 10.0}}, {}, (0.0, 20.5), id="kinds add up"
        ),
        pytest.param({"click": 1.0, "complaint": -3.0}, {}, (-3.0, 1.0), id="a kind that costs"),
        pytest.param({"click": {"minimum": 0.5}}, {}, (0.0, 1.0), id="none may come"),
        pytest.param({"click": 1.0, "order": 9.0}, {"metric": "order"}, (0.0, 1.0), id="one kind"),
        pytest.param({"click": 1.0}, {"maximum": 3.0, "minimum": -1.0}, (-1.0, 3.0), id="as set"),
    ],
)
def test_bounds_follow_from_the_rewards(
    tmp_path: Path, rewards: Mapping[str, Any], safety: Mapping[str, Any], bounds: tuple[float, float]
) -> None:
    read = parsed(tmp_path, {"feedback": {"rewards": rewards}, "exploration": {"safety": safety}})
    assert read.earning_bounds == bounds


def test_limits_need_no_baseline_where_nothing_is_live(tmp_path: Path) -> None:
    exploration = {"mode": "shadow", "holdout": 0.0, "safety": {"stop": {}}}
    assert parsed(tmp_path, {"exploration": exploration}).exploration.safety.active


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "ok"), (1.0, "warning")])
def test_the_check_says_what_the_limits_stand_on(tmp_path: Path, share: float, verdict: str) -> None:
    exploration = {"mode": "live", "share": share, "holdout": 0.05, "safety": {"stop": {}}}
    found = [
        result
        for result in run_checks(parsed(tmp_path, {"exploration": exploration}))
        if result.name == "safety"
    ]
    assert [result.verdict for result in found] == [verdict]
    assert found[0].detail.startswith("a decision counts from 0 to 1; 5")
