"""A slot that nobody looked at is no zero: appeals are learnt through the log, whatever place items had.

Simulated visitors, and all else real: 2,000 decisions, their impressions and clicks go through a log to a learner.
Six items stand mostly in a slot of their own, the better the lower, so that place and appeal are confounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration import (
    EXP3,
    BetaThompson,
    Cascade,
    GaussianThompson,
    LinearThompson,
    LogisticThompson,
    PositionBased,
    RewardBatch,
)
from explorank.hooks.exploration.examination import allowing_for
from explorank.hooks.feedback import DecisionLog, Learner

APPEAL = np.array([0.15, 0.10, 0.30, 0.20, 0.50, 0.40])
THETA = (1.0, 0.5, 0.25)
DECISIONS = 2_000
# In standard errors. Six items and five models: a correct learner fails about once in 50,000 such worlds; the
# seed is fixed.
ALLOWED = 5.0


def visits(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which item stood in which slot, and whether it was clicked, (decisions, 3) each."""
    rng = np.random.default_rng(17)
    slates = np.array([0, 2, 4]) + rng.integers(2, size=(DECISIONS, 3))
    shuffled = rng.random(DECISIONS) < 0.3
    slates[shuffled] = rng.permuted(slates[shuffled], axis=1)
    appealing = rng.random((DECISIONS, 3)) < APPEAL[slates]
    if kind == "cascade":
        above = np.cumsum(appealing, axis=1) - appealing
        return slates, appealing & (above == 0)
    return slates, appealing & (rng.random((DECISIONS, 3)) < THETA)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory, records: ModuleType) -> dict[str, Path]:
    """The two logs, written once."""
    return {kind: write(tmp_path_factory.mktemp(kind), kind, records) for kind in ("position", "cascade")}


def write(folder: Path, kind: str, records: ModuleType) -> Path:
    blank = records.make_record(features=np.eye(6, dtype=np.float32), feature_names=tuple("abcdef"))
    with DecisionLog(folder) as log:
        for number, (order, clicked) in enumerate(zip(*visits(kind), strict=True)):
            name = f"d{number:05d}"
            request = replace(blank.request, decision_id=name, time=1000.0 + number)
            slate = replace(blank.slate, order=order, propensities=np.full(3, 0.5))
            log.append_decision(replace(blank, request=request, slate=slate))
            log.append_impression(records.impression(name, tuple(f"i{item}" for item in order)))
            log.append_rewards(
                [
                    records.reward(name, slot, item_id=f"i{order[slot]}", time=request.time + 1)
                    for slot in np.flatnonzero(clicked).tolist()
                ]
            )
    return folder


@pytest.fixture
def learn(tmp_path: Path) -> Callable[..., Learner[Any]]:
    def learn_(folder: Path, policy: Any, examination: Any) -> Any:
        learner = Learner(
            folder,
            policy,
            state_path=tmp_path / "state.db",
            reward_weights={"click": 1.0},
            horizon_s=10.0,
            examination=examination,
        )
        learner.step(1000.0 + DECISIONS + 10.0)
        learner.close()
        return learner

    return learn_


def appeals(policy: Any, state: Any) -> np.ndarray:
    """What the state expects of each item once somebody looks at it."""
    ids, features = np.array([f"i{item}" for item in range(6)]), np.eye(6)
    if isinstance(policy, EXP3):
        counts = np.bincount(visits("position")[0].ravel(), minlength=6)
        (gains,) = state.at(state.rows(ids))
        return gains * 0.5 / counts
    if isinstance(policy, LinearThompson):
        return features @ state.mean
    if isinstance(policy, GaussianThompson):
        counts, totals = state.at(state.rows(ids))
        return totals / counts
    return policy.expected(state, RewardBatch(ids, np.zeros(6), features))


def standard_errors(kind: str) -> np.ndarray:
    """Of the mean of clicks / θ weighed by θ; of clicks over examined showings in the cascade."""
    slates, clicked = visits(kind)
    errors = np.zeros(6)
    for item in range(6):
        at = slates == item
        if kind == "cascade":
            above = np.cumsum(clicked, axis=1) - clicked
            errors[item] = np.sqrt(APPEAL[item] * (1 - APPEAL[item]) / np.count_nonzero(at & (above == 0)))
        else:
            theta = np.broadcast_to(THETA, slates.shape)[at]
            errors[item] = np.sqrt((theta * APPEAL[item] * (1 - theta * APPEAL[item])).sum()) / theta.sum()
    return errors


@pytest.mark.parametrize(
    "policy",
    [
        BetaThompson(),
        GaussianThompson(),
        LinearThompson(dim=6, prior_precision=0.01),
        LogisticThompson(dim=6, prior_precision=0.01),
    ],
    ids=lambda policy: policy.name,
)
def test_position_based_learning_recovers_the_appeal(
    logs: dict[str, Path], learn: Callable[..., Any], policy: Any
) -> None:
    errors = standard_errors("position")
    learner = learn(logs["position"], policy, PositionBased(THETA))
    assert (np.abs(appeals(policy, learner.snapshot) - APPEAL) < ALLOWED * errors).all()


@pytest.mark.parametrize(("kind", "low"), [("position", [2, 4, 5]), ("cascade", [4, 5])])
def test_without_a_model_items_are_learnt_as_appealing_as_their_places_were_looked_at(
    logs: dict[str, Path], learn: Callable[..., Any], kind: str, low: list[int]
) -> None:
    """So that what the others find, they find by the model."""
    naive = appeals(BetaThompson(), learn(logs[kind], BetaThompson(), None).snapshot)
    assert (naive < APPEAL - ALLOWED * standard_errors(kind))[low].all()


def test_importance_weighted_gains_recover_the_appeal(
    logs: dict[str, Path], learn: Callable[..., Any]
) -> None:
    """Clicks / θ, each weighing alike: their variance is the mean of appeal · (1 / θ - appeal)."""
    slates, _ = visits("position")
    learner = learn(logs["position"], EXP3(), PositionBased(THETA))
    for item, found in enumerate(appeals(EXP3(), learner.snapshot)):
        theta = np.broadcast_to(THETA, slates.shape)[slates == item]
        error = np.sqrt((APPEAL[item] * (1 / theta - APPEAL[item])).sum()) / len(theta)
        assert abs(found - APPEAL[item]) < ALLOWED * error


@pytest.mark.parametrize(
    "policy",
    [BetaThompson(), LinearThompson(dim=6, prior_precision=0.01)],
    ids=lambda policy: policy.name,
)
def test_cascade_learning_recovers_the_appeal(
    logs: dict[str, Path], learn: Callable[..., Any], policy: Any
) -> None:
    errors = standard_errors("cascade")
    learner = learn(logs["cascade"], policy, Cascade())
    assert (np.abs(appeals(policy, learner.snapshot) - APPEAL) < ALLOWED * errors).all()
    slates, clicked = visits("cascade")
    below = np.cumsum(clicked, axis=1) - clicked > 0
    assert learner.stats.unexamined == np.count_nonzero(below)
    assert learner.stats.folded == slates.size - np.count_nonzero(below)


def test_weights_by_hand() -> None:
    """θ = ½: a click counts 1; without one, ½ · (1 - a) / (1 - a / 2) of a showing was looked at."""
    model = PositionBased((1.0, 0.5))
    rewards = RewardBatch(["a", "a", "a"], [1.0, 0.0, 0.0], slots=[1, 1, 0], offsets=[0.1, 0.2, 0.3])
    rewarded = np.array([True, False, False])
    beta = BetaThompson()
    weighed = allowing_for(model, beta, beta.initial_state(), rewards, rewarded)
    np.testing.assert_allclose(weighed.examination, [1.0, 0.5 * 0.5 / 0.75, 1.0])
    np.testing.assert_allclose(weighed.values, [1.0, 0.0, 0.0])
    gaussian = GaussianThompson()
    divided = allowing_for(model, gaussian, gaussian.initial_state(), rewards, rewarded, default_reward=-0.5)
    np.testing.assert_allclose(divided.values, [1.5 / 0.5 - 0.5, 0.5 / 0.5 - 0.5, 0.0])
    np.testing.assert_allclose(divided.examination, [0.5, 0.5, 1.0])
    np.testing.assert_allclose(divided.offsets, [0.1, 0.2, 0.3])
    exp3 = allowing_for(model, EXP3(), EXP3().initial_state(), rewards, rewarded)
    np.testing.assert_allclose(exp3.weights, [2.0, 2.0, 1.0])
    with pytest.raises(InvalidBatch, match="slots"):
        allowing_for(model, beta, beta.initial_state(), replace(rewards, slots=None), rewarded)


def test_a_cascade_waits_for_the_whole_slate(
    records: ModuleType, tmp_path: Path, learn: Callable[..., Any]
) -> None:
    """One click in the middle: the slot above was passed over, the one below never seen. All at the horizon."""
    with DecisionLog(tmp_path / "log") as log:
        log.append_decision(records.make_record("d", time=1000.0))
        log.append_impression(records.impression("d"))
        log.append_rewards([records.reward("d", 1)])
        log.append_decision(records.make_record("full", time=1000.0))
        log.append_rewards([records.reward("full", slot) for slot in range(3)])
    learner = Learner(
        tmp_path / "log",
        BetaThompson(),
        state_path=tmp_path / "state.db",
        reward_weights={"click": 1.0},
        horizon_s=100.0,
        examination=Cascade(),
    )
    # Every slot of the second slate is clicked: nothing is left to wait for. Below its first click nobody looks.
    assert learner.step(1050.0) == 1
    assert learner.stats.open == 1
    assert learner.step(1100.0) == 2
    assert learner.stats.unexamined == 3
    state = learner.snapshot
    assert dict(zip(state.item_ids.tolist(), state.successes.tolist(), strict=True)) == {"i0": 1.0, "i1": 1.0}
    assert dict(zip(state.item_ids.tolist(), state.failures.tolist(), strict=True)) == {"i0": 1.0, "i1": 0.0}
    learner.close()
