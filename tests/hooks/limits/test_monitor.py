"""Each live decision counts once with what it earned in time, whatever happens to the process that counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import pytest

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration import BetaThompson
from explorank.hooks.feedback import DecisionLog, KillSwitch, Learner
from explorank.hooks.limits import EarningRules, Monitor, Monitored, StopRule
from explorank.hooks.limits.earnings import group_of
from explorank.hooks.types import RankingRequest, Slate

Make: TypeAlias = Callable[..., tuple[Monitor, Learner[Any]]]

RULES: dict[str, Any] = {
    "weights": {"click": 1.0, "order": 5.0},
    "window_s": 100.0,
    "minimum": 0.0,
    "maximum": 6.0,
}
GROUPS: dict[str, dict[str, Any]] = {
    "explore": {},
    "held": {"held_back": "no"},
    "baseline": {"arm": "baseline"},
}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    with DecisionLog(tmp_path / "log") as opened:
        yield opened


@pytest.fixture
def switch(tmp_path: Path) -> KillSwitch:
    return KillSwitch(tmp_path / "exploration.off")


@pytest.fixture
def make(tmp_path: Path, switch: KillSwitch) -> Iterator[Make]:
    """Make monitors, each with its learner over the folder of `log`; all are closed at the end."""
    made: list[Learner[Any]] = []

    def make_(
        stop: StopRule | None = None, *, state: str = "state.db", **rules: Any
    ) -> tuple[Monitor, Learner[Any]]:
        monitor = Monitor(EarningRules(**{**RULES, **rules}), switch, stop=stop)
        learner: Learner[Any] = Learner(
            tmp_path / "log",
            BetaThompson(),
            state_path=tmp_path / state,
            reward_weights={"click": 1.0},
            horizon_s=100.0,
            observer=monitor,
        )
        made.append(learner)
        return monitor, learner

    yield make_
    for learner in made:
        learner.close()


def counted(monitor: Monitor) -> dict[str, tuple[int, int, float]]:
    """Open, settled and total of each group that has any."""
    accounts = monitor.snapshot.earnings.accounts.items()
    return {
        group: (account.open, account.settled.count, account.settled.total)
        for group, account in accounts
        if account.decisions
    }


def test_decisions_settle_when_their_window_has_passed_not_sooner(
    log: DecisionLog, make: Make, records: ModuleType
) -> None:
    monitor, learner = make()
    for name, changes in GROUPS.items():
        record = records.make_record(name, **changes)
        if name == "held":
            record = replace(record, slate=plain(record.slate))
        log.append_decision(record)
    log.append_decision(records.make_record("out", arm="holdout", time=1050.0))
    log.append_rewards(
        [
            *(records.reward("explore", slot) for slot in range(3)),
            records.reward("explore", 0, kind="order", value=0.5, time=1100.0),
            records.reward("held", 0, kind="unheard of"),
            records.reward("baseline", 1, value=0.25),
        ]
    )
    learner.step(1010.0)
    waiting = {
        "explored": (1, 0, 0.0),
        "held_back": (1, 0, 0.0),
        "baseline": (1, 0, 0.0),
        "holdout": (1, 0, 0.0),
    }
    assert counted(monitor) == waiting
    learner.step(1099.0)
    assert counted(monitor) == waiting
    learner.step(1100.0)
    assert counted(monitor) == {
        "explored": (0, 1, 5.5),
        "held_back": (0, 1, 0.0),
        "baseline": (0, 1, 0.25),
        "holdout": (1, 0, 0.0),
    }


def plain(slate: Slate) -> Slate:
    """The same slate, chosen by score."""
    return replace(slate, method=("score",) * 3, propensities=np.ones(3))


def test_only_what_is_the_baseline_throughout_counts_as_held_back(records: ModuleType) -> None:
    """A limit may hold back some slots of a decision; what the others explored can still do harm."""
    partly = records.make_record(held_back="the budget")
    assert group_of(partly) == "explored"
    drawn = replace(plain(partly.slate), propensities=np.array([1.0, 0.5, 1.0]))
    assert group_of(replace(partly, slate=drawn)) == "explored"
    assert group_of(replace(partly, slate=plain(partly.slate))) == "held_back"
    # Exploration that failed shows the baseline too, but nobody kept it from harm.
    assert group_of(records.make_record(slate=plain(partly.slate))) == "explored"
    assert group_of(records.make_record(mode="off")) is None


def test_every_live_decision_counts_whatever_became_of_it(
    log: DecisionLog, make: Make, records: ModuleType
) -> None:
    """Unlearnt, never displayed, displayed otherwise: none may go missing from its arm. Others are no traffic."""
    monitor, learner = make()
    log.append_decision(records.make_record("blind", propensity_known=False))
    log.append_decision(records.make_record("other features", versions={"exploration_features": "f0"}))
    log.append_decision(records.make_record("reordered"))
    log.append_impression(records.impression("reordered", ("i1", "i0")))
    for mode in ("off", "shadow", "apprentice"):
        log.append_decision(records.make_record(mode, mode=mode))
    log.append_rewards(
        [records.reward(name) for name in ("blind", "other features", "reordered", "off", "shadow")]
    )
    learner.step(1200.0)
    assert counted(monitor) == {"explored": (0, 3, 3.0)}


def test_late_early_and_repeated_rewards(
    log: DecisionLog, make: Make, records: ModuleType, tmp_path: Path
) -> None:
    monitor, learner = make()
    log.append_rewards([records.reward("early", value=0.5)])
    learner.step(1001.0)
    with DecisionLog(tmp_path / "log", worker="1") as other:
        other.append_decision(records.make_record("early"))
    log.append_decision(records.make_record("late"))
    log.append_rewards([records.reward("late", time=1100.5), records.reward("late", 1, value=0.25)])
    with DecisionLog(tmp_path / "aside", worker="2") as copy:
        copy.append_decision(records.make_record("late"))
        copy.append_rewards([records.reward("late", 1, value=0.25)])
    (tmp_path / "aside" / "segment-2.db").rename(tmp_path / "log" / "segment-2.db")
    learner.step(1010.0)
    assert counted(monitor) == {"explored": (2, 0, 0.0)}
    learner.step(1100.0)
    log.append_rewards([records.reward("late", 2)])  # happened in time, came too late
    learner.step(1101.0)
    assert counted(monitor) == {"explored": (0, 2, 0.75)}


def test_earnings_beyond_the_bounds_are_clipped_and_counted(
    log: DecisionLog, make: Make, records: ModuleType
) -> None:
    monitor, learner = make(maximum=1.0, minimum=-1.0, weights={"click": 1.0, "complaint": -4.0})
    for name in ("a", "b", "c"):
        log.append_decision(records.make_record(name))
    log.append_rewards([records.reward("a", slot) for slot in range(3)])
    log.append_rewards([records.reward("b", kind="complaint"), records.reward("c", value=0.5)])
    learner.step(1200.0)
    assert counted(monitor) == {"explored": (0, 3, 1.0 - 1.0 + 0.5)}
    assert monitor.snapshot.earnings.clipped == 2


def write_history(log: DecisionLog, records: ModuleType, decisions: int) -> None:
    arms = ("explore", "baseline", "explore", "holdout")
    for number in range(decisions):
        name, start = f"d{number:04d}", 1000.0 + number
        log.append_decision(records.make_record(name, time=start, arm=arms[number % 4]))
        rewards = [records.reward(name, 0, value=(number % 10) / 10, time=start + 2)]
        log.append_rewards(rewards)
        log.append_rewards(rewards)


def test_killed_learners_count_what_an_uninterrupted_one_does(
    log: DecisionLog, make: Make, records: ModuleType, tmp_path: Path
) -> None:
    write_history(log, records, 600)
    script = Path(__file__).with_name("watch_and_die.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "log", tmp_path / "killed.db", "60"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    settled = json.loads(done.stdout)
    assert settled == sorted(settled)
    assert sum(0 < count < 600 for count in set(settled)) >= 3, settled
    rules = {"weights": {"click": 1.0}, "maximum": 1.0}
    whole, uninterrupted = make(state="whole.db", **rules)
    uninterrupted.step(100_000.0)
    heir, again = make(state="killed.db", **rules)
    again.step(100_000.0)
    assert {group: count for group, (_, count, _) in counted(heir).items()} == {
        "explored": 300,
        "baseline": 150,
        "holdout": 150,
    }
    for group, account in whole.snapshot.earnings.accounts.items():
        other = heir.snapshot.earnings.accounts[group]
        assert other.open == account.open == 0
        np.testing.assert_allclose(other.settled.packed(), account.settled.packed(), rtol=1e-9)


def test_others_follow_and_one_takes_over(log: DecisionLog, make: Make, records: ModuleType) -> None:
    leader, leading = make()
    follower, following = make()
    heard: list[Monitored] = []
    follower.subscribe(heard.append)
    log.append_decision(records.make_record("a"))
    leading.step(1010.0)
    following.step(1010.0)
    assert counted(follower) == counted(leader) == {"explored": (1, 0, 0.0)}
    following.step(1011.0)
    assert [news.step for news in heard] == [0, 1]  # now, and when there was something new
    leading.close()
    log.append_rewards([records.reward("a")])
    following.step(1200.0)
    assert counted(follower) == {"explored": (0, 1, 1.0)}
    assert heard[-1].step == 2


def test_other_rules_count_anew_from_the_log(log: DecisionLog, make: Make, records: ModuleType) -> None:
    log.append_decision(records.make_record("a"))
    log.append_rewards([records.reward("a")])
    first, learner = make()
    learner.step(1200.0)
    assert counted(first) == {"explored": (0, 1, 1.0)}
    second, other = make(weights={"click": 0.5})
    assert counted(second) == {}
    other.step(1200.0)
    assert counted(second) == {"explored": (0, 1, 0.5)}


def test_who_is_erased_for_another_learner_counts_nobody_twice(
    log: DecisionLog, make: Make, records: ModuleType
) -> None:
    """Erasing drops the states of other options, and what they earned with them, which the log tells again."""
    write_history(log, records, 40)
    before, learner = make()
    learner.step(1120.0)
    learner.close()
    _, other = make(weights={"click": 0.5})
    other.step(1120.0)
    assert other.forget("nobody", 1120.0) == 0
    after, heir = make()
    assert counted(after) == {}
    heir.step(1120.0)
    assert counted(after) == counted(before) != {}


@pytest.mark.parametrize("damage", ["nonsense", '{"step": 1}'])
def test_a_damaged_state_is_rebuilt_from_the_log(
    log: DecisionLog, make: Make, records: ModuleType, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlite3
    from contextlib import closing

    write_history(log, records, 40)
    before, learner = make()
    learner.step(1120.0)
    learner.close()
    with closing(sqlite3.connect(learner.states.name)) as connection, connection:
        connection.execute("UPDATE entries SET value = ? WHERE shelf = 'earnings'", (damage.encode(),))
    after, heir = make()
    heir.step(1120.0)
    assert counted(after) == counted(before)
    assert "is damaged" in caplog.text


STOP = StopRule(drop=0.05, false_alarm=0.05)


def write_fall(log: DecisionLog, records: ModuleType, start: float, decisions: int = 400) -> None:
    """The baseline earns 1 a decision, the explore arm nothing."""
    for number in range(decisions):
        name, arm = f"t{start:.0f}-{number:04d}", "baseline" if number % 2 else "explore"
        request = RankingRequest(decision_id=name, slots=3, user_id=f"u{number}", time=start + number / 1000)
        log.append_decision(records.make_record(request=request, arm=arm))
        if arm == "baseline":
            log.append_rewards([records.reward(name, time=start + 1)])


def test_a_fall_engages_the_kill_switch_until_it_is_released(
    log: DecisionLog, make: Make, records: ModuleType, switch: KillSwitch, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, learner = make(STOP)
    write_fall(log, records, 1000.0)
    learner.step(1050.0)
    assert not switch.engaged
    learner.step(1200.0)
    assert switch.engaged
    assert (switch.reason or "").startswith("Automatic stop: the mean reward per decision of the explore arm")
    assert switch.reason == monitor.snapshot.watch.reason
    assert "Automatic stop" in caplog.text
    # Removing the file is no release, a restart neither.
    switch.path.unlink()
    learner.close()
    heir, again = make(STOP)
    assert heir.snapshot.watch.reason is not None
    again.step(1201.0)
    assert switch.engaged
    # A release begins anew, with the decisions after it: the same evidence does not stop it again.
    switch.release()
    released = switch.released_at
    assert released is not None
    write_fall(log, records, 1100.0)  # before the release, which is of now
    again.step(1300.0)
    assert not switch.engaged
    assert (heir.snapshot.watch.since, heir.snapshot.watch.whole.count) == (released, 0)
    write_fall(log, records, released + 1.0)
    again.step(released + 200.0)
    assert "since the last release" in (switch.reason or "")


def test_a_rebuild_remembers_the_release(
    log: DecisionLog, make: Make, records: ModuleType, switch: KillSwitch
) -> None:
    """Another policy, or a lost state file, reads the whole log again; what was forgiven stays forgiven."""
    _, learner = make(STOP)
    write_fall(log, records, 1000.0)
    learner.step(1200.0)
    learner.close()
    switch.release()
    monitor, again = make(STOP, state="another.db")
    again.step(1200.0)
    assert not switch.engaged
    assert counted(monitor) == {"explored": (0, 200, 0.0), "baseline": (0, 200, 200.0)}


def test_a_switch_that_cannot_be_set_is_tried_again(
    log: DecisionLog, make: Make, records: ModuleType, switch: KillSwitch, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, learner = make(STOP)
    write_fall(log, records, 1000.0)
    blocked = switch.path.with_name("not-a-folder")
    blocked.write_text("")
    path, switch.path = switch.path, blocked / "exploration.off"
    learner.step(1200.0)
    assert monitor.snapshot.watch.reason is not None  # so that the gate is shut
    assert "could not be engaged" in caplog.text
    switch.path = path
    learner.step(1201.0)
    assert switch.engaged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {}}, "`weights` is empty"),
        ({"window_s": float("inf")}, "`window_s` is inf"),
        ({"maximum": 0.0}, "Put `minimum` below `maximum`"),
    ],
)
def test_rules_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidPolicy, match=message):
        EarningRules(**{**RULES, **change})
