"""The built-in guards, and a property: a blocked item is never shown, whatever else goes wrong."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration import (
    BetaThompson,
    EpsilonGreedy,
    Greedy,
    LinearThompson,
    RankingBatch,
    RewardBatch,
    Uniform,
    build_slate,
)
from explorank.hooks.guards import AlreadySeen, BlockList, builtin, guard_mask, static_mask, with_snapshots
from explorank.hooks.guards.guard import guard_name
from explorank.hooks.types import RankingRequest

NOBODY = np.zeros(0, np.int64)


def request(**fields):
    return RankingRequest(decision_id="1", slots=3, **fields)


def allowed(guard, ids, asked=None):
    batch = RankingBatch(ids)
    mask = guard.eligible(asked or request(), batch, NOBODY, 0)
    assert mask.dtype == bool
    return batch.item_ids[mask].tolist()


def test_a_block_list_hides_its_items():
    assert allowed(BlockList(items=["b", "zz"]), ["a", "b", "c"]) == ["a", "c"]
    assert allowed(BlockList(), ["a", "b"]) == ["a", "b"]


def test_ids_that_are_numbers_are_blocked_by_their_text(tmp_path):
    (tmp_path / "blocked").write_text("12\n")
    assert allowed(BlockList(items=["7"], path=str(tmp_path / "blocked")), [7, 12, 77]) == [77]


def test_a_text_is_no_list_of_items():
    with pytest.raises(InvalidPolicy, match="its letters"):
        BlockList(items="abc")


def test_a_block_file_has_one_id_per_line_and_comments(tmp_path):
    path = tmp_path / "blocked"
    path.write_text("\ufeffa\n\n  b  # spam, reported twice\n# c\nd#1\r\n", encoding="utf-8")
    assert BlockList(path=str(path)).blocked == {"a", "b", "d#1"}


def test_a_block_file_is_read_again_when_it_changes(tmp_path, caplog):
    path = tmp_path / "blocked"
    path.write_text("a\n")
    guard = BlockList(items=["z"], path=str(path))
    assert allowed(guard, ["a", "b", "z"]) == ["b"]
    path.write_text("b\n")
    os.utime(path, ns=(1, 1))
    assert allowed(guard, ["a", "b", "z"]) == ["a"]

    path.unlink()
    assert allowed(guard, ["a", "b", "z"]) == ["a"]
    assert allowed(guard, ["a", "b", "z"]) == ["a"]
    assert "FileNotFoundError" in guard.problem
    told = [record for record in caplog.records if record.name == "explorank.hooks.guards.block_list"]
    assert len(told) == 1  # reported once, not once per request

    path.write_bytes(b"\xff\xfe\x00")
    assert allowed(guard, ["a", "b", "z"]) == ["a"]
    assert "UnicodeDecodeError" in guard.problem

    path.write_text("a\nb\n")
    assert allowed(guard, ["a", "b", "z"]) == []
    assert guard.problem is None


def test_a_block_file_must_be_there_at_the_start(tmp_path, caplog):
    with pytest.raises(InvalidPolicy, match="Create the file"):
        BlockList(path=str(tmp_path / "missing"))
    assert not caplog.records  # no good list stays in force, as there was none


def test_already_seen_hides_what_the_context_names():
    guard = AlreadySeen()
    ids = ["a", "b", "c", "d"]
    assert allowed(guard, ids) == ids
    assert allowed(guard, ids, request(context={"seen": ("a",), "history": np.array(["c", "x"])})) == [
        "b",
        "d",
    ]
    assert allowed(guard, [1, 2, 3], request(context={"seen": [2]})) == [1, 3]


def test_a_malformed_context_is_reported_and_does_not_empty_the_slate():
    reported = []
    batch = RankingBatch(["a", "b"])
    mask = guard_mask(
        AlreadySeen(),
        request(context={"seen": "ab"}),
        batch,
        NOBODY,
        0,
        lambda name, error: reported.append((name, str(error))),
    )
    assert mask.tolist() == [True, True]
    assert reported[0][0] == "already_seen"
    assert "Pass a list" in reported[0][1]


@dataclass(frozen=True)
class Custom:
    answer: Any
    static: bool = False
    fails: str = "closed"

    def eligible(self, request, batch, placed, slot):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_list_of_booleans_is_a_mask():
    batch = RankingBatch(["a", "b"])
    assert guard_mask(Custom([True, False]), request(), batch, NOBODY, 0).tolist() == [True, False]


@pytest.mark.parametrize("wrong", [[1, 0], [True], [[True, False]], None, "ab"], ids=str)
def test_anything_else_counts_as_a_failure(wrong):
    batch, errors = RankingBatch(["a", "b"]), []
    closed = guard_mask(Custom(wrong), request(), batch, NOBODY, 0, lambda name, error: errors.append(error))
    opened = guard_mask(Custom(wrong, fails="open"), request(), batch, NOBODY, 0)
    assert (closed.tolist(), opened.tolist()) == ([False, False], [True, True])
    assert isinstance(errors[0], InvalidPolicy)
    assert "'Custom'" in str(errors[0])


def test_the_static_mask_joins_exclusions_and_static_guards_only():
    batch = RankingBatch(["a", "b", "c", "d"])
    guards = [BlockList(items=["b"]), Custom(np.zeros(4, dtype=bool))]
    asked = request(exclude=frozenset({"c"}))
    assert static_mask(guards, asked, batch).tolist() == [True, False, False, True]
    broken = [*guards, Custom(RuntimeError(), static=True)]
    assert not static_mask(broken, asked, batch).any()


def test_a_guard_does_not_own_the_mask_that_others_are_joined_to():
    answer = np.ones(3, dtype=bool)
    batch = RankingBatch(["a", "b", "c"])
    static_mask([Custom(answer, static=True), BlockList(items=["a"])], request(), batch)
    build_slate(Greedy(), Greedy().initial_state(), batch, 3, guards=[Custom(answer)])
    assert answer.all()


def test_requests_pass_unchanged_where_no_guard_takes_a_snapshot():
    asked = request()
    assert with_snapshots([BlockList(), AlreadySeen()], asked) is asked


def test_every_guard_is_registered_under_its_name():
    class Registry:
        def __init__(self):
            self.guards = {}

        def guard(self, name, factory):
            self.guards[name] = factory

    registry = Registry()
    builtin.ranking_register_components(registry)
    assert registry.guards == {"block_list": BlockList, "already_seen": AlreadySeen}
    assert [guard_name(factory()) for factory in registry.guards.values()] == list(registry.guards)


IDS = [f"i{row}" for row in range(8)]
POLICIES = (
    EpsilonGreedy(0.5),
    BetaThompson(pool=3, draws=4, floor=0.5),
    LinearThompson(dim=2, pool=3, draws=4, floor=0.5),
    Greedy(),
    Uniform(),
)
ANSWERS = (
    ValueError("broken"),
    None,
    np.ones(3, dtype=bool),
    np.ones(8),
    np.ones((8, 8), dtype=bool),
    np.ones(8, dtype=bool),
    np.arange(8) % 2 == 0,
)
GUARDS = st.builds(Custom, st.sampled_from(ANSWERS), st.booleans(), st.sampled_from(["open", "closed"]))


@settings(max_examples=400)
@given(
    policy=st.sampled_from(POLICIES),
    blocked=st.sets(st.sampled_from(IDS)),
    excluded=st.sets(st.sampled_from(IDS)),
    others=st.lists(GUARDS, max_size=3),
    position=st.integers(0, 3),
    explore_slots=st.none() | st.sets(st.integers(0, 8)),
    scores=st.lists(st.sampled_from([-1e300, 0.0, 1.0, 1e300]), min_size=8, max_size=8),
    rewarded=st.lists(st.sampled_from(IDS), max_size=6),
    n_slots=st.integers(0, 9),
    seed=st.integers(0, 2**64),
)
def test_a_blocked_item_is_never_shown(
    policy, blocked, excluded, others, position, explore_slots, scores, rewarded, n_slots, seed
):
    features = np.random.default_rng(1).standard_normal((8, 2))
    rows = [IDS.index(item) for item in rewarded]
    rewards = RewardBatch(np.array(rewarded, dtype="<U2"), np.ones(len(rows)), features[rows])
    guards = [*others[:position], BlockList(items=sorted(blocked)), *others[position:]]
    slate = build_slate(
        policy,
        policy.learn(policy.initial_state(), rewards),
        RankingBatch(IDS, features, scores),
        n_slots,
        explore_slots,
        guards,
        request(exclude=frozenset(excluded)),
        seed,
    )
    shown = [IDS[row] for row in slate.order]
    assert not set(shown) & (blocked | excluded)
    assert len(set(shown)) == len(shown) <= n_slots
    hidden = [row for row, item in enumerate(IDS) if item in blocked | excluded]
    assert not slate.eligible[:, hidden].any()
    assert not (slate.support & ~slate.eligible).any()
    assert ((slate.propensities > 0) & (slate.propensities <= 1 + 1e-12)).all()
    broken_closed = any(
        guard.fails == "closed" and not (isinstance(guard.answer, np.ndarray) and guard.answer.shape == (8,))
        for guard in others
    )
    if broken_closed:
        assert len(slate) == 0
