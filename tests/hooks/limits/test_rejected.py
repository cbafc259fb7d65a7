"""The guard that hides what a visitor rejected, in slates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorank.hooks.exploration import Greedy, Uniform, build_slate
from explorank.hooks.guards import with_snapshots
from explorank.hooks.limits import Rejected, SqliteExposures, visitor_of
from explorank.hooks.types import RankingBatch, RankingRequest

BATCH = RankingBatch(np.array([f"i{number}" for number in range(8)]), scores=np.arange(8.0))


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    with_ledger = SqliteExposures(tmp_path_factory.mktemp("ledger") / "exposures.db")
    yield with_ledger
    with_ledger.close()


def request_of(user, time=1_000.0, **fields):
    return RankingRequest(decision_id="d", slots=3, user_id=user, time=time, **fields)


def items(policy, guard, request, seed=0):
    slate = build_slate(policy, policy.initial_state(), BATCH, 8, guards=[guard], request=request, seed=seed)
    return BATCH.item_ids[slate.order].tolist()


def test_nobody_else_is_concerned_and_time_heals(ledger):
    guard = Rejected(ledger)
    ledger.reject(visitor_of(request_of("ann")), "i7", 1_000.0, 60.0)
    assert items(Greedy(), guard, request_of("ann"))[0] == "i6"
    assert items(Greedy(), guard, request_of("ann", surface="elsewhere"))[0] == "i6"
    assert items(Greedy(), guard, request_of("ben"))[0] == "i7"
    assert items(Greedy(), guard, request_of(None))[0] == "i7"
    assert items(Greedy(), guard, request_of("ann", time=1_060.0))[0] == "i7"


def test_all_slots_see_one_snapshot(ledger):
    guard = Rejected(ledger)
    request = with_snapshots([guard], request_of("cal"))
    ledger.reject(visitor_of(request), "i7", 1_000.0, 60.0)
    assert items(Greedy(), guard, request)[0] == "i7"
    assert items(Greedy(), guard, request_of("cal"))[0] == "i6"


def test_a_ledger_that_cannot_be_read_hides_nothing_and_tells(tmp_path):
    (tmp_path / "place").touch()
    guard = Rejected(SqliteExposures(tmp_path / "place" / "exposures.db"))
    told = []
    slate = build_slate(
        Greedy(),
        Greedy().initial_state(),
        BATCH,
        8,
        guards=[guard],
        request=request_of("ann"),
        on_guard_error=lambda name, error: told.append((name, type(error).__name__)),
    )
    assert len(slate) == 8
    assert told == [("rejected_by_visitor", "LogUnavailable")]


@settings(max_examples=60)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 7)), max_size=25),
    seed=st.integers(0, 2**32),
)
def test_a_rejected_item_is_never_shown_again(ledger, steps, seed):
    example = f"{seed} {len(steps)} {steps}"
    rejected = {"a": set(), "b": set(), "c": set()}
    for shows, name, number in steps:
        request = request_of(f"{name} {example}")
        if shows:
            shown = set(items(Uniform(), Rejected(ledger), request, seed))
            assert shown == set(BATCH.item_ids.tolist()) - rejected[name]
        else:
            ledger.reject(visitor_of(request), f"i{number}", 1_000.0, 60.0)
            rejected[name].add(f"i{number}")
