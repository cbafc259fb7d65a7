"""Each acknowledged reward is learnt once, whatever happens to the process that learns."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from explorank.hooks.errors import LogUnavailable
from explorank.hooks.exploration import BetaThompson, LinearThompson
from explorank.hooks.feedback import DecisionLog, Learner

RULES: dict[str, Any] = {"reward_weights": {"click": 1.0, "conversion": 5.0}, "horizon_s": 100.0}
CLICKS: dict[str, Any] = {"reward_weights": {"click": 1.0}, "horizon_s": 100.0}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    with DecisionLog(tmp_path / "log") as opened:
        yield opened


@pytest.fixture
def make_learner(tmp_path: Path) -> Iterator[Callable[..., Learner[Any]]]:
    """Make learners over the folder of `log`; all are closed at the end."""
    made: list[Learner[Any]] = []

    def make(policy: Any = None, *, state: str = "state.db", **rules: Any) -> Learner[Any]:
        learner: Learner[Any] = Learner(
            tmp_path / "log",
            policy or LinearThompson(dim=3),
            state_path=tmp_path / state,
            **{**RULES, **rules},
        )
        made.append(learner)
        return learner

    yield make
    for learner in made:
        learner.close()


def learnt(learner: Learner[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The sufficient statistics without the prior: sum of x x' and of x r."""
    state = learner.snapshot
    return state.precision - np.eye(3), state.information


def expected(*rows: tuple[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """The same for (slot, value) rows, whose features are (slot + 1, 1, 0)."""
    x = np.array([[slot + 1.0, 1.0, 0.0] for slot, _ in rows]).reshape(-1, 3)
    return x.T @ x, x.T @ np.array([value for _, value in rows])


def assert_learnt(learner: Learner[Any], *rows: tuple[int, float]) -> None:
    for left, right in zip(learnt(learner), expected(*rows), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-9)


def write_history(log: DecisionLog, records: ModuleType, decisions: int) -> None:
    """Decisions a second apart; slots earn by a fixed pattern, some late, some twice, some reordered."""
    for number in range(decisions):
        name, start = f"d{number:04d}", 1000.0 + number
        log.append_decision(records.make_record(name, time=start))
        if number % 3:
            items = ("i1", "i0") if number % 11 == 0 else ("i0", "i1", "i2")[: 1 + number % 3]
            log.append_impression(records.impression(name, items))
        rewards = [records.reward(name, number % 3, value=0.5, time=start + 2)]
        if number % 2:
            rewards.append(records.reward(name, number % 3, kind="conversion", value=0.1, time=start + 3))
        if number % 5 == 0:
            rewards.append(records.reward(name, 1, reward_id=f"late-{number}", time=start + 1000))
        log.append_rewards(rewards)
        log.append_rewards(rewards[:1])


def test_outcomes_are_folded_as_they_close(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner()
    log.append_decision(records.make_record())
    log.append_impression(records.impression(items=("i0", "i1")))
    log.append_rewards([records.reward(slot=0), records.reward(slot=0, kind="conversion", value=0.5)])
    assert learner.step(1010.0) == 1
    assert_learnt(learner, (0, 3.5))
    assert learner.step(1099.0) == 0
    assert learner.step(1100.0) == 1
    assert_learnt(learner, (0, 3.5), (1, 0.0))
    stats = learner.stats
    assert (stats.folded, stats.open, stats.leads, stats.last_error) == (2, 0, True, None)
    assert stats.version == learner.snapshot.version
    assert 0.0 <= stats.lag_s < 60.0


def test_feedback_before_its_decision_waits_for_it(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType, tmp_path: Path
) -> None:
    learner = make_learner()
    log.append_rewards([records.reward(slot=1, value=0.5)])
    log.append_impression(records.impression())
    assert learner.step(1005.0) == 0
    with DecisionLog(tmp_path / "log", worker="1") as other:
        other.append_decision(records.make_record())
    learner.step(1010.0)
    assert learner.step(1200.0) == 3
    assert_learnt(learner, (0, 0.0), (1, 0.5), (2, 0.0))


def test_early_feedback_within_one_step(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    log.append_rewards([records.reward(slot=1, value=0.5)])
    log.append_decision(records.make_record())
    learner = make_learner()
    assert learner.step(1200.0) == 1
    assert_learnt(learner, (1, 0.5))


def test_a_reward_for_a_decision_that_never_comes_is_counted(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner()
    log.append_rewards([records.reward("nowhere")])
    learner.step(1005.0)
    assert learner.stats.unknown == 0
    learner.step(1200.0)
    assert learner.stats.unknown == 1


def test_late_rewards_are_counted_not_learnt(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner()
    log.append_decision(records.make_record())
    log.append_rewards([records.reward(time=1100.5)])
    learner.step(1050.0)
    assert learner.stats.late == 1
    learner.step(1200.0)
    log.append_rewards([records.reward(slot=1)])
    learner.step(1201.0)
    assert learner.stats.late == 2
    assert_learnt(learner)


def test_a_reward_in_two_segments_counts_once(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType, tmp_path: Path
) -> None:
    """Two workers that get the same reward in the same instant both store it; here by hiding one's file."""
    log.append_decision(records.make_record())
    log.append_rewards([records.reward(value=0.5)])
    with DecisionLog(tmp_path / "aside", worker="1") as other:
        other.append_decision(records.make_record())
        other.append_rewards([records.reward(value=0.5)])
    (tmp_path / "aside" / "segment-1.db").rename(tmp_path / "log" / "segment-1.db")
    learner = make_learner()
    learner.step(1010.0)
    assert learner.stats.duplicates == 1
    learner.step(1200.0)
    assert_learnt(learner, (0, 0.5))


def test_a_changed_order_is_not_learnt(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner()
    log.append_decision(records.make_record())
    log.append_impression(records.impression(items=("i1", "i0", "i2")))
    log.append_impression(records.impression(items=("i1", "i0", "i2")))
    log.append_rewards([records.reward(), records.reward(kind="conversion")])
    assert learner.step(1200.0) == 0
    assert learner.stats.order_changed == 1
    assert_learnt(learner)


def test_shadow_and_other_features_are_not_learnt(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner(feature_version="f1")
    log.append_decision(records.make_record("shadow", mode="shadow"))
    log.append_decision(records.make_record("other", versions={"exploration_features": "f0"}))
    log.append_decision(records.make_record("blind", propensity_known=False))
    log.append_decision(records.make_record("good"))
    names = ("shadow", "other", "blind", "good")
    log.append_rewards([records.reward(name, value=0.5) for name in names])
    assert learner.step(1200.0) == 1
    assert learner.stats.ignored == 3
    assert_learnt(learner, (0, 0.5))


def test_what_the_policy_refuses_does_not_stop_it(
    log: DecisionLog,
    make_learner: Callable[..., Learner[Any]],
    records: ModuleType,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A Beta posterior takes rewards in [0, 1] only; three in twenty are outside."""
    learner = make_learner(BetaThompson(), **CLICKS)
    for number in range(20):
        name = f"d{number:02d}"
        log.append_decision(records.make_record(name))
        log.append_rewards([records.reward(name, value=7.0 if number in {3, 4, 19} else 0.5)])
    assert learner.step(1010.0) == 17
    assert (learner.stats.refused, learner.stats.folded) == (3, 17)
    assert learner.snapshot.successes.tolist() == [8.5]
    assert learner.snapshot.failures.tolist() == [8.5]
    assert "'d19'" in caplog.text


def test_a_slot_without_the_features_the_policy_needs_is_refused(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner(**CLICKS)
    log.append_decision(records.make_record(feature_rows=np.array([1]), features=np.ones((1, 3), np.float32)))
    log.append_rewards([records.reward(slot=0), records.reward(slot=1)])
    assert learner.step(1010.0) == 1
    assert learner.stats.refused == 1


@pytest.mark.parametrize("interval", [7, 50, 5000])
def test_batches_do_not_matter(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType, interval: int
) -> None:
    """Stepping while the log grows gives what one step over the whole log gives."""
    steps = make_learner(state="steps.db")
    for start in range(0, 120, 20):
        for number in range(start, start + 20):
            name = f"d{number}"
            log.append_decision(records.make_record(name, time=1000.0 + number))
            log.append_impression(records.impression(name))
            log.append_rewards([records.reward(name, number % 3, value=number / 100, time=1001.0 + number)])
        if start % interval == 0:
            steps.step(1000.0 + start + 20)
    steps.step(9000.0)
    once = make_learner(state="once.db")
    once.step(9000.0)
    assert steps.stats.folded == once.stats.folded == 360
    for left, right in zip(learnt(steps), learnt(once), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9)


def test_killed_learners_learn_what_an_uninterrupted_one_does(
    log: DecisionLog,
    make_learner: Callable[..., Learner[Any]],
    records: ModuleType,
    run_script: Callable[..., str],
    tmp_path: Path,
) -> None:
    write_history(log, records, 700)
    progress = json.loads(run_script("kill_learner.py", tmp_path / "log", tmp_path / "killed.db", 40))
    uninterrupted = make_learner(state="whole.db")
    uninterrupted.step(100_000.0)
    whole = uninterrupted.stats
    # The kills came while it read and learnt: both went on over several lives.
    assert progress == sorted(progress)
    assert len({tuple(reached) for reached in progress}) >= 5
    heir = make_learner(state="killed.db")
    heir.step(100_000.0)
    again = heir.stats
    assert whole.folded > 700
    for name in ("folded", "late", "duplicates", "refused", "order_changed", "ignored", "unknown", "open"):
        assert getattr(again, name) == getattr(whole, name), name
    for left, right in zip(learnt(heir), learnt(uninterrupted), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9)


@pytest.mark.slow
def test_a_hundred_killed_writers_lose_and_double_nothing(
    run_script: Callable[..., str], tmp_path: Path
) -> None:
    """A writer appends, acknowledges and learns; SIGKILL at a hundred moments takes it anywhere in between.

    Each item earns one reward. Every acknowledged one is learnt once, and none twice; of what was under way at a
    death, all or nothing was in the log.
    """
    answer = json.loads(run_script("kill_writers.py", tmp_path / "log", tmp_path / "state.db", 100))
    acknowledged, counts = answer["acknowledged"], answer["counts"]
    assert len({name.split("-")[0] for name in acknowledged}) == 100
    assert {f"{name}-{slot}" for name in acknowledged for slot in range(3)} <= counts.keys()
    assert set(counts.values()) == {1.0}
    assert answer["folded"] == len(counts)
    assert len(acknowledged) * 3 <= len(counts) <= (len(acknowledged) + 100) * 3
    # They learnt while they lived, not only their heir.
    assert answer["before"] > 0
    assert answer["version"] > 50  # each transaction takes four outcomes at most


def test_another_fingerprint_rebuilds_from_the_log(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    log.append_decision(records.make_record())
    log.append_rewards([records.reward(value=0.5)])
    first = make_learner(**CLICKS)
    first.step(1010.0)
    narrow = make_learner(LinearThompson(dim=3, prior_precision=2.0), **CLICKS)
    assert narrow.fingerprint != first.fingerprint
    assert narrow.snapshot.version == 0
    assert narrow.step(1010.0) == 1
    # And back: the first one's state is still there, its log not read twice.
    first.close()
    again = make_learner(**CLICKS)
    assert_learnt(again, (0, 0.5))
    assert again.step(1010.0) == 0
    fingerprints = {
        make_learner(**{**CLICKS, **change}).fingerprint
        for change in ({}, {"default_reward": 0.1}, {"horizon_s": 5.0}, {"feature_version": "f1"})
    }
    assert len(fingerprints) == 4


@pytest.mark.parametrize("damage", ["garbage", "truncated", "state"])
def test_a_damaged_state_is_moved_aside_and_rebuilt(
    log: DecisionLog,
    make_learner: Callable[..., Learner[Any]],
    records: ModuleType,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    write_history(log, records, 100)
    before = make_learner()
    before.step(1050.0)
    whole = learnt(before)
    before.close()
    path = tmp_path / "state.db"
    if damage == "garbage":
        path.write_bytes(b"nonsense" * 4096)
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    else:
        content = path.read_bytes()
        at = content.index(b"XPLRARR2", content.index(b'"policy":"linear_thompson"') - 40)
        path.write_bytes(content[: at + 120] + b"\xff\xff" + content[at + 122 :])
    learner = make_learner()
    learner.step(1050.0)
    for left, right in zip(learnt(learner), whole, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9)
    assert path.with_name("state.db.corrupt-1").exists()
    assert "is damaged" in caplog.text


def test_what_a_damaged_state_cannot_do_is_done_after_a_step(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType, tmp_path: Path
) -> None:
    write_history(log, records, 20)
    before = make_learner()
    before.step(1050.0)
    before.close()
    (tmp_path / "state.db").write_bytes(b"nonsense" * 4096)
    learner = make_learner()
    for ask in (lambda: learner.rebuild(1050.0), lambda: learner.forget("nobody", 1050.0)):
        with pytest.raises(LogUnavailable, match=r"is damaged.*then try again"):
            ask()
    learner.step(1050.0)
    assert learner.forget("nobody", 1050.0) == 0
    assert learner.stats.folded == before.stats.folded > 0


def test_one_learns_the_others_follow_and_take_over(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    log.append_decision(records.make_record())
    log.append_rewards([records.reward(value=0.5)])
    leader, follower = make_learner(**CLICKS), make_learner(**CLICKS)
    assert leader.step(1010.0) == 1
    assert follower.step(1010.0) == 0
    assert (leader.stats.leads, follower.stats.leads) == (True, False)
    assert_learnt(follower, (0, 0.5))
    leader.close()
    log.append_rewards([records.reward(slot=1, value=0.25)])
    assert follower.step(1020.0) == 1
    assert follower.stats.leads
    assert_learnt(follower, (0, 0.5), (1, 0.25))


def test_a_snapshot_that_is_held_does_not_change(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner(**CLICKS)
    held = learner.snapshot
    log.append_decision(records.make_record())
    log.append_rewards([records.reward()])
    learner.step(1010.0)
    assert (held.version, learner.snapshot.version) == (0, 1)
    assert not held.information.any()


def test_the_thread_learns_soon_after_notify(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner(**CLICKS)
    learner.start(interval_s=3600.0)
    now = time.time()
    log.append_decision(records.make_record(time=now))
    log.append_rewards([records.reward(time=now)])
    for _ in itertools.repeat(None, 2000):
        learner.notify()
        if learner.snapshot.version:
            break
        time.sleep(0.02)
    learner.stop()
    assert learner.snapshot.version == 1


def test_a_lost_tail_of_the_log_does_not_hide_what_follows(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType, tmp_path: Path
) -> None:
    """A power cut may take a segment's last commits after the learner has read them."""
    log.append_decision(records.make_record())
    log.close()
    segment = tmp_path / "log" / "segment-0.db"
    before_the_cut = segment.read_bytes()
    with DecisionLog(tmp_path / "log") as lost:
        lost.append_rewards([records.reward(slot=0, value=0.5), records.reward(slot=1, value=0.5)])
        learner = make_learner(**CLICKS)
        assert learner.step(1010.0) == 2
        learner.close()
    segment.write_bytes(before_the_cut)
    with DecisionLog(tmp_path / "log") as after:
        after.append_rewards([records.reward(slot=2, value=0.5)])
    heir = make_learner(**CLICKS)
    assert heir.step(1010.0) == 1
    assert_learnt(heir, (0, 0.5), (1, 0.5), (2, 0.5))
