"""Each process hears once of every reward that another one took after it began."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from explorank import Decision, Stage
from explorank.hooks.types import Reward

OpenStage = Callable[..., Stage]


def shown(stage: Stage) -> Decision:
    return stage.explore(["a", "b", "c"], [3.0, 2.0, 1.0], user_id="ann", slots=2)


def test_others_hear_of_a_reward_once_and_whose_it_was(open_stage: OpenStage) -> None:
    first = open_stage()
    decision = shown(first)
    first.reward(decision.decision_id, slot=0, reward_id="before the second began")
    second = open_stage()
    heard: dict[str, list[Reward]] = {"first": [], "second": []}
    for name, stage in (("first", first), ("second", second)):
        stage.installation.rewards_elsewhere.subscribe(heard[name].extend)

    first.reward(decision.decision_id, slot=1, reward_id="to the first")
    second.reward(decision.decision_id, slot=0, reward_id="to the second")
    for _ in range(2):
        first.installation.refresh()
        second.installation.refresh()

    told = {
        name: [(one.reward_id, one.item_id, one.user_id) for one in found] for name, found in heard.items()
    }
    assert told == {
        "first": [("to the second", decision.items[0], "ann")],
        "second": [("to the first", decision.items[1], "ann")],
    }


def test_a_process_that_came_later_is_heard_from_its_beginning(open_stage: OpenStage) -> None:
    first = open_stage()
    heard: list[Reward] = []
    first.installation.rewards_elsewhere.subscribe(heard.extend)
    decision = shown(first)

    second = open_stage()
    for number in range(3):
        second.reward(decision.decision_id, slot=0, reward_id=str(number))
    first.installation.refresh()

    assert [one.reward_id for one in heard] == ["0", "1", "2"]


def test_a_listener_that_raises_costs_the_others_nothing(
    open_stage: OpenStage, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = open_stage(), open_stage()
    heard: list[Reward] = []

    def broken(_: Sequence[Reward]) -> None:
        raise RuntimeError("no room")

    for listener in (broken, heard.extend):
        first.installation.rewards_elsewhere.subscribe(listener)
    second.reward(shown(second).decision_id, slot=0)
    first.installation.refresh()

    assert len(heard) == 1
    assert "were not followed" in caplog.text
