"""The ledger: what it grants is exact over threads, processes, kills and damage."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorank.hooks.errors import LogUnavailable
from explorank.hooks.limits import Kept, SqliteExposures

DAY = 86_400.0
NOON = 100.5 * DAY
ANN, BEN = b"ann", b"ben"

OpenLedger = Callable[..., SqliteExposures]


class Wall:
    """A clock on the wall that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def open_ledger(tmp_path: Path) -> Iterator[OpenLedger]:
    """Open ledgers on one file, as several processes would; closed after the test."""
    with ExitStack() as closing_them:

        def open_(**options: object) -> SqliteExposures:
            ledger = SqliteExposures(tmp_path / "exposures.db", **options)  # type: ignore[arg-type] - as given
            closing_them.callback(ledger.close)
            return ledger

        yield open_


def rows(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - a constant


# ---- the cap ------------------------------------------------------------------------------------


def test_what_is_left_is_granted_and_no_more(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    assert [ledger.spend(ANN, NOON, wanted, 5) for wanted in (3, 3, 3, 1)] == [3, 2, 0, 0]
    assert ledger.spend(BEN, NOON, 3, 5) == 3


def test_a_day_is_a_utc_day_of_the_requests_clock(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    midnight = 101 * DAY
    assert ledger.spend(ANN, midnight - 1e-3, 9, 5) == 5
    assert ledger.spend(ANN, midnight, 9, 5) == 5
    assert ledger.spend(ANN, midnight + DAY - 1e-3, 9, 5) == 0
    assert ledger.spend(ANN, -0.5, 9, 5) == 5  # a day before the epoch is one like any other


def test_slots_given_back_are_granted_again_after_the_next_refresh(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(), open_ledger()
    assert ledger.spend(ANN, NOON, 5, 5) == 5
    ledger.give_back(ANN, NOON, 2)
    ledger.give_back(ANN, NOON, 1)
    assert other.spend(ANN, NOON, 5, 5) == 0
    ledger.refresh()
    assert other.spend(ANN, NOON, 5, 5) == 3
    ledger.refresh()
    assert ledger.spend(ANN, NOON, 5, 5) == 0  # given back once


def test_a_lowered_cap_grants_nothing_to_who_is_beyond_it(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    ledger.spend(ANN, NOON, 5, 5)
    assert ledger.spend(ANN, NOON, 1, 3) == 0
    assert ledger.spend(ANN, NOON, 9, 7) == 2


EXAMPLES = count()

operations = st.lists(
    st.tuples(
        st.sampled_from(["spend", "spend", "spend", "give back", "refresh"]),
        st.integers(0, 1),  # which process
        st.integers(0, 2),  # which visitor
        st.integers(1, 4),  # how many slots
        st.integers(0, 1),  # which day
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqliteExposures, SqliteExposures]]:
    """Two ledgers on one file, as of two processes, for all examples; each example has visitors of its own."""
    path = tmp_path_factory.mktemp("pair") / "exposures.db"
    ledgers = SqliteExposures(path), SqliteExposures(path)
    yield ledgers
    for ledger in ledgers:
        ledger.close()


@settings(max_examples=150)
@given(steps=operations, cap=st.integers(1, 6))
def test_never_above_the_cap_whatever_the_order(
    pair: tuple[SqliteExposures, SqliteExposures],
    steps: list[tuple[str, int, int, int, int]],
    cap: int,
) -> None:
    example = next(EXAMPLES)
    explored: Counter[tuple[bytes, int]] = Counter()
    granted_to: dict[tuple[int, bytes, int], list[int]] = {}
    for what, process, who, slots, day in steps:
        ledger, visitor, time = pair[process], f"{example} {who}".encode(), NOON + day * DAY
        if what == "refresh":
            ledger.refresh()
        elif what == "spend":
            granted = ledger.spend(visitor, time, slots, cap)
            assert 0 <= granted <= slots
            explored[visitor, day] += granted
            granted_to.setdefault((process, visitor, day), []).append(granted)
        elif grants := [grant for grant in granted_to.get((process, visitor, day), []) if grant]:
            # A decision gives back at most what it was granted, once.
            granted_to[process, visitor, day].remove(grants[0])
            back = min(slots, grants[0])
            explored[visitor, day] -= back
            ledger.give_back(visitor, time, back)
        assert max(explored.values(), default=0) <= cap
    for ledger in pair:
        ledger.refresh()
    for (visitor, day), slots in explored.items():
        # Nor is anything lost on the way: what is left can still be had.
        assert pair[0].spend(visitor, NOON + day * DAY, 99, cap) == cap - slots


def test_threads_share_a_cap(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(patience_s=10.0), open_ledger(patience_s=10.0)
    granted: Counter[bytes] = Counter()
    adding = threading.Lock()
    start = threading.Barrier(8)

    def spend(ledger: SqliteExposures) -> None:
        start.wait()
        for number in range(40):
            visitor = b"%d" % (number % 3)
            slots = ledger.spend(visitor, NOON, 2, 25)
            with adding:
                granted[visitor] += slots

    threads = [threading.Thread(target=spend, args=(each,)) for each in (ledger, other) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert granted == {b"0": 25, b"1": 25, b"2": 25}


def run_spenders(path: Path, *arguments: object) -> Counter[bytes]:
    """Return what each visitor was granted, by all workers together."""
    script = Path(__file__).with_name("spenders.py")
    command = [sys.executable, str(script), str(path), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    granted: Counter[bytes] = Counter()
    for visitor, slots in json.loads(done.stdout):
        granted[b"%d" % visitor] += slots
    return granted


def test_processes_share_a_cap(open_ledger: OpenLedger, tmp_path: Path) -> None:
    # Each of 5 visitors is asked for about 160 slots: 400 requests for 2 on average.
    granted = run_spenders(tmp_path / "exposures.db", 4, 5, 50, 100)
    assert granted == {b"%d" % visitor: 50 for visitor in range(5)}
    assert [open_ledger().spend(b"%d" % visitor, 1_000.0, 1, 50) for visitor in range(5)] == [0] * 5


def test_a_kill_forgets_no_grant(open_ledger: OpenLedger, tmp_path: Path) -> None:
    granted = run_spenders(tmp_path / "exposures.db", 12, 3, 1_000_000, 1_000_000, "kill")
    assert len(granted) == 3
    ledger = open_ledger()
    for visitor, slots in granted.items():
        left = ledger.spend(visitor, 1_000.0, 10_000_000, 1_000_000)
        # A worker may have been killed between its grant and its word, each by at most 3 slots.
        assert 1_000_000 - slots - 12 * 3 <= left <= 1_000_000 - slots


# ---- kept decisions -----------------------------------------------------------------------------


def kept(decision_id: str, **changes: object) -> Kept:
    fields = {"surface": "home", "slots": 3, "question": b"q", "until": NOON + 60.0, **changes}
    return Kept(decision_id=decision_id, **fields)  # type: ignore[arg-type] - as given


def test_a_decision_is_kept_for_its_question_until_it_lapses(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(), open_ledger()
    ledger.spend(ANN, NOON, 1, None, kept("d1"))
    assert other.kept(ANN, "home", 3, b"q", NOON) == "d1"
    for asked in (
        (BEN, "home", 3, b"q"),
        (ANN, "search", 3, b"q"),
        (ANN, "home", 4, b"q"),
        (ANN, "home", 3, b"p"),
    ):
        assert other.kept(*asked, NOON) is None
    assert other.kept(ANN, "home", 3, b"q", NOON + 59.9) == "d1"
    assert other.kept(ANN, "home", 3, b"q", NOON + 60.0) is None
    other.spend(ANN, NOON, 1, None, kept("d2"))
    assert ledger.kept(ANN, "home", 3, b"q", NOON) == "d2"


def test_nothing_is_kept_where_nothing_was_granted(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    ledger.spend(ANN, NOON, 3, 3, kept("d1"))
    assert ledger.spend(ANN, NOON, 3, 3, kept("d2")) == 0
    assert ledger.kept(ANN, "home", 3, b"q", NOON) == "d1"


# ---- rejected, resting, shown, repeated ------------------------------------------------------------


def test_a_rejection_holds_everywhere_at_once_and_for_its_time(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(), open_ledger()
    ledger.reject(ANN, "i1", NOON, 60.0)
    ledger.reject(ANN, "i2", NOON, 600.0)
    for each in (ledger, other):
        assert each.rejected(ANN, NOON) == {"i1", "i2"}
        assert each.rejected(ANN, NOON + 60.0) == {"i2"}
        assert each.rejected(BEN, NOON) == frozenset()
    ledger.reject(ANN, "i2", NOON, 60.0)  # an older word does not shorten it
    assert other.rejected(ANN, NOON + 100.0) == {"i2"}


def test_a_rejection_that_cannot_be_written_holds_in_its_process_and_is_written_later(
    open_ledger: OpenLedger, tmp_path: Path
) -> None:
    ledger, other = open_ledger(patience_s=0.01), open_ledger()
    ledger.rejected(ANN, NOON)
    with closing(sqlite3.connect(tmp_path / "exposures.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        ledger.reject(ANN, "i1", NOON, 60.0)
        assert ledger.trouble is not None
        assert ledger.rejected(ANN, NOON) == {"i1"}
        assert other.rejected(ANN, NOON) == frozenset()
        holder.execute("ROLLBACK")
    ledger.refresh()
    assert ledger.trouble is None
    assert ledger.rejected(ANN, NOON) == other.rejected(ANN, NOON) == {"i1"}


def test_items_rest_at_once_here_and_after_a_refresh_elsewhere(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(), open_ledger()
    ledger.rest(ANN, ["i1", "i2"], NOON, 60.0)
    assert ledger.resting(ANN, NOON) == {"i1", "i2"}
    assert ledger.resting(ANN, NOON + 60.0) == ledger.resting(BEN, NOON) == frozenset()
    assert other.resting(ANN, NOON) == frozenset()
    ledger.refresh()
    assert ledger.resting(ANN, NOON) == other.resting(ANN, NOON) == {"i1", "i2"}
    other.wake(ANN, "i1")
    assert other.resting(ANN, NOON) == {"i2"}
    assert ledger.resting(ANN, NOON) == {"i1", "i2"}
    other.refresh()
    assert ledger.resting(ANN, NOON) == {"i2"}


def test_impressions_are_counted_over_processes_and_restarts(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(counts_items=True), open_ledger(counts_items=True)
    ids = np.array(["i1", "i2", "i3"])
    for _ in range(3):
        ledger.count_shown(["i1", "i2"])
    other.count_shown(["i2"])
    assert ledger.times_shown(ids).tolist() == [3, 3, 0]
    assert other.times_shown(ids).tolist() == [0, 1, 0]
    ledger.refresh()
    other.refresh()
    assert other.times_shown(ids).tolist() == [3, 4, 0]
    ledger.count_shown(["i1"])
    ledger.refresh()
    assert ledger.times_shown(ids).tolist() == [4, 4, 0]
    ledger.close()
    heir = open_ledger(counts_items=True)
    heir.refresh()
    assert heir.times_shown(ids).tolist() == [4, 4, 0]
    assert heir.times_shown(np.array([1, 2])).tolist() == [0, 0]


def test_the_items_shown_last_are_remembered(open_ledger: OpenLedger, tmp_path: Path) -> None:
    wall = Wall()
    ledger = open_ledger(counts_items=True, items_at_most=10, wall_clock=wall)
    for number in range(30):
        ledger.count_shown([f"i{number}", "always"])
        ledger.refresh()
    wall.now += 60.0
    ledger.refresh()
    assert rows(tmp_path / "exposures.db", "shown") == 10
    ledger.refresh()
    ids = np.array(["always", "i29", "i0"])
    assert ledger.times_shown(ids).tolist() == [30, 1, 0]


def test_a_repeat_leads_to_its_original(open_ledger: OpenLedger) -> None:
    ledger, other = open_ledger(), open_ledger()
    ledger.repeat("d2", "d1", NOON, 60.0)
    assert (ledger.original("d2"), ledger.original("d1")) == ("d1", "d1")
    ledger.refresh()
    assert (ledger.original("d2"), other.original("d2")) == ("d1", "d1")


def test_a_visitor_is_forgotten(open_ledger: OpenLedger, tmp_path: Path) -> None:
    ledger = open_ledger()
    for visitor in (ANN, BEN):
        ledger.spend(visitor, NOON, 3, 3, kept("d"))
        ledger.reject(visitor, "i1", NOON, 60.0)
        ledger.rest(visitor, ["i2"], NOON, 60.0)
        ledger.refresh()
        ledger.rest(visitor, ["i3"], NOON, 60.0)
        ledger.give_back(visitor, NOON, 1)
    ledger.forget(ANN)
    ledger.refresh()
    assert [rows(tmp_path / "exposures.db", table) for table in ("spent", "kept", "rejected", "resting")] == [
        1,
        1,
        1,
        2,
    ]
    assert ledger.rejected(ANN, NOON) | ledger.resting(ANN, NOON) == frozenset()


# ---- bounds ---------------------------------------------------------------------------------------


def test_what_has_passed_by_both_clocks_is_dropped(open_ledger: OpenLedger, tmp_path: Path) -> None:
    wall = Wall()
    ledger = open_ledger(wall_clock=wall)
    for number in range(600):
        visitor = b"%d" % number
        ledger.spend(visitor, NOON, 1, 3, kept("d"))
        ledger.reject(visitor, "i", NOON, 60.0)
        ledger.rest(visitor, ["i"], NOON, 60.0)
        ledger.repeat(f"d{number}", "d", NOON, 60.0)
    ledger.refresh()
    tables = ("spent", "kept", "rejected", "resting", "repeats")

    def left() -> list[int]:
        ledger.refresh()
        return [rows(tmp_path / "exposures.db", table) for table in tables]

    assert left() == [600] * 5
    # A request from the future clears nothing, nor does a wall clock that runs while requests replay a day.
    ledger.spend(BEN, NOON + 1e6, 1, 3)
    wall.now += 30.0
    assert left() == [601, 600, 600, 600, 600]
    wall.now += 60.0
    assert left() == [601, 0, 0, 0, 0]
    wall.now += DAY
    assert left() == [1, 0, 0, 0, 0]


def test_a_standing_request_clock_keeps_what_it_has(open_ledger: OpenLedger) -> None:
    wall = Wall()
    ledger = open_ledger(wall_clock=wall)
    ledger.spend(ANN, NOON, 3, 3)
    wall.now += 10 * DAY
    ledger.refresh()
    assert ledger.spend(ANN, NOON, 3, 3) == 0


# ---- trouble --------------------------------------------------------------------------------------


def test_a_ledger_that_cannot_be_opened_grants_nothing_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "place").write_text("a file, not a folder")
    ledger = SqliteExposures(tmp_path / "place" / "exposures.db")
    with pytest.raises(LogUnavailable, match=r"exposures\.db"):
        ledger.spend(ANN, NOON, 1, 3)
    assert ledger.trouble is not None
    ledger.rest(ANN, ["i1"], NOON, 60.0)
    ledger.count_shown(["i1"])
    ledger.reject(ANN, "i1", NOON, 60.0)
    ledger.refresh()
    (tmp_path / "place").unlink()
    assert ledger.spend(ANN, NOON, 1, 3) == 1
    assert ledger.trouble is None
    ledger.refresh()
    assert ledger.rejected(ANN, NOON) == ledger.resting(ANN, NOON) == {"i1"}
    ledger.close()


def test_a_lock_that_is_not_let_go_costs_the_patience_and_no_more(
    open_ledger: OpenLedger, tmp_path: Path
) -> None:
    ledger = open_ledger(patience_s=0.3)
    ledger.spend(ANN, NOON, 1, 3)
    with closing(sqlite3.connect(tmp_path / "exposures.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable, match="locked"):
            ledger.spend(ANN, NOON, 1, 3)
        assert ledger.rejected(ANN, NOON) == frozenset()  # readers don't wait for writers
        # Nor does anybody else for a while, where each of four would 0.3 s. A busy machine may hold one try up.
        assert any(seconds_in_vain(ledger, calls=4) < 1.2 for _ in range(20))
        holder.execute("ROLLBACK")
    assert ledger.spend(ANN, NOON, 9, 3) == 2


def seconds_in_vain(ledger: SqliteExposures, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        with pytest.raises(LogUnavailable, match="locked"):
            ledger.spend(ANN, NOON, 1, 3)
    return time.perf_counter() - begin


@pytest.mark.parametrize("damage", ["garbage", "cut short", "a page within"])
def test_a_damaged_file_is_moved_aside_and_grants_nothing_until_the_next_day(
    open_ledger: OpenLedger, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "exposures.db"
    ledger = open_ledger()
    for number in range(2_000):
        ledger.reject(b"%d" % number, "i1", NOON, 60.0)
    assert ledger.spend(ANN, NOON, 1, 3) == 1
    ledger.close()
    content = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"not a database" * 100)
    elif damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with caplog.at_level(logging.CRITICAL):
        for item, each in (("i1", open_ledger()), ("i2", open_ledger())):
            with pytest.raises(LogUnavailable):
                each.spend(ANN, NOON, 1, 3)
            with pytest.raises(LogUnavailable, match="next UTC day"):
                each.spend(BEN, NOON + 60.0, 1, 3)
            assert item not in each.rejected(ANN, NOON)
            each.reject(ANN, item, NOON, 60.0)
            assert item in each.rejected(ANN, NOON)
            assert each.spend(ANN, NOON, 1, None) == 1  # what is not capped need not be known
        assert each.spend(ANN, NOON + DAY, 9, 3) == 3
    assert len(list(tmp_path.glob("*.corrupt-*[0-9]"))) == 1
    assert not list(tmp_path.glob("*.lost"))


def test_a_file_that_is_damaged_while_in_use_is_replaced_for_all_who_use_it(
    open_ledger: OpenLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "exposures.db"
    ledgers = [open_ledger(), open_ledger()]
    for ledger in ledgers:
        assert ledger.spend(ANN, NOON, 1, 9) == 1
    os.truncate(path, 100)
    with caplog.at_level(logging.CRITICAL):
        for ledger in ledgers:
            with pytest.raises(LogUnavailable):
                ledger.spend(ANN, NOON, 1, 9)
            assert ledger.spend(ANN, NOON + DAY, 1, 9) == 1
    assert len(list(tmp_path.glob("*.corrupt-*[0-9]"))) == 1


def test_a_deleted_file_begins_anew_for_all_who_use_it(open_ledger: OpenLedger, tmp_path: Path) -> None:
    ledgers = [open_ledger(), open_ledger()]
    for ledger in ledgers:
        ledger.spend(ANN, NOON, 1, 3)
    for part in tmp_path.glob("exposures.db*"):
        part.unlink()
    assert [ledger.spend(ANN, NOON, 2, 3) for ledger in ledgers] == [2, 1]


def test_a_file_of_another_version_is_left_alone(open_ledger: OpenLedger, tmp_path: Path) -> None:
    open_ledger().refresh()
    with closing(sqlite3.connect(tmp_path / "exposures.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LogUnavailable, match="schema version 99"):
        open_ledger().spend(ANN, NOON, 1, 3)


def test_what_cannot_be_stored_spoils_nothing_else(open_ledger: OpenLedger) -> None:
    ledger = open_ledger(counts_items=True)
    broken = "half a \ud800"
    ledger.rest(ANN, ["i1", broken], NOON, 60.0)
    ledger.wake(ANN, broken)
    ledger.count_shown(["i1", broken])
    ledger.reject(ANN, broken, NOON, 60.0)
    ledger.reject(ANN, "i2", float("nan"), 60.0)
    ledger.repeat(broken, "d", NOON, 60.0)
    ledger.refresh()
    assert ledger.trouble is None
    other = open_ledger(counts_items=True)
    other.refresh()
    assert (other.resting(ANN, NOON), other.rejected(ANN, NOON)) == ({"i1"}, frozenset())
    assert other.times_shown(np.array(["i1"])).tolist() == [1]


def test_a_closed_ledger_and_a_forked_one_refuse(open_ledger: OpenLedger) -> None:
    ledger = open_ledger()
    ledger.spend(ANN, NOON, 1, 3)
    ledger._pid += 1
    ledger._file = None
    with pytest.raises(LogUnavailable, match="do not survive a fork"):
        ledger.spend(ANN, NOON, 1, 3)
    ledger._pid -= 1
    ledger.close()
    with pytest.raises(LogUnavailable, match="was closed"):
        ledger.rejected(ANN, NOON)
    ledger.refresh()
    ledger.close()
