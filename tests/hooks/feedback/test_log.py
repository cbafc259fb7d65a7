"""What was acknowledged is there, once; what could not be stored says why, and the log heals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from explorank.hooks.errors import InvalidBatch, InvalidFeedback, LogUnavailable, UnknownDecision
from explorank.hooks.feedback import DecisionLog, read_log


def ids_in(folder: Path) -> list[str]:
    return [logged.record.decision_id for logged in read_log(folder)]


def test_a_decision_comes_back_with_its_feedback(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path) as log:
        log.append_decision(records.make_record("a"))
        log.append_impression(records.impression("a"))
        rewards = [records.reward("a", 1), records.reward("a", 0, value=0.25)]
        assert log.append_rewards(rewards) == [True, True]
        assert log.decision("a").shown_ids == ["i0", "i1", "i2"]
    (logged,) = read_log(tmp_path)
    assert logged.record.decision_id == "a"
    assert logged.impressions == (records.impression("a"),)
    assert set(logged.rewards) == set(rewards)


def test_an_unknown_decision_is_named(tmp_path: Path) -> None:
    with DecisionLog(tmp_path) as log, pytest.raises(UnknownDecision, match="'nowhere'"):
        log.decision("nowhere")


def test_a_decision_that_is_appended_again_stays_as_it_was(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path) as log:
        log.append_decision(records.make_record("a"))
        log.append_decision(records.make_record("a", mode="shadow"))
        assert log.decision("a").mode == "live"
    assert ids_in(tmp_path) == ["a"]


def test_equal_reward_ids_are_one_reward(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path) as log:
        twice = [records.reward("a", 0), records.reward("a", 0), records.reward("a", 1)]
        assert log.append_rewards(twice) == [True, False, True]
        assert log.append_rewards(twice) == [False, False, False]


def test_a_reward_id_that_another_worker_holds_was_seen(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path, worker="0") as one, DecisionLog(tmp_path, worker="1") as other:
        assert one.append_rewards([records.reward("a", 0)]) == [True]
        assert other.append_rewards([records.reward("a", 0), records.reward("a", 1)]) == [False, True]
        assert one.append_rewards([records.reward("a", 1), records.reward("a", 2)]) == [False, True]


def test_what_others_were_rewarded_with_is_read_from_where_one_stands(
    tmp_path: Path, records: ModuleType
) -> None:
    own, other = DecisionLog(tmp_path, worker="own"), DecisionLog(tmp_path, worker="other")
    with own, other, closing(own.reader()) as reader:
        own.append_rewards([records.reward("a", 0)])
        other.append_rewards([records.reward("a", 1)])
        began = time.time_ns() // 1_000
        ends = reader.ends()
        other.append_rewards([records.reward("a", 2), records.reward("b", 0)])

        def read(cursors: dict[str, int], otherwise: int, limit: int = 9) -> list[tuple[str, int]]:
            found = reader.rewards(cursors, limit, otherwise=otherwise, besides=own.path)
            return [(one.decision_id, one.slot) for _, _, rewards in found for one in rewards]

        assert read(ends, 0) == [("a", 2), ("b", 0)]
        assert read(ends, 0, limit=1) == [("a", 2)]
        # Without a place to stand: from the beginning, or nothing of what was written before.
        assert read({}, 0) == [("a", 1), ("a", 2), ("b", 0)]
        assert read({}, began + 3_600_000_000) == []


def test_decisions_of_other_workers_are_found_dead_or_alive(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path, worker="dead") as dead:
        dead.append_decision(records.make_record("a"))
    with DecisionLog(tmp_path, worker="one") as one, DecisionLog(tmp_path, worker="other") as other:
        other.append_decision(records.make_record("b"))
        assert [one.decision(name).decision_id for name in ("a", "b")] == ["a", "b"]
    assert sorted(ids_in(tmp_path)) == ["a", "b"]


def test_a_decision_in_two_segments_is_read_once(tmp_path: Path, records: ModuleType) -> None:
    for worker in ("0", "1"):
        with DecisionLog(tmp_path, worker=worker) as log:
            log.append_decision(records.make_record("a"))
    assert ids_in(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_nothing_can_be_learnt_from_are_refused(
    tmp_path: Path, records: ModuleType, number: float
) -> None:
    with DecisionLog(tmp_path) as log:
        with pytest.raises(InvalidFeedback, match="value"):
            log.append_rewards([records.reward("a", 0), records.reward("a", 1, value=number)])
        with pytest.raises(InvalidFeedback, match="time"):
            log.append_rewards([records.reward("a", 0, time=number)])
        with pytest.raises(InvalidBatch, match="finite time"):
            log.append_decision(records.make_record("a", time=number))
        assert log.append_rewards([records.reward("a", 0)]) == [True]


@pytest.mark.parametrize(
    "change", [{"slot": -1, "item_id": "i0"}, {"slot": 2**70}, {"reward_id": "\ud800"}, {"kind": None}]
)
def test_feedback_that_no_log_could_store_harms_nobody_else(
    tmp_path: Path, records: ModuleType, change: dict[str, Any]
) -> None:
    with DecisionLog(tmp_path) as log:
        with pytest.raises(InvalidFeedback, match="nothing was stored"):
            log.append_rewards([records.reward("a", 1), records.reward("a", **change)])
        with pytest.raises(InvalidFeedback, match="nothing was stored"):
            log.append_impression(records.impression("a", ("\udfff",)))
        assert log.append_rewards([records.reward("a", 1)]) == [True]


def test_a_caller_that_is_interrupted_holds_nobody_up(tmp_path: Path, records: ModuleType) -> None:
    """It would else be handed the lead, and nobody would ever commit again."""

    class Interrupted(DecisionLog):
        def _await_turn(self, append: Any) -> None:
            raise KeyboardInterrupt

    with Interrupted(tmp_path, busy_timeout_s=60.0) as log:
        with closing(sqlite3.connect(log.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            leading = threading.Thread(target=log.append_decision, args=(records.make_record("leads"),))
            leading.start()
            wait_until(lambda: log._led and not log._waiting)
            with pytest.raises(KeyboardInterrupt):
                log.append_decision(records.make_record("interrupted"))
        leading.join()
        log.append_decision(records.make_record("after"))
    assert ids_in(tmp_path) == ["leads", "after"]


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_kill_loses_nothing_that_was_acknowledged(
    tmp_path: Path, run_script: Callable[..., str], durability: str
) -> None:
    acknowledged = json.loads(run_script("kill_appender.py", tmp_path, durability, 24))
    logged = {entry.record.decision_id: entry for entry in read_log(tmp_path)}
    assert len(ids_in(tmp_path)) == len(logged)
    assert len({decision_id.split("-")[0] for _, decision_id in acknowledged}) == 24
    for what, decision_id in acknowledged:
        entry = logged[decision_id]
        if what == "impression":
            assert len(entry.impressions) == 1
        if what == "rewards":
            assert [reward.slot for reward in entry.rewards] == [0, 1]


def test_another_process_is_read_while_it_writes(tmp_path: Path, records: ModuleType) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from records import make_record;"
        "from explorank.hooks.feedback import DecisionLog; log = DecisionLog(sys.argv[1], worker='other');"
        "log.append_decision(make_record('a')); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        DecisionLog(tmp_path) as log,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert log.decision("a").decision_id == "a"
        with pytest.raises(LogUnavailable, match="in use by another log"):
            DecisionLog(tmp_path, worker="other")
        process.send_signal(signal.SIGKILL)
        process.wait()
        with DecisionLog(tmp_path, worker="other") as heir:
            assert heir.decision("a").decision_id == "a"


def test_a_worker_name_is_held_once_or_chosen(tmp_path: Path) -> None:
    with DecisionLog(tmp_path) as log:
        with pytest.raises(LogUnavailable, match="worker=None"):
            DecisionLog(tmp_path)
        with DecisionLog(tmp_path, worker=None) as other:
            assert (log.worker, other.worker) == ("0", "1")
    with DecisionLog(tmp_path) as again:
        assert again.worker == "0"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b"])
def test_a_worker_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LogUnavailable, match="Worker name"):
        DecisionLog(tmp_path, worker=name)


def test_a_forked_child_must_open_its_own(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path) as log:
        log._pid -= 1  # as a child sees it, without forking this process and its threads
        with pytest.raises(LogUnavailable, match="fork"):
            log.append_decision(records.make_record("a"))


def test_a_locked_segment_is_named_and_recovers(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path, busy_timeout_s=0.05) as log:
        with closing(sqlite3.connect(log.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(LogUnavailable, match=r"segment-0\.db is locked by another process"):
                log.append_decision(records.make_record("while-locked"))
        log.append_decision(records.make_record("after"))
        assert log.stats.failures == 1
    assert ids_in(tmp_path) == ["after"]


def test_too_many_waiting_callers_are_turned_away(tmp_path: Path, records: ModuleType) -> None:
    """One caller leads against a locked file and one waits, so the next finds the queue of one full."""
    with DecisionLog(tmp_path, busy_timeout_s=60.0, max_waiting=1) as log:
        with closing(sqlite3.connect(log.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            threads = [
                threading.Thread(target=log.append_decision, args=(records.make_record(name),))
                for name in ("leads", "waits")
            ]
            threads[0].start()
            wait_until(lambda: log._led and not log._waiting)
            threads[1].start()
            wait_until(lambda: len(log._waiting) == 1)
            with pytest.raises(LogUnavailable, match="already wait"):
                log.append_decision(records.make_record("refused"))
        for thread in threads:
            thread.join()
    assert ids_in(tmp_path) == ["leads", "waits"]


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at, "waited a minute in vain"
        time.sleep(0.001)


def test_a_full_disk_is_named_and_recovers(tmp_path: Path, run_script: Callable[..., str]) -> None:
    said = run_script("fill_disk.py", tmp_path)
    assert "segment-0.db" in said
    assert "disk" in said
    assert ids_in(tmp_path) == ["before", "after"]


def test_a_read_only_segment_is_named_and_recovers(run_script: Callable[..., str]) -> None:
    error, found = run_script("read_only.py").splitlines()
    assert "segment-0.db" in error
    assert "is read-only" in error
    assert found == "before after"


def test_a_folder_in_place_of_the_file_is_named_and_recovers(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path) as log:
        shutil.move(log.path, tmp_path / "elsewhere")
        log.path.mkdir()
        with pytest.raises(LogUnavailable, match=r"segment-0\.db cannot be opened"):
            log.append_decision(records.make_record("a"))
        log.path.rmdir()
        log.append_decision(records.make_record("b"))
        assert log.decision("b").decision_id == "b"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogUnavailable, match="file/log"):
        DecisionLog(tmp_path / "file" / "log")


def test_a_deleted_segment_is_started_anew(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path) as log:
        log.append_decision(records.make_record("a"))
        for path in tmp_path.glob("*.db*"):
            path.unlink()
        log.append_decision(records.make_record("b"))
        assert log.decision("b").decision_id == "b"
    assert ids_in(tmp_path) == ["b"]


def fill(folder: Path, records: ModuleType, decisions: int = 50) -> Path:
    with DecisionLog(folder) as log:
        for number in range(decisions):
            log.append_decision(records.make_record(f"old-{number}"))
    return log.path


@pytest.mark.parametrize("damage", ["garbage", "truncated"])
def test_a_damaged_segment_is_moved_aside_at_opening(
    tmp_path: Path, records: ModuleType, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = fill(tmp_path, records)
    if damage == "garbage":
        path.write_bytes(b"not a database at all" * 1000)
    else:
        os.truncate(path, path.stat().st_size // 2)
    kept = path.read_bytes()
    with DecisionLog(tmp_path) as log:
        log.append_decision(records.make_record("new"))
        (aside,) = log.stats.moved_aside
    assert aside.name == "segment-0.db.corrupt-1"
    assert aside.read_bytes() == kept
    assert ids_in(tmp_path) == ["new"]
    assert "is damaged" in caplog.text
    assert str(aside) in caplog.text


def test_a_segment_cut_off_in_use_is_moved_aside(tmp_path: Path, records: ModuleType) -> None:
    fill(tmp_path, records)
    with DecisionLog(tmp_path) as log:
        log.append_decision(records.make_record("before"))
        os.truncate(log.path, log.path.stat().st_size // 2)
        log.append_decision(records.make_record("after"))
        assert [path.name for path in log.stats.moved_aside] == ["segment-0.db.corrupt-1"]
    assert ids_in(tmp_path) == ["after"]


def test_damage_found_in_use_costs_one_append(tmp_path: Path, records: ModuleType) -> None:
    path = fill(tmp_path, records, decisions=200)
    with closing(sqlite3.connect(path)) as connection:
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_decisions_1'"
        root = connection.execute(query).fetchone()[0]
    with path.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(b"\xff" * page_size)
    with DecisionLog(tmp_path) as log:
        with pytest.raises(LogUnavailable, match="is corrupt"):
            log.append_decision(records.make_record("refused"))
        log.append_decision(records.make_record("after"))
        assert len(log.stats.moved_aside) == 1
    assert ids_in(tmp_path) == ["after"]


def test_a_damaged_segment_of_another_worker_hides_only_itself(tmp_path: Path, records: ModuleType) -> None:
    with DecisionLog(tmp_path, worker="good") as good:
        good.append_decision(records.make_record("a"))
        (tmp_path / "segment-bad.db").write_bytes(b"nonsense" * 1000)
        assert good.decision("a").decision_id == "a"
        assert good.append_rewards([records.reward("a")]) == [True]
        with pytest.raises(LogUnavailable, match=r"segment-bad\.db"):
            good.decision("b")
    assert ids_in(tmp_path) == ["a"]


def test_a_segment_of_another_version_is_left_alone(tmp_path: Path, records: ModuleType) -> None:
    path = fill(tmp_path, records)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LogUnavailable, match="schema version 99"):
        DecisionLog(tmp_path)
    assert [entry.name for entry in tmp_path.glob("*corrupt*")] == []


def test_eight_threads_share_commits_and_lose_nothing(tmp_path: Path, records: ModuleType) -> None:
    # Patience: a disk may take seconds over one commit, and whoever waits that long would be told so.
    with DecisionLog(tmp_path, durability="power", busy_timeout_s=60.0) as log:

        def append(thread: int) -> None:
            for number in range(40):
                log.append_decision(records.make_record(f"{thread}-{number}"))
                assert log.append_rewards([records.reward(f"{thread}-{number}")]) == [True]

        threads = [threading.Thread(target=append, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = log.stats
    entries = list(read_log(tmp_path))
    assert sorted(entry.record.decision_id for entry in entries) == sorted(
        f"{thread}-{number}" for thread in range(8) for number in range(40)
    )
    assert all(len(entry.rewards) == 1 for entry in entries)
    assert (stats.appends, stats.failures) == (640, 0)
    assert stats.commits < stats.appends


def test_a_closed_log_says_so(tmp_path: Path, records: ModuleType) -> None:
    log = DecisionLog(tmp_path)
    log.close()
    log.close()
    with pytest.raises(LogUnavailable, match="was closed"):
        log.append_decision(records.make_record("a"))
