"""The log alone gives the same numbers, and a user who is erased leaves none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from explorank.hooks.errors import LogUnavailable, UnknownDecision
from explorank.hooks.exploration import (
    EXP3,
    UCB1,
    BetaThompson,
    BootstrappedThompson,
    Cascade,
    DisjointLinearThompson,
    DisjointLinUCB,
    EpsilonGreedy,
    GaussianThompson,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralLinear,
    Policy,
    PositionBased,
    SlidingWindow,
    SlotStrategies,
)
from explorank.hooks.feedback import DecisionLog, Learner, StateStore, read_log

HORIZON = 10.0
POLICIES: list[Policy[Any]] = [
    EpsilonGreedy(),
    UCB1(),
    EXP3(),
    BetaThompson(),
    GaussianThompson(),
    LinearThompson(dim=3),
    LinUCB(dim=3),
    DisjointLinUCB(dim=3),
    DisjointLinearThompson(dim=3),
    LogisticThompson(dim=3),
    BootstrappedThompson(dim=3, replicates=8),
    NeuralLinear(dim=3),
    SlotStrategies(("score", "random")),
    BetaThompson(half_life=15.0),
    LinearThompson(dim=3, half_life=15.0),
    DisjointLinUCB(dim=3, half_life=5.0),
    SlidingWindow(LinearThompson(dim=3), rewards=40, blocks=4),
]
CASES = [
    *((policy, None) for policy in POLICIES),
    (BetaThompson(), PositionBased((1.0, 0.5))),
    (LinearThompson(dim=3), PositionBased((1.0, 0.5))),
    (EXP3(), PositionBased((1.0, 0.5))),
    (LinearThompson(dim=3), Cascade()),
]


def named(case: Any) -> str:
    policy, examination = case
    forgets = "" if getattr(policy, "half_life", None) is None else "-forgetful"
    return policy.name + forgets + ("" if examination is None else f"-{type(examination).__name__}")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    with DecisionLog(tmp_path / "log", busy_timeout_s=60.0) as opened:
        yield opened


@pytest.fixture
def make_learner(tmp_path: Path) -> Iterator[Callable[..., Learner[Any]]]:
    made: list[Learner[Any]] = []

    def make(policy: Any, examination: Any = None, *, state: str = "state.db") -> Learner[Any]:
        learner: Learner[Any] = Learner(
            tmp_path / "log",
            policy,
            state_path=tmp_path / state,
            reward_weights={"click": 1.0},
            horizon_s=HORIZON,
            examination=examination,
        )
        made.append(learner)
        return learner

    yield make
    for learner in made:
        learner.close()


def live(log: DecisionLog, records: ModuleType, step: Callable[[float], object], rounds: int = 6) -> float:
    """Write decisions of five users round by round, and let `step` run after each; return the last moment.

    Feedback comes within its horizon and is read in the order of its times, as on a host that keeps up.
    """
    rng = np.random.default_rng(2)
    now = 1000.0
    for round_number in range(rounds):
        for number in range(12):
            name = f"d{round_number:02d}{number:02d}"
            record = records.make_record(name, time=now)
            order = rng.permutation(6)[:3]
            strategies = tuple(rng.choice(["score", "random", ""], 3).tolist())
            request = replace(record.request, user_id=f"reader-{number % 5}")
            slate = replace(record.slate, order=order, strategies=strategies)
            log.append_decision(replace(record, request=request, slate=slate))
            shown = tuple(f"i{item}" for item in order[: 2 + number % 2])
            log.append_impression(records.impression(name, shown))
            clicked = np.flatnonzero(rng.random(3) < 0.5).tolist()
            log.append_rewards(
                [
                    records.reward(
                        name, s, item_id=f"i{order[s]}", value=rng.integers(1, 5) / 4, time=now + 0.25
                    )
                    for s in clicked
                ]
            )
            now += 0.5
        step(now)
    now += HORIZON
    step(now)
    return now


def assert_same_knowledge(policy: Policy[Any], one: Any, other: Any) -> None:
    (meta, ours), (other_meta, theirs) = policy.pack(one), policy.pack(other)
    assert {**meta, "version": None} == {**other_meta, "version": None}
    assert ours.keys() == theirs.keys()
    order = [np.argsort(of["item_ids"]) if "item_ids" in of else slice(None) for of in (ours, theirs)]
    for name, array in ours.items():
        left, right = array[order[0]], theirs[name][order[1]]
        if array.dtype.kind == "f":
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)
        else:
            assert left.tolist() == right.tolist()


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_rebuild_from_the_log_gives_the_same_numbers(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType, case: Any
) -> None:
    learner = make_learner(*case)
    now = live(log, records, learner.step)
    before, counted = learner.snapshot, learner.stats
    assert counted.folded > 100
    assert learner.rebuild(now) == counted.folded
    assert learner.snapshot.version > before.version
    assert_same_knowledge(learner.policy, learner.snapshot, before)
    after = learner.stats
    assert (after.folded, after.unexamined, after.late) == (counted.folded, counted.unexamined, counted.late)
    # It goes on from there, and so does whoever follows it.
    assert learner.step(now + 1) == 0
    follower = make_learner(*case)
    assert follower.snapshot.version == learner.snapshot.version


def test_a_lost_state_is_learnt_again(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    first = make_learner(LogisticThompson(dim=3))
    now = live(log, records, first.step)
    second = make_learner(LogisticThompson(dim=3), state="another.db")
    second.step(now)
    assert_same_knowledge(first.policy, second.snapshot, first.snapshot)


def test_readers_keep_the_old_state_until_the_new_one_is_whole(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner(LinearThompson(dim=3))
    now = live(log, records, learner.step)
    whole, seen, done = learner.snapshot, [learner.snapshot], threading.Event()

    def read() -> None:
        while not done.is_set():
            if learner.snapshot is not seen[-1]:
                seen.append(learner.snapshot)

    reader = threading.Thread(target=read)
    reader.start()
    learner.rebuild(now)
    done.set()
    reader.join()
    assert len(seen) <= 2
    for state in seen:
        np.testing.assert_allclose(state.information, whole.information, rtol=1e-9)


def test_only_who_leads_rebuilds(log: DecisionLog, make_learner: Callable[..., Learner[Any]]) -> None:
    leader, follower = make_learner(BetaThompson()), make_learner(BetaThompson())
    leader.step(1000.0)
    with pytest.raises(LogUnavailable, match="Another learner leads"):
        follower.rebuild(1000.0)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_forgotten_user_is_gone_from_log_and_state(
    log: DecisionLog,
    make_learner: Callable[..., Learner[Any]],
    records: ModuleType,
    tmp_path: Path,
    case: Any,
) -> None:
    """The state is then what a learner makes of the log that is left, and no byte of the user's id is on disk."""
    learner = make_learner(*case)
    now = live(log, records, learner.step)
    gone = {entry.record.decision_id for entry in read_log(tmp_path / "log") if is_of("reader-3", entry)}
    assert len(gone) == 12
    before = learner.stats
    assert learner.forget("reader-3", now) == 12
    left = list(read_log(tmp_path / "log"))
    assert len(left) == 60
    assert not any(is_of("reader-3", entry) for entry in left)
    for name in gone:
        with pytest.raises(UnknownDecision):
            log.decision(name)
    fresh = make_learner(*case, state="fresh.db")
    fresh.step(now)
    assert_same_knowledge(learner.policy, learner.snapshot, fresh.snapshot)
    assert learner.stats.folded == fresh.stats.folded < before.folded
    assert learner.snapshot.version > before.version
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"reader-3" not in path.read_bytes(), path
    # The live worker goes on, and nothing of what it writes is lost or counted twice.
    assert log.stats.moved_aside == ()
    log.append_decision(records.make_record("later", time=now))
    log.append_rewards([records.reward("later", time=now)])
    learner.step(now + HORIZON)
    assert learner.stats.folded == fresh.stats.folded + 1
    assert learner.forget("nobody", now + HORIZON) == 0


def is_of(user_id: str, entry: Any) -> bool:
    return bool(entry.record.request.user_id == user_id)


def test_what_still_waits_for_rewards_is_forgotten_too(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner = make_learner(LinearThompson(dim=3))
    for name, user in (("mine", "a"), ("yours", "b")):
        record = records.make_record(name, time=1000.0)
        log.append_decision(replace(record, request=replace(record.request, user_id=user)))
        log.append_impression(records.impression(name))
        log.append_rewards([records.reward(name, 0, value=0.5)])
    assert learner.step(1001.0) == 2
    assert learner.forget("a", 1002.0) == 1
    assert (learner.stats.folded, learner.stats.open) == (1, 1)
    # What comes for it later has nothing to join.
    log.append_rewards([records.reward("mine", 1, value=0.5)])
    learner.step(1020.0)
    assert learner.stats.folded == 3
    x = np.array([[slot + 1.0, 1.0, 0.0] for slot in range(3)])
    np.testing.assert_allclose(learner.snapshot.precision, np.eye(3) + x.T @ x, atol=1e-9)


def test_a_follower_asks_the_leader(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType, tmp_path: Path
) -> None:
    leader, follower = make_learner(BetaThompson()), make_learner(BetaThompson())
    now = live(log, records, leader.step)
    leader.start(0.02, clock=lambda: now)
    assert follower.forget("reader-1", now) == 18
    leader.stop()
    follower.step(now)
    assert (leader.stats.leads, follower.stats.leads) == (True, False)
    assert follower.snapshot.version == leader.snapshot.version
    assert not any(is_of("reader-1", entry) for entry in read_log(tmp_path / "log"))
    with pytest.raises(LogUnavailable, match="has not erased user 'reader-2' within"):
        follower.forget("reader-2", now, wait_s=0.1)
    leader.close()
    assert follower.forget("reader-2", now) == 12


def test_a_busy_worker_neither_hinders_forgetting_nor_is_hindered(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType, tmp_path: Path
) -> None:
    """A thread appends without a pause, and every append that returned is in the log and in the state."""
    learner = make_learner(LinearThompson(dim=3))
    now = live(log, records, learner.step)
    appended: list[str] = []
    stopped = threading.Event()

    def append() -> None:
        while not stopped.is_set():
            name = f"busy{len(appended):06d}"
            log.append_decision(records.make_record(name, time=now))
            log.append_rewards([records.reward(name, time=now)])
            appended.append(name)

    busy = threading.Thread(target=append)
    busy.start()
    try:
        while len(appended) < 20:
            time.sleep(0.001)
        assert learner.forget("reader-1", now) == 18
        assert learner.forget("reader-2", now) == 12
    finally:
        stopped.set()
        busy.join()
    assert log.stats.moved_aside == ()
    assert log.stats.failures == 0
    entries = list(read_log(tmp_path / "log"))
    assert len(entries) == 42 + len(appended)
    assert {entry.record.decision_id for entry in entries} >= set(appended)
    learner.step(now)
    fresh = make_learner(LinearThompson(dim=3), state="fresh.db")
    fresh.step(now)
    assert_same_knowledge(learner.policy, learner.snapshot, fresh.snapshot)


def test_states_of_other_options_are_dropped_and_learn_anew(
    log: DecisionLog, make_learner: Callable[..., Learner[Any]], records: ModuleType
) -> None:
    learner, other = make_learner(LinearThompson(dim=3)), make_learner(LinearThompson(dim=3, noise=0.5))
    now = live(log, records, lambda at: (learner.step(at), other.step(at)))
    version = other.snapshot.version
    learner.forget("reader-0", now)
    other.step(now)
    assert other.snapshot.version > version
    x = other.snapshot.precision - np.eye(3)
    np.testing.assert_allclose(x / 4, learner.snapshot.precision - np.eye(3), atol=1e-9)


class Interrupts:
    """An observer that is told of a transaction, and does something before the next."""

    fingerprint = "interrupts"

    def __init__(self, do: Callable[[], object]) -> None:
        self.left = [do]

    def follow(self, store: StateStore) -> None:
        pass

    def observe(self, store: StateStore, decisions: Any, rewards: Any) -> Callable[[], None]:
        return lambda: [self.left.pop()() for _ in self.left[:1]] and None

    def finish(self, store: StateStore, now: float, *, complete: bool) -> None:
        pass


def test_a_learner_whose_state_is_dropped_at_work_begins_anew(
    log: DecisionLog,
    make_learner: Callable[..., Learner[Any]],
    records: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another fingerprint's learner erases a user between two transactions: nothing of before is gone on with."""
    learner = make_learner(LinearThompson(dim=3))
    now = live(log, records, learner.step)
    monkeypatch.setattr("explorank.hooks.feedback.learner._EVENTS_PER_TRANSACTION", 8)
    other = Learner(
        tmp_path / "log",
        LinearThompson(dim=3, noise=0.5),
        state_path=tmp_path / "state.db",
        reward_weights={"click": 1.0},
        horizon_s=HORIZON,
        observer=Interrupts(lambda: learner.forget("reader-0", now)),
    )
    with closing(other):
        with pytest.raises(LogUnavailable, match="was dropped or replaced while"):
            other.step(now)
        other.step(now)
        assert other.stats.folded == learner.stats.folded
        x = other.snapshot.precision - np.eye(3)
        np.testing.assert_allclose(x / 4, learner.snapshot.precision - np.eye(3), atol=1e-9)


@pytest.mark.parametrize("moment", ["erase", "rebuild", "finish"])
@pytest.mark.parametrize("policy", [LinearThompson(dim=3), LogisticThompson(dim=3)], ids=lambda p: p.name)
def test_a_death_between_two_steps_of_forgetting_repeats_none_that_counts(
    log: DecisionLog,
    make_learner: Callable[..., Learner[Any]],
    records: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    policy: Any,
    moment: str,
) -> None:
    learner = make_learner(policy)
    now = live(log, records, learner.step)
    place = {
        "erase": "explorank.hooks.feedback.segments.Segments.erase",
        "rebuild": "explorank.hooks.feedback.learner.Learner._rebuild_aside",
        "finish": "explorank.hooks.feedback.checkpoint.Checkpoint.finish_erasure",
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(place, lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed here")))
        try:
            learner.forget("reader-2", now)
        except RuntimeError:
            learner.close()
        else:  # a sum needs no rebuild
            assert policy.additive
            assert moment == "rebuild"
    heir = make_learner(policy)
    heir.step(now)
    fresh = make_learner(policy, state="fresh.db")
    fresh.step(now)
    assert_same_knowledge(policy, heir.snapshot, fresh.snapshot)
    assert heir.stats.folded == fresh.stats.folded


LEADER = """
import sys, time
from explorank.hooks.exploration import BetaThompson
from explorank.hooks.feedback import Learner
learner = Learner(
    sys.argv[1], BetaThompson(), state_path=sys.argv[2], reward_weights={"click": 1.0}, horizon_s=10.0
)
learner.start(0.05)
while not learner.stats.leads:
    time.sleep(0.01)
    assert learner.stats.last_error is None, learner.stats.last_error
print("leads", flush=True)
time.sleep(600)
"""


def test_another_takes_over_within_five_steps_of_a_kill(
    log: DecisionLog,
    make_learner: Callable[..., Learner[Any]],
    records: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader in a process of its own is killed by SIGKILL; the follower steps once a second, the default."""
    taken: list[float] = []
    command = [sys.executable, "-c", LEADER, str(tmp_path / "log"), str(tmp_path / "state.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "leads\n"
        follower = make_learner(BetaThompson())
        step = follower.step

        def counted(now: float) -> int:
            if follower.snapshot.version < 2:
                taken.append(now)
            return step(now)

        monkeypatch.setattr(follower, "step", counted)
        with closing(follower):
            follower.start()
            now = time.time() + 600.0  # nothing is late by then, however long the machine takes
            log.append_decision(records.make_record(time=now))
            log.append_rewards([records.reward(time=now)])
            give_up_at = time.monotonic() + 60.0
            while not follower.snapshot.version:
                time.sleep(0.02)
                assert time.monotonic() < give_up_at, "the leader learns nothing"
            assert not follower.stats.leads
            os.kill(leader.pid, signal.SIGKILL)
            leader.wait()
            taken.clear()
            log.append_rewards([records.reward(slot=1, time=now)])
            while follower.snapshot.version < 2:
                time.sleep(0.02)
                assert time.monotonic() < give_up_at, "nobody takes over"
            assert len(taken) <= 5
            assert follower.stats.leads
            assert follower.stats.folded == 2
