"""From what was decided to the record, and what feedback finds of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorank import recorder as recorder_module
from explorank.baseline import Baseline
from explorank.errors import InvalidFeedback, UnknownDecision
from explorank.explorer import Explored
from explorank.hooks.feedback import DecisionLog
from explorank.hooks.limits import visitor_of
from explorank.hooks.types import Candidates, DecisionRecord, Fallback, RankingBatch, RankingRequest, Slate
from explorank.recorder import Answered, Recorder, record_of

ITEMS = np.array(["a", "b", "c", "d", "e"])
FEATURES = np.arange(10, dtype=np.float32).reshape(5, 2)


def slate_of(order: list[int], support: list[list[int]], probability: float = 0.5) -> Slate:
    k = len(order)
    possible = np.zeros((k, 5), np.bool_)
    for slot, rows in enumerate(support):
        possible[slot, rows] = True
    return Slate(
        np.array(order), np.full(k, probability), ("explore",) * k, "test", 3,
        eligible=np.ones((k, 5), np.bool_), support=possible,
    )  # fmt: skip


BASELINE = Baseline.of(slate_of([0, 1], [[0], [1]], 1.0))
EXPLORED = slate_of([2, 0], [[2, 3], [0, 3]])


def record(
    decision_id: str = "d1",
    explored: Explored | None = None,
    ranking: RankingBatch | None = None,
    candidates: Candidates | None = None,
) -> DecisionRecord:
    return record_of(
        RankingRequest(decision_id=decision_id, slots=2, user_id="u", time=1.0),
        ranking or RankingBatch(ITEMS, FEATURES, np.arange(5.0), feature_names=("x", "y")),
        explored or Explored(BASELINE, "live", "explore", EXPLORED),
        [Fallback("score", "p", "late", "retrieval order")],
        {"ranker": "v1"},
        candidates,
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    with DecisionLog(tmp_path / "log") as opened:
        yield opened


def test_features_are_kept_of_all_that_could_have_been_shown() -> None:
    kept = record()
    assert kept.feature_rows.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(kept.features, FEATURES[[0, 2, 3]])
    assert kept.feature_names == ("x", "y")


def test_features_are_kept_for_the_shadow_too() -> None:
    kept = record(explored=Explored(BASELINE, "shadow", "baseline", shadow=EXPLORED))
    assert kept.feature_rows.tolist() == [0, 1, 2, 3]
    assert kept.shadow is EXPLORED


def test_no_features_no_columns() -> None:
    kept = record(ranking=RankingBatch(ITEMS, scores=np.arange(5.0)))
    assert kept.features.shape == (3, 0)


def test_sources_are_those_of_the_shown_items() -> None:
    found = Candidates.union([Candidates.of(ITEMS, "near"), Candidates.of(ITEMS[:1], "popular")])
    assert record(candidates=found).sources == (("near",), ("near", "popular"))
    assert record().sources == ((), ())


def test_what_is_kept_back_shows_the_baseline() -> None:
    shown = Explored(BASELINE, "live", "explore", EXPLORED, shadow=EXPLORED).kept_back()
    assert shown.slate is BASELINE.slate
    assert shown.shadow is None


def test_a_written_record_is_answered_and_remembered(log: DecisionLog) -> None:
    recorder = Recorder(log)
    kept = record()
    assert recorder.write(kept, lambda: pytest.fail("not needed")) == (kept, True)
    assert recorder.answered("d1") == ANSWERED
    assert recorder.trouble is None
    assert log.decision("d1").shown_ids == ["c", "a"]


def test_what_cannot_be_written_is_answered_without_exploration(
    log: DecisionLog, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(log)
    log.close()
    baseline = record(explored=Explored(BASELINE, "live", "explore"))
    with caplog.at_level(logging.CRITICAL):
        answer, logged = recorder.write(record(), lambda: baseline)
    assert not logged
    assert answer.shown_ids == ["a", "b"]
    assert [fallback.step for fallback in answer.fallbacks] == ["score", "log"]
    assert recorder.trouble is not None
    assert "closed" in recorder.trouble


def test_one_requests_trouble_is_not_the_logs(log: DecisionLog, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(log)
    kept = record()
    unstorable = replace(kept, request=replace(kept.request, context={"number": 2**70}))
    with caplog.at_level(logging.CRITICAL):
        answer, logged = recorder.write(unstorable, lambda: kept)
    assert not logged
    assert answer.fallbacks[-1].step == "log"
    assert recorder.trouble is None


def test_a_forgotten_decision_is_read_back(log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "_REMEMBERED", 2)
    recorder = Recorder(log)
    for number in range(5):
        kept = record(f"d{number}")
        recorder.write(kept, lambda kept=kept: kept)
    assert recorder.answered("d0") == recorder.answered("d4") == ANSWERED
    with pytest.raises(UnknownDecision, match="d5"):
        recorder.answered("d5")


ANSWERED = Answered("u", ("c", "a"), visitor_of(RankingRequest(decision_id="", slots=0, user_id="u")))


@pytest.mark.parametrize(
    ("item", "slot", "found"), [("c", None, 0), ("a", None, 1), (None, 0, 0), (None, 1, 1), ("a", 1, 1)]
)
def test_a_reward_finds_its_slot(item: str | None, slot: int | None, found: int) -> None:
    assert ANSWERED.slot_of("d", item, slot) == found


@pytest.mark.parametrize(
    ("item", "slot", "told"),
    [
        (None, None, "neither"),
        (None, 2, "no slot 2"),
        (None, -1, "no slot -1"),
        ("b", None, "'b'"),
        ("b", 0, "'b'"),
        ("a", 0, "slot 1, not 0"),
        ("a", 7, "no slot 7"),
    ],
)
def test_a_reward_without_a_slot_is_refused(item: str | None, slot: int | None, told: str) -> None:
    with pytest.raises(InvalidFeedback, match=told):
        ANSWERED.slot_of("d", item, slot)
