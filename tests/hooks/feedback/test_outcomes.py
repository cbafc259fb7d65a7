"""What slots earn, and when they close."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from explorank.hooks.errors import CorruptState, InvalidFeedback
from explorank.hooks.feedback import OpenDecision, RewardRules, is_learnt

RULES = RewardRules(weights={"click": 1.0, "conversion": 5.0}, horizon_s=100.0, default_reward=-0.5)


@pytest.fixture
def decision(records: ModuleType) -> OpenDecision:
    return OpenDecision.of(records.make_record())


def values(outcomes: list[Any]) -> dict[int, float]:
    return {outcome.slot: outcome.value for outcome in outcomes}


def test_a_slot_closes_when_every_kind_has_come(records: ModuleType, decision: OpenDecision) -> None:
    assert decision.observe_reward(records.reward(slot=1, time=1003.0), RULES) == ("accepted", None)
    reception, outcome = decision.observe_reward(
        records.reward(slot=1, kind="conversion", value=2.0, time=1007.0), RULES
    )
    assert reception == "accepted"
    assert outcome is not None
    assert (outcome.slot, outcome.item_id, outcome.value) == (1, "i1", 1.0 * 1.0 + 5.0 * 2.0)
    assert (outcome.propensity, outcome.time, outcome.closed_at) == (1 / 3, 1000.0, 1007.0)
    assert outcome.features is not None
    assert outcome.features.tolist() == [2.0, 1.0, 0.0]


def test_the_horizon_closes_what_was_shown(records: ModuleType, decision: OpenDecision) -> None:
    decision.observe_impression(records.impression(items=("i0", "i1")))
    decision.observe_reward(records.reward(slot=1, value=0.75), RULES)
    outcomes = decision.close(RULES)
    # Slot 0 was shown and earned nothing; slot 2 was not shown.
    assert values(outcomes) == {0: -0.5, 1: 0.75}
    assert {outcome.closed_at for outcome in outcomes} == {1100.0}
    assert decision.settled
    assert decision.close(RULES) == []


def test_without_an_impression_only_rewards_show_a_slot(records: ModuleType, decision: OpenDecision) -> None:
    decision.observe_reward(records.reward(slot=2, value=0.5), RULES)
    assert values(decision.close(RULES)) == {2: 0.5}


def test_rewards_of_one_kind_add_up(records: ModuleType, decision: OpenDecision) -> None:
    decision.observe_reward(records.reward(value=1.0, reward_id="first"), RULES)
    decision.observe_reward(records.reward(value=0.5, reward_id="second"), RULES)
    assert values(decision.close(RULES)) == {0: 1.5}


def test_the_same_reward_counts_once(records: ModuleType, decision: OpenDecision) -> None:
    decision.observe_reward(records.reward(), RULES)
    assert decision.observe_reward(records.reward(value=9.0), RULES) == ("duplicate", None)
    assert values(decision.close(RULES)) == {0: 1.0}


def test_a_clock_that_is_behind_closes_no_slot_before_its_decision(
    records: ModuleType, decision: OpenDecision
) -> None:
    decision.observe_reward(records.reward(slot=1, time=940.0), RULES)
    reception, outcome = decision.observe_reward(
        records.reward(slot=1, kind="conversion", value=2.0, time=0.0), RULES
    )
    assert reception == "accepted"
    assert outcome is not None
    assert (outcome.value, outcome.time, outcome.closed_at) == (11.0, 1000.0, 1000.0)


@pytest.mark.parametrize(("time", "reception"), [(1100.0, "accepted"), (1100.1, "late")])
def test_the_horizon_is_the_last_moment(
    records: ModuleType, decision: OpenDecision, time: float, reception: str
) -> None:
    assert decision.observe_reward(records.reward(time=time), RULES)[0] == reception


def test_a_closed_slot_takes_nothing_more(records: ModuleType, decision: OpenDecision) -> None:
    decision.observe_reward(records.reward(), RULES)
    decision.observe_reward(records.reward(kind="conversion"), RULES)
    assert decision.observe_reward(records.reward(reward_id="again"), RULES) == ("late", None)


def test_what_contradicts_the_decision_is_refused(records: ModuleType, decision: OpenDecision) -> None:
    assert decision.observe_reward(records.reward(slot=5), RULES) == ("refused", None)
    assert decision.observe_reward(records.reward(kind="hover"), RULES) == ("refused", None)
    assert decision.close(RULES) == []


def test_the_item_says_which_slot_was_rewarded(records: ModuleType, decision: OpenDecision) -> None:
    decision.observe_reward(records.reward(slot=0, item_id="i2"), RULES)
    assert values(decision.close(RULES)) == {2: 1.0}


@pytest.mark.parametrize(
    ("items", "changed"),
    [
        (("i0", "i1", "i2"), False),
        (("i0",), False),
        ((), False),
        (("i1", "i0"), True),
        (("i0", "i2"), True),
        (("i0", "other"), True),
        (("i0", "i1", "i2", "i3"), True),
    ],
)
def test_only_a_beginning_of_the_slate_keeps_its_order(
    records: ModuleType, decision: OpenDecision, items: tuple[str, ...], changed: bool
) -> None:
    decision.observe_impression(records.impression(items=items))
    assert decision.order_changed is changed
    reception, _ = decision.observe_reward(records.reward(), RULES)
    assert reception == "accepted"
    assert bool(decision.close(RULES)) is not changed


def test_an_item_without_features_has_none(records: ModuleType) -> None:
    record = records.make_record(feature_rows=np.array([1]), features=np.array([[7, 8, 9]], np.float32))
    decision = OpenDecision.of(record)
    decision.observe_impression(records.impression())
    by_slot = {outcome.slot: outcome.features for outcome in decision.close(RULES)}
    assert by_slot[0] is None
    assert by_slot[1] is not None
    assert by_slot[1].tolist() == [7.0, 8.0, 9.0]


def test_an_open_decision_survives_the_bytes(records: ModuleType, decision: OpenDecision) -> None:
    decision.observe_impression(records.impression(items=("i0", "i1")))
    decision.observe_reward(records.reward(slot=1), RULES)
    decision.observe_reward(records.reward(slot=0), RULES)
    decision.observe_reward(records.reward(slot=0, kind="conversion"), RULES)
    again = OpenDecision.loads(decision.dumps())
    assert again.dumps() == decision.dumps()
    assert values(again.close(RULES)) == values(decision.close(RULES)) == {1: 1.0}
    with pytest.raises(CorruptState):
        OpenDecision.loads(b"nonsense")


def test_an_outcome_names_the_strategy_that_chose_the_item(records: ModuleType) -> None:
    record = records.make_record()
    chosen = replace(record, slate=replace(record.slate, strategies=("newest", "", "score")))
    decision = OpenDecision.loads(OpenDecision.of(chosen).dumps())
    decision.observe_impression(records.impression())
    assert [outcome.strategy for outcome in decision.close(RULES)] == ["newest", "", "score"]
    without = OpenDecision.of(record)
    without.observe_impression(records.impression())
    assert [outcome.strategy for outcome in without.close(RULES)] == ["", "", ""]


def test_which_decisions_teach(records: ModuleType) -> None:
    make = records.make_record
    assert is_learnt(make())
    assert is_learnt(make(arm="holdout"), "f1")
    assert is_learnt(make(mode="apprentice"))
    assert not is_learnt(make(mode="shadow"))
    assert not is_learnt(make(mode="off"))
    assert not is_learnt(make(propensity_known=False))
    assert not is_learnt(make(), "f2")


@pytest.mark.parametrize(
    "rules",
    [
        {"weights": {}, "horizon_s": 1.0},
        {"weights": {"click": math.nan}, "horizon_s": 1.0},
        {"weights": {"click": 1.0}, "horizon_s": -1.0},
        {"weights": {"click": 1.0}, "horizon_s": math.nan},
        {"weights": {"click": 1.0}, "horizon_s": 1.0, "default_reward": math.inf},
    ],
)
def test_rules_that_cannot_work_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidFeedback):
        RewardRules(**rules)
