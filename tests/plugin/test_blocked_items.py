"""A blocked item is never shown: over policies, guards, modes, slates and every fallback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorank import Stage, load
from explorank.hooks import hookimpl
from explorank.hooks.registry import Registry
from explorank.hooks.types import (
    BoolArray,
    Candidates,
    IndexArray,
    RankingBatch,
    RankingRequest,
    Scores,
    Slate,
)
from explorank.settings import parse_settings

ALLOWED = [f"a{number}" for number in range(8)]
BLOCKED = [f"b{number}" for number in range(4)]
POLICIES: dict[str, dict[str, Any]] = {
    "epsilon_greedy": {"epsilon": 0.7},
    "beta_thompson": {"draws": 16},
    "linear_thompson": {"dim": 2, "draws": 16},
    "uniform": {},
}
MODES = ["off", "shadow", "apprentice", "live"]
LOGS = ["sound", "broken"]

RETRIEVED = ["all", "twice"]
SCORED = ["well", "raises", "nan", "short", "nothing"]
EXPLORED = ["nothing", "raises", "blocked", "repeats", "outside", "no slate", "too long"]
GUARDED = ["well", "raises", "wrong shape", "integers"]


class NoTwoNeighbours:
    """A third party's guard on the slate so far: no item directly follows the one numbered before it."""

    behaviour: ClassVar[str] = "well"
    fails: ClassVar[str] = "closed"

    def eligible(
        self, request: RankingRequest, batch: RankingBatch, placed: IndexArray, slot: int
    ) -> BoolArray:
        if self.behaviour == "raises":
            raise ConnectionError("the guard's service is down")
        if self.behaviour == "wrong shape":
            return np.ones(len(batch) + 1, np.bool_)
        if self.behaviour == "integers":
            return np.ones(len(batch), np.int64)  # type: ignore[return-value] - a plugin's mistake
        numbers = np.array([int(item[1:]) for item in batch.item_ids.tolist()], np.int64)
        allowed: BoolArray = np.ones(len(batch), np.bool_)
        if len(placed):
            allowed = numbers != numbers[placed[-1]] + 1
        return allowed


class Villain:
    """Retrieves, scores and explores as a test says, blocked items always among them."""

    def __init__(self) -> None:
        self.candidates: list[str] = []
        self.retrieved = "all"
        self.scored = "well"
        self.explored = "nothing"

    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        registry.guard("no_two_neighbours", NoTwoNeighbours)

    @hookimpl
    def ranking_retrieve(self) -> Candidates:
        ids = self.candidates * (2 if self.retrieved == "twice" else 1)
        return Candidates(np.array(ids, dtype="<U4"), ("villain",), np.ones(len(ids), np.uint64),
                          np.zeros(len(ids), np.float32))  # fmt: skip

    @hookimpl
    def ranking_score(self, candidates: Candidates) -> Scores | None:
        n = len(candidates)
        if self.scored == "raises":
            raise MemoryError("no room")
        values = np.arange(n, dtype=np.float64)
        if self.scored == "nan":
            values[:] = np.nan
        return None if self.scored == "nothing" else Scores(values[1:] if self.scored == "short" else values)

    @hookimpl
    def ranking_explore(self, ranking: RankingBatch, n_slots: int) -> Any:
        if self.explored == "raises":
            raise RuntimeError("no idea")
        if self.explored == "nothing":
            return None
        if self.explored == "no slate":
            return list(range(n_slots))
        n = len(ranking)
        order = np.arange(min(n, n_slots))
        if self.explored == "repeats":
            order[:] = 0
        if self.explored == "outside":
            order = order + n
        if self.explored == "too long":
            order = np.arange(n)
        every = np.ones((len(order), n), np.bool_)
        half = np.full(len(order), 0.5)
        return Slate(order, half, ("explore",) * len(order), "villain", 0, eligible=every, support=every)


class Stages:
    """One stage per configuration, made when first asked for."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self._folder = folder
        self._closing = closing
        self._made: dict[tuple[str, str, str, bool], tuple[Stage, Villain]] = {}

    def get(self, policy: str, mode: str, log: str, with_slot_guard: bool) -> tuple[Stage, Villain]:
        key = (policy, mode, log, with_slot_guard)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, policy: str, mode: str, log: str, with_slot_guard: bool) -> tuple[Stage, Villain]:
        guards: list[dict[str, Any]] = [{"use": "block_list", "items": BLOCKED}]
        if with_slot_guard:
            guards.append({"use": "no_two_neighbours"})
        villain = Villain()
        data = {
            "version": 1,
            "folder": str(self._folder / str(len(self._made))),
            # Without a catalogue our retriever finds nothing, without a trained ranker ours scores nothing.
            "retrieval": {"retrievers": [{"use": "popular"}]},
            "exploration": {"mode": mode, "holdout": 0.0, "policy": {"use": policy, **POLICIES[policy]}},
            "guards": guards,
            "feedback": {"learn_every_s": 3600.0},
        }
        stage = self._closing.enter_context(load(parse_settings(data, self._folder), plugins=[villain]))
        if log == "broken":
            place = stage.installation.log.folder
            # Moved rather than deleted: the learner reads it meanwhile, and SQLite then makes files in it.
            place.rename(place.with_name("moved"))
            place.write_text("not a folder", encoding="utf-8")
        return stage, villain


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    with ExitStack() as closing:
        yield Stages(tmp_path_factory.mktemp("blocked"), closing)


def shown_by(stage: Stage, decision_items: tuple[str, ...], decision_id: str, logged: bool) -> set[str]:
    """Return what was answered, and what the log says could have been."""
    shown = set(decision_items)
    if logged:
        record = stage.decision(decision_id)
        for slate in (record.slate, record.shadow):
            if slate is not None:
                possible = slate.support.any(axis=0)
                shown |= set(record.item_ids[possible].tolist()) | set(record.item_ids[slate.order].tolist())
        shown |= set(record.item_ids[record.baseline_order].tolist())
    return shown


@settings(max_examples=400)
@given(data=st.data())
def test_a_blocked_item_is_never_shown(stages: Stages, data: st.DataObject) -> None:
    with_slot_guard = data.draw(st.booleans(), "slot guard")
    stage, villain = stages.get(
        data.draw(st.sampled_from(list(POLICIES)), "policy"),
        data.draw(st.sampled_from(MODES), "mode"),
        data.draw(st.sampled_from(LOGS), "log"),
        with_slot_guard,
    )
    NoTwoNeighbours.behaviour = data.draw(st.sampled_from(GUARDED), "guard")
    candidates = data.draw(
        st.lists(st.sampled_from([*ALLOWED, *BLOCKED]), unique=True, max_size=12), "candidates"
    )
    villain.candidates = candidates
    villain.retrieved = data.draw(st.sampled_from(RETRIEVED), "retrieval")
    villain.scored = data.draw(st.sampled_from(SCORED), "ranker")
    villain.explored = data.draw(st.sampled_from(EXPLORED), "exploration")
    excluded = data.draw(st.sets(st.sampled_from(ALLOWED), max_size=3), "exclude")
    slots = data.draw(st.integers(0, 14), "slots")
    if data.draw(st.booleans(), "kill switch"):
        stage.kill_switch.engage("test")
    try:
        if data.draw(st.booleans(), "host's own candidates"):
            n = len(candidates)
            features = np.ones((n, 2)) if data.draw(st.booleans(), "features") else None
            decision = stage.explore(
                candidates, np.arange(n, dtype=float), features, slots=slots, exclude=excluded
            )
        else:
            decision = stage.rank(user_id="u", slots=slots, exclude=excluded)
    finally:
        stage.kill_switch.release()
    shown = shown_by(stage, decision.items, decision.decision_id, decision.logged)
    assert shown.isdisjoint(BLOCKED)
    assert shown.isdisjoint(excluded)
    assert len(set(decision.items)) == len(decision.items) <= slots
    if with_slot_guard:
        numbers = [int(item[1:]) for item in decision.items]
        assert all(after != before + 1 for before, after in pairwise(numbers))
        if NoTwoNeighbours.behaviour != "well":
            assert decision.items == ()
    else:
        # Whatever else failed, what may be shown is shown.
        assert len(decision.items) == min(slots, len(set(candidates) - set(BLOCKED) - excluded))


def test_a_block_list_is_in_force_with_the_next_request(tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text("a0\n", encoding="utf-8")
    data = {
        "version": 1,
        "ranker": None,
        "retrieval": {"retrievers": []},
        "exploration": {"mode": "live", "holdout": 0.0, "policy": {"use": "uniform"}},
        "guards": [{"use": "block_list", "path": "blocked.txt"}],
    }
    with load(parse_settings(data, tmp_path)) as stage:

        def shown() -> list[str]:
            decision = stage.explore(ALLOWED, np.zeros(8), slots=8)
            assert decision.fallbacks == ()
            return sorted(decision.items)

        assert shown() == ALLOWED[1:]
        before = stage.status()["versions"]["guards"]
        for number in range(1, 8):
            listed.write_text("\n".join(ALLOWED[: number + 1]), encoding="utf-8")
            assert shown() == ALLOWED[number + 1 :]
        assert stage.status()["versions"]["guards"] != before
        listed.write_text("", encoding="utf-8")
        assert shown() == ALLOWED
        # A list that vanishes stays in force as it last was.
        listed.write_text("a5", encoding="utf-8")
        assert "a5" not in shown()
        listed.unlink()
        assert "a5" not in shown()


def test_blocked_books_are_never_shown_on_the_whole_path(installation: Path) -> None:
    blocked = [f"{subject}-{number}" for subject in ("sea", "crime") for number in range(10)]
    (installation / "blocked.txt").write_text("\n".join(blocked), encoding="utf-8")
    with load(installation / "explorank.yaml") as stage:
        for number in range(12):
            decision = stage.rank(user_id=f"reader-{number}", slots=60)
            assert len(decision.items) == 40
            assert set(decision.items).isdisjoint(blocked)
        assert set(stage.rank(similar_to="sea-1", slots=60).items).isdisjoint(blocked)
