"""Caps, explorable candidates, repeats and rejections, from the settings to the answer."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorank import Decision, Stage, load
from explorank.budgets import forget_visitor
from explorank.checks import run_checks
from explorank.explorer import Explorer
from explorank.hooks import hookimpl
from explorank.hooks.evaluation import replay, target_propensities
from explorank.hooks.feedback import DecisionLog, read_log
from explorank.hooks.limits import SqliteExposures
from explorank.hooks.registry import Registry
from explorank.hooks.types import (
    BoolArray,
    Features,
    IndexArray,
    RankingBatch,
    RankingRequest,
    Scores,
    Slate,
)
from explorank.settings import parse_settings
from explorank.testing.bounds import freedman

OpenStage = Callable[..., Stage]

ITEMS = [f"i{number}" for number in range(12)]
SCORES = np.linspace(2.0, 0.9, 12)
BEST = tuple(ITEMS)
NOON = 20_000.5 * 86_400.0
DAY = 86_400.0
ANYTHING = {"use": "epsilon_greedy", "epsilon": 1.0}


class Clock:
    """The requests' clock; it moves when a test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_limited(open_stage: OpenStage, clock: Clock) -> OpenStage:
    """Open a live stage whose slots hold anything, with limits and the test's clock."""

    def open_(
        budget: dict[str, Any] | None = None,
        stability: dict[str, Any] | None = None,
        plugins: tuple[object, ...] = (),
        **exploration: Any,
    ) -> Stage:
        limits = {"budget": budget or {}, "stability": stability or {}}
        feedback = {"rewards": {"click": 1.0, "dismiss": 0.0}}
        changes = {"exploration": {"policy": ANYTHING, **limits, **exploration}, "feedback": feedback}
        stage = open_stage(changes, plugins=plugins)
        return Stage(dataclasses.replace(stage.installation, clock=clock))

    return open_


def ask(stage: Stage, user: str | None = "ann", slots: int = 3, **more: Any) -> Decision:
    return stage.explore(ITEMS, SCORES, user_id=user, slots=slots, **more)


def explored(decision: Decision) -> list[int]:
    return [slot for slot, method in enumerate(decision.methods) if method == "explore"]


def held_back(stage: Stage, decision: Decision) -> str:
    return stage.decision(decision.decision_id).held_back


def logged(stage: Stage) -> list[str]:
    return [entry.record.decision_id for entry in read_log(stage.installation.log.folder)]


# ---- the cap --------------------------------------------------------------------------------------


def test_the_first_slots_explore_while_the_day_s_budget_lasts(open_limited: OpenStage, clock: Clock) -> None:
    stage = open_limited({"per_user_per_day": 5}, slots=[0, 2, 3])
    first, second, third = (ask(stage, slots=4) for _ in range(3))
    assert [explored(decision) for decision in (first, second, third)] == [[0, 2, 3], [0, 2], []]
    assert third.items == BEST[:4]
    assert third.propensities == (1.0,) * 4
    assert (third.mode, third.arm, third.fallbacks, third.logged) == ("live", "explore", (), True)
    assert held_back(stage, first) == ""
    assert "cap per user and day (5) leaves 2 of 3 slots" in held_back(stage, second)
    assert "cap per user and day (5) leaves 0 of 3 slots" in held_back(stage, third)
    assert explored(ask(stage, "ben", slots=4)) == [0, 2, 3]
    clock.now += DAY / 2
    assert explored(ask(stage, slots=4)) == [0, 2, 3]
    assert stage.status()["limits"]["withheld_slots"] == 4


def test_sessions_are_counted_and_nobody_is_not_explored_with(open_limited: OpenStage) -> None:
    stage = open_limited({"per_user_per_day": 4})
    for session in ("s1", "s2"):
        asked = [ask(stage, None, context={"session_id": session}) for _ in range(2)]
        assert [len(explored(decision)) for decision in asked] == [3, 1]
    nobody = ask(stage, None)
    assert nobody.items == BEST[:3]
    assert "names neither" in held_back(stage, nobody)


@pytest.mark.parametrize(
    ("mode", "holdout"), [("shadow", 0.0), ("apprentice", 0.0), ("off", 0.0), ("live", 0.999999)]
)
def test_only_what_is_shown_is_counted(
    open_limited: OpenStage, tmp_path: Path, mode: str, holdout: float
) -> None:
    stage = open_limited({"per_user_per_day": 3}, mode=mode, holdout=holdout)
    for _ in range(4):
        decision = ask(stage)
        assert decision.items == BEST[:3]
        shadow = stage.decision(decision.decision_id).shadow
        assert (shadow is not None) == (mode in {"shadow", "apprentice"})
    with closing(sqlite3.connect(tmp_path / ".explorank" / "exposures.db")) as connection:
        assert connection.execute("SELECT count(*) FROM spent").fetchone() == (0,)


def test_slots_whose_decision_could_not_be_logged_are_given_back(open_limited: OpenStage) -> None:
    stage = open_limited({"per_user_per_day": 3})
    place = stage.installation.log.folder
    place.rename(place.with_name("aside"))
    place.write_text("not a folder")
    assert not ask(stage).logged
    place.unlink()
    place.with_name("aside").rename(place)
    stage.installation.exposures.refresh()
    assert explored(ask(stage)) == [0, 1, 2]


def test_a_slate_shorter_than_asked_for_costs_what_it_explored(open_limited: OpenStage) -> None:
    stage = open_limited({"per_user_per_day": 5})
    assert explored(stage.explore(ITEMS[:2], SCORES[:2], user_id="ann", slots=9)) == [0, 1]
    assert explored(ask(stage)) == [0, 1, 2]
    assert explored(ask(stage)) == []


def test_concurrent_requests_of_one_user_share_the_cap(
    open_limited: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whom another thread keeps waiting beyond its patience explores nothing, and the cap may not be reached.
    monkeypatch.setattr("explorank.assembly.SqliteExposures", partial(SqliteExposures, patience_s=60.0))
    monkeypatch.setattr("explorank.assembly.DecisionLog", partial(DecisionLog, busy_timeout_s=60.0))
    stages = [open_limited({"per_user_per_day": 20}) for _ in range(2)]
    slots: list[int] = []
    start = threading.Barrier(8)

    def asks(stage: Stage) -> None:
        start.wait()
        slots.extend(len(explored(ask(stage))) for _ in range(5))

    threads = [threading.Thread(target=asks, args=(stage,)) for stage in stages for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(slots) == 40
    assert sum(slots) == 20


@pytest.mark.slow
def test_processes_share_the_cap(tmp_path: Path) -> None:
    data = {
        "version": 1,
        "ranker": None,
        "retrieval": {"retrievers": []},
        "exploration": {
            "mode": "live",
            "holdout": 0.0,
            "policy": ANYTHING,
            "budget": {"per_user_per_day": 31},
            "stability": {"keep_s": 1800},
        },
    }
    (tmp_path / "explorank.yaml").write_text(json.dumps(data), encoding="utf-8")
    script = Path(__file__).with_name("ask_as_ann.py")
    before = int(time.time() // DAY)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "explorank.yaml", "12", "one", "two", "three"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    # 36 requests for 3 slots each; where midnight passed meanwhile, two days' worth may have been granted.
    assert sum(map(sum, answers)) == 31 or int(time.time() // DAY) > before
    explored_in_log = [
        entry.record.slate.method.count("explore") for entry in read_log(tmp_path / ".explorank" / "log")
    ]
    assert len(explored_in_log) == 36
    assert sum(explored_in_log) == sum(map(sum, answers))


class Explores:
    """A third party's explorer: shows the last items, explored in all slots, whatever limits say."""

    def __init__(self) -> None:
        self.asked: list[RankingRequest] = []
        self.obeys = False

    @hookimpl
    def ranking_explore(self, request: RankingRequest, ranking: RankingBatch, n_slots: int) -> Slate:
        self.asked.append(request)
        n, order = len(ranking), np.arange(len(ranking))[::-1][:n_slots]
        may = set(range(n_slots)) if request.allowance is None else set(request.allowance.slots)
        method = tuple("explore" if slot in may or not self.obeys else "score" for slot in range(n_slots))
        chance = np.where(np.array(method) == "explore", 0.5, 1.0)
        every = np.ones((n_slots, n), np.bool_)
        return Slate(order, chance, method, "mine", 0, eligible=every, support=every)  # type: ignore[arg-type] - method


def test_another_explorer_is_told_of_the_limits_and_held_to_them(open_limited: OpenStage) -> None:
    explores = Explores()
    stage = open_limited({"per_user_per_day": 4}, plugins=(explores,))
    assert explored(ask(stage)) == [0, 1, 2]
    beyond = ask(stage)  # 1 slot is left, it explores in 3
    assert (beyond.items, beyond.policy) == (BEST[:3], "greedy")
    assert "keep to `request.allowance`" in beyond.fallbacks[0].reason
    assert explored(ask(stage)) == []
    stage.installation.exposures.refresh()  # the slot that did not explore is given back
    explores.obeys = True
    obeying = ask(stage), ask(stage, "ben")
    assert [decision.policy for decision in obeying] == ["mine", "mine"]
    assert [request.allowance.slots for request in explores.asked[-2:]] == [(0,), (0, 1, 2)]  # type: ignore[union-attr] - limits are set


# ---- explorable candidates ------------------------------------------------------------------------


class Columns:
    """Knows two columns of each item; the second half of the items is new."""

    @hookimpl
    def ranking_enrich(self, candidates: Any) -> Features:
        numbers = np.array([int(item[1:]) for item in candidates.item_ids.tolist()], np.float32)
        return Features(("number", "item_first_event"), np.stack([numbers, 24.0 - 2.0 * numbers], axis=1))


def rows_by_column(open_limited: OpenStage, *rules: dict[str, Any], **more: Any) -> Stage:
    # Columns are looked up for the host's own candidates where the policy wants features.
    return open_limited({"candidates": list(rules)}, plugins=(Columns(),), features=["number"], **more)


def test_explored_slots_choose_among_the_explorable(open_limited: OpenStage) -> None:
    stage = rows_by_column(open_limited, {"new_within_days": 6}, {"column": "number", "below": 1})
    found: Counter[str] = Counter()
    for number in range(30):
        decision = ask(stage, f"user {number}", slots=5)
        assert decision.fallbacks == ()
        # i0 and i9, i10, i11: when all four stand there the last slot holds the best of the others.
        assert explored(decision) == [0, 1, 2, 3]
        assert decision.items[4] == "i1"
        assert decision.propensities == pytest.approx((1 / 4, 1 / 3, 1 / 2, 1.0, 1.0))
        found.update(decision.items[:4])
    assert found == {"i0": 30, "i9": 30, "i10": 30, "i11": 30}


def test_where_nobody_is_explorable_the_baseline_is_shown_and_nothing_is_spent(
    open_limited: OpenStage,
) -> None:
    stage = open_limited(
        {"candidates": [{"column": "number", "at_least": 99}], "per_user_per_day": 3},
        plugins=(Columns(),),
        features=["number"],
    )
    decision = ask(stage)
    assert (decision.items, decision.fallbacks) == (BEST[:3], ())
    assert "no candidate is explorable" in held_back(stage, decision)
    assert stage.status()["limits"]["withheld_slots"] == 0


def test_a_column_nobody_brings_is_told_and_explores_nobody(open_limited: OpenStage) -> None:
    stage = open_limited({"candidates": [{"column": "weather", "below": 1.0}]})
    decision = ask(stage)
    assert decision.items == BEST[:3]
    (fallback,) = decision.fallbacks
    assert (fallback.step, "'weather'" in fallback.reason) == ("explore", True)


def test_the_ranker_s_uncertainty_makes_explorable(open_books: OpenStage) -> None:
    class Ranks:
        @hookimpl
        def ranking_score(self, candidates: Any) -> Scores:
            doubtful = np.array([item.startswith("sea") for item in candidates.item_ids.tolist()])
            return Scores(np.arange(len(candidates), 0.0, -1.0), np.where(doubtful, 0.3, 0.1))

    stage = open_books(
        {"exploration": {"policy": ANYTHING, "budget": {"candidates": [{"uncertainty_from": 0.2}]}}},
        plugins=(Ranks(),),
    )
    for number in range(5):
        decision = stage.rank(user_id=f"reader-{number}", slots=9)
        assert explored(decision) == [2, 5, 8]
        assert all(decision.items[slot].startswith("sea") for slot in (2, 5, 8))


def test_what_was_shown_often_enough_is_not_explored_any_more(open_limited: OpenStage) -> None:
    stage, other = (open_limited({"candidates": [{"impressions_below": 3}]}) for _ in range(2))
    shown: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    for number in range(30):
        decision = ask(stage, f"user {number}", slots=2)
        assert all(shown[decision.items[slot]] < 3 for slot in explored(decision))
        shown.update(decision.items)
        drawn.update(decision.items[slot] for slot in explored(decision))
    assert sum(drawn.values()) <= 36
    assert min(shown[item] for item in ITEMS) == 3
    assert explored(decision) == []
    # What one process counted, another knows after both have refreshed.
    assert explored(ask(other, "somebody", slots=1)) == [0]
    for each in (stage, other):
        each.installation.exposures.refresh()
    assert explored(ask(other, "somebody else", slots=1)) == []


@pytest.mark.slow
def test_propensities_stay_exact_with_cap_and_rules(open_limited: OpenStage) -> None:
    """12,000 requests of 6,000 visitors: the mean of 1{shown}/propensity is 1 for every item that is possible.

    Five slots a day let the first request of a visitor explore in three slots and the second in two. Fails by
    chance at most once in 10^6 (Freedman's bound, corrected for all turns, slots and items).
    """
    epsilon, n, slots = 0.4, 6, 3
    candidates = [{"column": "number", "below": 4}, {"column": "number", "at_least": 5}]
    stage = open_limited(
        {"per_user_per_day": 5, "candidates": candidates},
        policy={"use": "epsilon_greedy", "epsilon": epsilon},
    )
    explorer: Explorer = stage.installation.decider._explorer
    ranking = RankingBatch(
        np.array(ITEMS[:n]), scores=np.arange(n, 0.0, -1.0), columns={"number": np.arange(n)}
    )
    explorable = np.array([True, True, True, True, False, True])
    difference, variance, largest, possible = np.zeros((4, 2, slots, n))
    for number in range(6_000):
        for turn in range(2):
            seed = 2 * number + turn
            request = RankingRequest(decision_id=str(seed), slots=slots, user_id=f"v{number}", time=NOON)
            slate = explorer.explore(request, ranking, slots, seed, []).slate
            assert slate.method == (("explore",) * 3, ("explore", "explore", "score"))[turn]
            for slot, row in enumerate(slate.order.tolist()):
                free = np.ones(n, np.bool_) if slate.method[slot] == "score" else explorable.copy()
                free[slate.order[:slot]] = False
                best = int(np.argmax(free))
                if slate.method[slot] == "score":
                    assert (row, slate.propensities[slot]) == (best, 1.0)
                    continue
                chance = np.where(free, epsilon / free.sum(), 0.0)
                chance[best] += 1.0 - epsilon
                assert slate.propensities[slot] == pytest.approx(chance[row], rel=1e-12)
                inverse = np.divide(1.0, chance, out=np.zeros(n), where=free)
                difference[turn, slot] -= free
                difference[turn, slot, row] += inverse[row]
                variance[turn, slot] += np.maximum(inverse - 1.0, 0.0) * free
                largest[turn, slot] = np.maximum(largest[turn, slot], inverse)
                possible[turn, slot] += free
    seen = possible > 0
    assert seen.sum() == 5 * 5  # five explored slots of five explorable items
    bound = freedman(variance[seen], largest[seen], 1e-6 / seen.sum())
    assert (np.abs(difference[seen]) <= bound).all()
    # The bound is of use: in no place could the mean be off by more than a third unnoticed.
    assert (bound / possible[seen]).max() < 1 / 3


@pytest.mark.parametrize(
    "policy",
    [
        {"use": "epsilon_greedy", "epsilon": 0.4},
        {"use": "plackett_luce", "temperature": 0.5},
        {"use": "beta_thompson", "draws": 64, "floor": 0.1},
    ],
    ids=lambda policy: policy["use"],
)
def test_the_log_gives_the_propensities_of_limited_slates_back(
    open_limited: OpenStage, policy: dict[str, Any]
) -> None:
    stage = open_limited(
        {"per_user_per_day": 5, "candidates": [{"column": "number", "at_least": 3}]},
        plugins=(Columns(),),
        features=["number"],
        policy=policy,
    )
    state = stage.installation.learner.snapshot
    for number in range(10):
        for _ in range(2):
            decision = ask(stage, f"user {number}", slots=4)
            record = stage.decision(decision.decision_id)
            again = target_propensities(record, stage.installation.policy, state)
            np.testing.assert_allclose(again, decision.propensities, rtol=1e-12)
            slate = replay(record, stage.installation.policy, state)
            assert slate.order.tolist() == record.slate.order.tolist()
        assert explored(decision) == [0]


# ---- the same decision again ----------------------------------------------------------------------


def test_the_same_decision_is_served_again(open_limited: OpenStage, clock: Clock) -> None:
    stage = open_limited({"per_user_per_day": 3}, {"keep_s": 1800})
    first = ask(stage)
    clock.now += 1799.0
    again = ask(stage)
    assert again.repeated
    assert not first.repeated
    assert dataclasses.replace(again, repeated=False) == first
    assert logged(stage) == [first.decision_id]
    assert stage.status()["limits"]["repeats"] == 1
    # It cost nothing: the cap held both times, and the decision that follows gets nothing.
    clock.now += 1.0
    later = ask(stage)
    assert (later.repeated, explored(later)) == (False, [])


def test_its_rewards_join_the_original_and_count_once(open_limited: OpenStage, clock: Clock) -> None:
    stage = open_limited(stability={"keep_s": 1800}, policy={"use": "beta_thompson"})
    stage.installation.learner.stop()  # its clock is not the test's
    first, again = ask(stage), ask(stage)
    assert again.decision_id == first.decision_id
    for decision in (first, again):
        stage.shown(decision.decision_id, decision.items)
    assert stage.reward(first.decision_id, slot=0)
    assert not stage.reward(again.decision_id, slot=0)
    assert stage.reward(again.decision_id, slot=1)
    stage.installation.learner.step(clock.now + 2 * DAY)
    assert stage.installation.learner.stats.folded == 3
    assert stage.installation.learner.stats.late == 0


@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ({}, True),
        ({"context": {"history": ["i1"], "seen": ["i5"], "session_id": "s"}}, True),
        ({"context": {"page": 2}}, False),
        ({"surface": "search"}, False),
        ({"slots": 2}, False),
        ({"user": "ben"}, False),
        ({"user": None}, False),
    ],
)
def test_what_makes_it_another_question(
    open_limited: OpenStage, change: dict[str, Any], repeated: bool
) -> None:
    stage = open_limited(stability={"keep_s": 1800})
    first = ask(stage)
    second = ask(stage, **change)
    assert (second.repeated, second.decision_id == first.decision_id) == (repeated, repeated)
    # An answer to another question does not displace the first one.
    assert ask(stage).decision_id == first.decision_id


def test_the_context_that_counts_is_a_setting(open_limited: OpenStage) -> None:
    stage = open_limited(stability={"keep_s": 1800, "ignore_context": ["trace"]})
    first = ask(stage, context={"history": ["i1"], "trace": 1})
    assert ask(stage, context={"history": ["i1"], "trace": 2}).decision_id == first.decision_id
    assert not ask(stage, context={"history": ["i2"], "trace": 1}).repeated


def test_similar_to_and_what_plugins_know_of_the_user(open_books: OpenStage) -> None:
    stage = open_books({"exploration": {"stability": {"keep_s": 1800}}})
    first = stage.rank(user_id="reader-1", slots=6)
    assert stage.rank(user_id="reader-1", slots=6).repeated
    # A click changes what plugins know of the user, not the question.
    stage.reward(first.decision_id, slot=0)
    again = stage.rank(user_id="reader-1", slots=6)
    assert (again.repeated, again.items) == (True, first.items)
    assert not stage.rank(user_id="reader-1", slots=6, similar_to="sea-1").repeated
    assert stage.rank(user_id="reader-1", slots=6, similar_to="sea-1").repeated
    assert stage.rank(user_id="reader-1", slots=6).decision_id == first.decision_id


class NoNeighbours:
    """A guard on the slate so far, which a test switches on: no item follows the one numbered before it."""

    acts = False

    def eligible(
        self, request: RankingRequest, batch: RankingBatch, placed: IndexArray, slot: int
    ) -> BoolArray:
        numbers = np.array([int(item[1:]) for item in batch.item_ids.tolist()])
        if not len(placed) or not self.acts:
            return np.ones(len(batch), np.bool_)
        return np.asarray(abs(numbers - numbers[placed[-1]]) != 1)


def test_it_is_decided_anew_where_an_item_may_not_be_shown_any_more(
    open_stage: OpenStage, tmp_path: Path
) -> None:
    class Registers:
        @hookimpl
        def ranking_register_components(self, registry: Registry) -> None:
            registry.guard("no_neighbours", NoNeighbours)

    (tmp_path / "blocked.txt").write_text("")
    exploration = {"policy": ANYTHING, "stability": {"keep_s": 1800}}
    guards = [{"use": "block_list", "path": "blocked.txt"}, {"use": "already_seen"}, {"use": "no_neighbours"}]
    stage = open_stage({"exploration": exploration, "guards": guards}, plugins=(Registers(),))
    users = (f"user {number}" for number in count())

    def decided_anew(**change: Any) -> bool:
        return not ask(stage, user, slots=4, **change).repeated

    def begin() -> tuple[str, Decision]:
        user = next(users)
        first = ask(stage, user, slots=4)
        assert ask(stage, user, slots=4).repeated
        return user, first

    user, first = begin()
    assert decided_anew(exclude=[first.items[2]])
    user, first = begin()
    assert decided_anew(context={"seen": [first.items[0]]})
    user, first = begin()
    (tmp_path / "blocked.txt").write_text(first.items[3])
    assert decided_anew()
    (tmp_path / "blocked.txt").write_text("")
    user, first = begin()
    rest = [row for row, item in enumerate(ITEMS) if item != first.items[1]]
    assert not stage.explore([ITEMS[r] for r in rest], SCORES[rest], user_id=user, slots=4).repeated
    while True:
        user, first = begin()
        numbers = [int(item[1:]) for item in first.items]
        if 1 in np.abs(np.diff(numbers)):
            break
    guard = stage.installation.guards[2]
    guard.acts = True  # type: ignore[attr-defined] - the guard above
    assert decided_anew()
    # The candidates' order does not matter.
    guard.acts = False  # type: ignore[attr-defined] - the guard above
    user, first = begin()
    again = stage.explore(ITEMS[::-1], SCORES[::-1], user_id=user, slots=4)
    assert (again.repeated, again.items) == (True, first.items)


def test_a_short_slate_is_kept_until_more_could_be_shown(open_limited: OpenStage) -> None:
    stage = open_limited(stability={"keep_s": 1800})
    first = stage.explore(ITEMS[:2], SCORES[:2], user_id="ann", slots=3)
    assert stage.explore(ITEMS[:2], SCORES[:2], user_id="ann", slots=3).decision_id == first.decision_id
    assert len(ask(stage).items) == 3


def test_no_explored_slate_where_nothing_may_explore(open_limited: OpenStage, clock: Clock) -> None:
    stability = {"keep_s": 1800}
    stage = open_limited(stability=stability)
    first = ask(stage)
    stage.kill_switch.engage("test")
    stopped = ask(stage)
    assert (stopped.items, stopped.repeated, stopped.mode) == (BEST[:3], False, "off")
    stage.kill_switch.release()
    assert ask(stage).decision_id == first.decision_id
    for other in ({"mode": "shadow"}, {"mode": "off"}, {"holdout": 0.999999}, {"surfaces": ["search"]}):
        decision = ask(open_limited(stability=stability, **other))
        assert (decision.items, decision.repeated) == (BEST[:3], False)
    # Other settings of exploration decide anew.
    assert not ask(open_limited(stability=stability, slots=[0])).repeated
    assert ask(stage).decision_id != first.decision_id  # that one is the newest now


def test_a_decision_is_kept_over_processes_and_restarts(open_limited: OpenStage) -> None:
    first_stage, second_stage = (open_limited(stability={"keep_s": 1800}) for _ in range(2))
    first = ask(first_stage)
    again = ask(second_stage)
    assert (again.repeated, again.decision_id, again.items) == (True, first.decision_id, first.items)
    second_stage.reward(again.decision_id, slot=1)
    (entry,) = read_log(first_stage.installation.log.folder)
    assert [reward.decision_id for reward in entry.rewards] == [first.decision_id]


def test_a_baseline_is_not_kept(open_limited: OpenStage) -> None:
    stage = open_limited({"per_user_per_day": 3}, {"keep_s": 1800})
    ask(stage, surface="home")
    decisions = [ask(stage, surface="search") for _ in range(2)]
    assert [decision.items for decision in decisions] == [BEST[:3]] * 2
    assert decisions[0].decision_id != decisions[1].decision_id


# ---- what was rejected, and what earned nothing ---------------------------------------------------


def test_a_rejected_item_is_hidden_from_its_visitor_everywhere(open_limited: OpenStage, clock: Clock) -> None:
    stability = {"rejections": ["dismiss"], "rejected_s": 600, "keep_s": 1800}
    stage, other = (open_limited(stability=stability) for _ in range(2))
    first = ask(stage, slots=4)
    gone = first.items[2]
    stage.reward(first.decision_id, slot=2, kind="dismiss")
    for each in (stage, other):
        for surface in ("default", "search"):
            decision = ask(each, slots=12, surface=surface)
            assert set(decision.items) == set(ITEMS) - {gone}
        assert ask(each, slots=4).decision_id != first.decision_id
        assert set(ask(each, "ben", slots=12).items) == set(ITEMS)
        each.kill_switch.engage("test")
        assert gone not in ask(each, slots=12).items
        each.kill_switch.release()
    clock.now += 600.0
    assert gone in ask(stage, slots=12, context={"page": 2}).items
    assert stage.status()["limits"]["rejections"] == 1


def test_a_session_s_rejection_and_one_known_from_the_log_only(open_limited: OpenStage) -> None:
    stability = {"rejections": ["dismiss"]}
    stage, other = (open_limited(stability=stability) for _ in range(2))
    context = {"session_id": "s1"}
    first = ask(stage, None, slots=12, context=context)
    other.reward(first.decision_id, item_id="i3", kind="dismiss")  # another process takes the reward
    other.reward(first.decision_id, item_id="i3", kind="dismiss")
    other.reward(first.decision_id, item_id="i4", kind="click")
    assert set(ask(stage, None, slots=12, context=context).items) == set(ITEMS) - {"i3"}
    assert set(ask(stage, None, slots=12).items) == set(ITEMS)


def test_what_earned_nothing_is_not_explored_anew_for_a_while(open_limited: OpenStage, clock: Clock) -> None:
    stage = open_limited(stability={"rest_s": 600})
    met: set[str] = set()
    for _ in range(3):
        decision = ask(stage)
        new = {decision.items[slot] for slot in explored(decision)}
        assert len(new) == 3
        assert new.isdisjoint(met)
        met |= new
    # Three items are left to explore; then none, until one earns something or the time is over.
    decision = ask(stage, slots=4)
    assert explored(decision) == [0, 1, 2]
    assert explored(ask(stage)) == []
    assert len(explored(ask(stage, "ben"))) == 3
    stage.reward(decision.decision_id, slot=1)
    (slot,) = explored(again := ask(stage, slots=1))
    assert again.items[slot] == decision.items[1]
    clock.now += 600.0
    assert explored(ask(stage)) == [0, 1, 2]


class Script:
    """What a visitor may do, over two processes and two surfaces."""

    steps = st.lists(
        st.tuples(
            st.sampled_from(["ask", "ask", "ask", "dismiss", "click", "wait"]),
            st.integers(0, 1),
            st.sampled_from(["home", "search"]),
            st.integers(1, 5),
        ),
        max_size=14,
    )


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Stage], Clock]]:
    """Two stages on one folder with all limits at once, and their clock."""
    folder, clock = tmp_path_factory.mktemp("two"), Clock()
    data = {
        "version": 1,
        "ranker": None,
        "retrieval": {"retrievers": []},
        "exploration": {
            "mode": "live",
            "holdout": 0.0,
            "policy": ANYTHING,
            "budget": {"per_user_per_day": 6},
            "stability": {"keep_s": 60, "rejections": ["dismiss"], "rejected_s": 300, "rest_s": 120},
        },
        "feedback": {"learn_every_s": 3600.0, "rewards": {"click": 1.0, "dismiss": 0.0}},
    }
    with ExitStack() as closing_them:
        stages = [closing_them.enter_context(load(parse_settings(data, folder))) for _ in range(2)]
        yield [Stage(dataclasses.replace(stage.installation, clock=clock)) for stage in stages], clock


VISITORS = count()


@settings(max_examples=60)
@given(steps=Script.steps)
def test_all_limits_hold_whatever_a_visitor_does(
    two_processes: tuple[list[Stage], Clock], steps: list[tuple[str, int, str, int]]
) -> None:
    (stages, clock), user = two_processes, f"visitor {next(VISITORS)}"
    clock.now = NOON
    last: Decision | None = None
    rejected: dict[str, float] = {}
    made: dict[str, Decision] = {}
    for what, process, surface, slots in steps:
        stage = stages[process]
        if what == "wait":
            clock.now += 50.0 * slots
        elif what == "ask":
            last = ask(stage, user, slots=slots, surface=surface)
            assert all(rejected.get(item, 0.0) <= clock.now for item in last.items)
            assert len(last.items) == slots
            assert last.repeated == (last.decision_id in made)
            if last.repeated:
                assert dataclasses.replace(last, repeated=False) == made[last.decision_id]
            else:
                made[last.decision_id] = last
            assert sum(len(explored(decision)) for decision in made.values()) <= 6
        elif last is not None:
            item = last.items[0]
            stage.reward(last.decision_id, slot=0, kind=what)
            if what == "dismiss":
                rejected[item] = max(rejected.get(item, 0.0), clock.now + 300.0)


def test_a_ledger_that_is_lost_learns_rejections_from_the_log(
    open_limited: OpenStage, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    stability = {"rejections": ["dismiss"], "rejected_s": 600}
    stage = open_limited()  # nobody asks for a ledger yet
    first, old = ask(stage, slots=12), ask(stage, slots=12)
    stage.reward(first.decision_id, item_id="i3", kind="dismiss")
    stage.reward(first.decision_id, item_id="i4", kind="click")
    stage.reward(old.decision_id, item_id="i5", kind="dismiss", time=clock.now - 700.0)

    def shown() -> set[str]:
        return set(ask(limited, slots=12).items)

    limited = open_limited(stability=stability)
    limited.installation.budgets._clock = clock
    for refresher in limited.installation._refreshers:
        refresher.stop()  # the test does what they do
    exposures = limited.installation.exposures
    with closing(sqlite3.connect(tmp_path / ".explorank" / "exposures.db")) as connection:
        connection.execute("INSERT INTO untold VALUES ('again')")  # it was told by the clock on the wall
        connection.commit()
    limited.installation.budgets.restore()
    assert not exposures.lacks_rejections
    assert shown() == set(ITEMS) - {"i3"}
    for part in (tmp_path / ".explorank").glob("exposures.db*"):
        part.unlink()
    assert exposures.lacks_rejections
    assert shown() == set(ITEMS)
    limited.installation.budgets.restore()
    assert shown() == set(ITEMS) - {"i3"}


# ---- when the ledger fails ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "stability"),
    [
        ({"per_user_per_day": 9}, {}),
        ({}, {"keep_s": 1800}),
        ({}, {"rest_s": 600}),
        ({}, {"rejections": ["dismiss"]}),
    ],
)
def test_without_its_ledger_a_request_does_not_explore_and_is_answered(
    open_limited: OpenStage, tmp_path: Path, budget: dict[str, Any], stability: dict[str, Any]
) -> None:
    ledger = tmp_path / ".explorank" / "exposures.db"
    ledger.mkdir(parents=True)  # a folder stands where the file should
    stage = open_limited(budget, stability)
    decision = ask(stage)
    assert (decision.items, decision.logged, decision.propensity_known) == (BEST[:3], True, True)
    assert "exposures.db" in held_back(stage, decision)
    assert "exposures.db" in stage.readiness()["exposures"]
    stage.reward(decision.decision_id, slot=0, kind="dismiss")
    ledger.rmdir()
    stage.installation.exposures.refresh()
    decision = ask(stage)
    assert len(explored(decision)) == 3
    assert stage.readiness() == {}
    if stability.get("rejections"):
        assert "i0" not in ask(stage, slots=12).items  # the rejection was kept until it could be written


def test_a_context_that_cannot_be_compared_is_answered_without_exploring(open_limited: OpenStage) -> None:
    stage = open_limited(stability={"keep_s": 1800})
    decision = ask(stage, context={"too wide": 2**70})
    assert (decision.items, decision.logged) == (BEST[:3], False)
    assert stage.status()["limits"]["unchecked"] == 1


def test_no_ledger_where_no_limit_needs_one(open_limited: OpenStage, tmp_path: Path) -> None:
    stage = open_limited(
        {"candidates": [{"column": "number", "below": 5}]}, plugins=(Columns(),), features=["number"]
    )
    assert stage.installation.exposures is None
    assert set(ask(stage).items) <= set(ITEMS[:5])
    assert not list((tmp_path / ".explorank").glob("exposures*"))


# ---- what `explorank check` finds -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "verdict", "words"),
    [
        ({"new_within_days": 14}, "ok", "item_first_event"),
        ({"impressions_below": 9, "column": "similarity", "below": 0.5}, "ok", "similarity"),
        ({"column": "wether", "below": 0.5}, "wrong", "wether"),
        ({"uncertainty_from": 0.1}, "wrong", "lightgbm"),
    ],
)
def test_a_column_that_is_not_served_is_found_before_serving(
    installation: Path, rule: dict[str, Any], verdict: str, words: str
) -> None:
    data = {
        "version": 1,
        "features": {"positive_from": 4.0},
        "exploration": {"budget": {"candidates": [rule]}},
    }
    found = [
        result
        for result in run_checks(parse_settings(data, installation))
        if result.name == "exploration.budget"
    ]
    assert found[0].verdict == verdict
    assert words in found[0].detail


def test_thin_new_books_are_explored_on_the_whole_path(open_books: OpenStage, installation: Path) -> None:
    candidates = [{"new_within_days": 3650, "column": "item_pages", "below": 200}]
    stage = open_books({"exploration": {"policy": ANYTHING, "budget": {"candidates": candidates}}})
    pages = pd.read_parquet(installation / "items.parquet").set_index("item_id")["pages"]
    for number in range(5):
        decision = stage.rank(user_id=f"reader-{number}", slots=9)
        assert decision.fallbacks == ()
        assert explored(decision) == [2, 5, 8]
        assert all(pages[decision.items[slot]] < 200 for slot in (2, 5, 8))


def test_who_is_forgotten_is_forgotten_by_the_ledger(open_limited: OpenStage, clock: Clock) -> None:
    stage = open_limited(
        budget={"per_user_per_day": 2}, stability={"rejections": ["dismiss"], "rejected_s": 600}
    )
    for user in ("ann", "bob"):
        decision = ask(stage, user, slots=12)
        stage.reward(decision.decision_id, item_id="i3", kind="dismiss")
        assert explored(decision)
        assert not explored(ask(stage, user, slots=12))
        assert "i3" not in ask(stage, user, slots=12).items
    forget_visitor(stage.installation.settings, "ann")
    forget_visitor(stage.installation.settings, "nobody")
    assert explored(ask(stage, "ann", slots=12))
    assert "i3" in ask(stage, "ann", slots=12).items
    assert not explored(ask(stage, "bob", slots=12))
    assert "i3" not in ask(stage, "bob", slots=12).items


def test_a_check_warns_of_a_stop_that_repeats_make_late(tmp_path: Path) -> None:
    exploration = {"safety": {"stop": {}}, "stability": {"keep_s": 60}, "share": 0.5}
    data = {"version": 1, "retrieval": {"retrievers": []}, "ranker": None, "exploration": exploration}
    warned = [one for one in run_checks(parse_settings(data, tmp_path)) if one.name == "safety"]
    assert [one.verdict for one in warned] == ["warning", "ok"]
    assert "notices a fall later" in warned[0].detail
