"""What a stage leaves out when it is asked to spend less, and that propensities stay true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from explorank import Stage
from explorank.effort import WHOLE, Effort, ladder
from explorank.hooks import hookimpl
from explorank.hooks.types import Candidates, Features, RankingRequest, Scores
from explorank.settings import parse_settings

OpenStage = Callable[..., Stage]

LESS = Effort(name="bare", candidates=3, ranker="none", explores=False, reason="too much to do")
SHOP: dict[str, Any] = {
    "retrieval": {"retrievers": [{"use": "popular"}], "candidates": 10},
    "ranker": {"use": "lightgbm"},
    "exploration": {"policy": {"use": "epsilon_greedy", "epsilon": 1.0}},
}


class Shop:
    """Retrieves `i0` to `i9`, and scores the later ones higher."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @hookimpl
    def ranking_retrieve(self, request: RankingRequest, k: int) -> Candidates:
        self.asked.append(f"retrieve {k}")
        return Candidates.of([f"i{row}" for row in range(min(k, 10))], "shop")

    @hookimpl
    def ranking_score(self, request: RankingRequest, candidates: Candidates, features: Features) -> Scores:
        self.asked.append(f"score {len(candidates)}{request.hurried and ' cheaply'}")
        return Scores(np.arange(len(candidates), dtype=np.float64), version="shop-1")


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def stage(open_stage: OpenStage, shop: Shop) -> Stage:
    return open_stage(SHOP, plugins=[shop])


def test_the_whole_effort_is_the_default(stage: Stage, shop: Shop) -> None:
    decision = stage.rank(user_id="u", slots=2)
    assert shop.asked == ["retrieve 10", "score 10"]
    assert decision.fallbacks == ()
    assert decision.methods == ("explore", "explore")
    assert decision.versions["ranker"] == "shop-1"
    assert stage.rank(user_id="u", slots=2, effort=WHOLE).fallbacks == ()


def test_fewer_candidates_are_retrieved_and_scored(stage: Stage, shop: Shop) -> None:
    decision = stage.rank(user_id="u", slots=9, effort=Effort(candidates=4, reason="too much to do"))
    assert shop.asked == ["retrieve 4", "score 4"]
    assert sorted(decision.items) == ["i0", "i1", "i2", "i3"]
    (fallback,) = decision.fallbacks
    assert (fallback.step, fallback.plugin, fallback.reason) == ("retrieve", "explorank", "too much to do")
    assert fallback.action == "at most 4 candidates instead of 10"
    assert decision.methods == ("explore",) * 4


def test_without_the_ranker_retrieval_order_holds_and_no_version_stands_for_it(
    stage: Stage, shop: Shop
) -> None:
    stage.kill_switch.engage("to see the best by score")
    assert stage.rank(user_id="u", slots=3).items == ("i9", "i8", "i7")
    decision = stage.rank(user_id="u", slots=3, effort=Effort(ranker="none", reason="too much to do"))
    assert decision.items == ("i0", "i1", "i2")
    assert "score 10" not in shop.asked[2:]
    assert decision.versions["ranker"] == ""
    assert [(each.step, each.action) for each in decision.fallbacks] == [("score", "retrieval order")]


def test_a_hurried_ranker_is_told_so_and_the_record_is_not(stage: Stage, shop: Shop) -> None:
    decision = stage.rank(user_id="u", slots=3, effort=Effort(ranker="cheaper", reason="too much to do"))
    assert shop.asked == ["retrieve 10", "score 10 cheaply"]
    assert decision.fallbacks == ()  # what it left out is for the ranker to say
    assert stage.decision(decision.decision_id).request.hurried == ""


def test_without_exploration_every_propensity_is_one_and_known(stage: Stage) -> None:
    decision = stage.rank(user_id="u", slots=3, effort=LESS)
    assert decision.items == ("i0", "i1", "i2")
    assert decision.methods == ("score",) * 3
    assert decision.propensities == (1.0,) * 3
    assert decision.propensity_known
    assert [(each.step, each.reason) for each in decision.fallbacks] == [
        ("retrieve", "too much to do"),
        ("score", "too much to do"),
        ("explore", "too much to do"),
    ]
    record = stage.decision(decision.decision_id)
    assert record.held_back == "too much to do"
    assert record.slate.method == ("score",) * 3
    assert record.slate.propensities.tolist() == [1.0] * 3
    assert record.fallbacks == decision.fallbacks
    assert (record.mode, record.arm) == ("live", "explore")


def test_who_would_not_have_explored_anyway_goes_without_nothing(open_stage: OpenStage, shop: Shop) -> None:
    stage = open_stage({**SHOP, "exploration": {"mode": "off"}}, plugins=[shop])
    effort = Effort(explores=False, reason="too much to do")
    assert stage.rank(user_id="u", slots=3, effort=effort).fallbacks == ()


def test_a_shadow_is_not_computed_without_exploration(open_stage: OpenStage, shop: Shop) -> None:
    stage = open_stage({**SHOP, "exploration": {"mode": "shadow"}}, plugins=[shop])
    with_shadow = stage.rank(user_id="u", slots=3)
    assert stage.decision(with_shadow.decision_id).shadow is not None
    without = stage.rank(user_id="u", slots=3, effort=Effort(explores=False))
    assert stage.decision(without.decision_id).shadow is None
    assert without.items == with_shadow.items


def test_explore_over_candidates_of_the_host_may_be_kept_from_exploring(stage: Stage) -> None:
    decision = stage.explore(["a", "b", "c"], [0.1, 0.3, 0.2], user_id="u", slots=2, effort=LESS)
    assert decision.items == ("b", "c")
    assert decision.propensities == (1.0, 1.0)
    assert [each.step for each in decision.fallbacks] == ["explore"]


def test_timings_name_the_steps_in_their_order(stage: Stage) -> None:
    ranked = stage.rank(user_id="u", slots=3)
    assert list(ranked.timings_us) == [
        "enrich_request", "retrieve", "filter", "enrich", "score", "explore", "log",
    ]  # fmt: skip
    assert all(spent_us > 0.0 for spent_us in ranked.timings_us.values())
    explored = stage.explore(["a", "b"], [0.1, 0.2], user_id="u", slots=1)
    assert list(explored.timings_us) == ["enrich_request", "filter", "explore", "log"]
    assert "timings_us" not in ranked.to_dict()


LADDERS: list[tuple[dict[str, Any], list[tuple[str, int | None, str, bool]]]] = [
    (
        {"retrieval": {"candidates": 500}},
        [
            ("whole", None, "whole", True),
            ("fewer_candidates", 250, "whole", True),
            ("fewest_candidates", 100, "whole", True),
            ("cheaper_ranker", 100, "cheaper", True),
            ("no_ranker", 100, "none", True),
            ("no_exploration", 100, "none", False),
        ],
    ),
    (
        {"retrieval": {"candidates": 150}},
        [
            ("whole", None, "whole", True),
            ("fewer_candidates", 100, "whole", True),
            ("cheaper_ranker", 100, "cheaper", True),
            ("no_ranker", 100, "none", True),
            ("no_exploration", 100, "none", False),
        ],
    ),
    (
        {"retrieval": {"candidates": 50}, "ranker": None, "exploration": {"mode": "live"}},
        [("whole", None, "whole", True), ("no_exploration", 50, "none", False)],
    ),
    (
        {"retrieval": {"retrievers": []}, "ranker": None, "exploration": {"mode": "live"}},
        [("whole", None, "whole", True), ("no_exploration", 100, "none", False)],
    ),
    (
        {"retrieval": {"candidates": 50}, "exploration": {"mode": "off"}},
        [
            ("whole", None, "whole", True),
            ("cheaper_ranker", 50, "cheaper", True),
            ("no_ranker", 50, "none", True),
        ],
    ),
]


@pytest.mark.parametrize(("changes", "expected"), LADDERS)
def test_the_ladder_holds_only_rungs_that_leave_something_out(
    changes: dict[str, Any], expected: list[tuple[str, int | None, str, bool]], tmp_path: Any
) -> None:
    settings = parse_settings({"version": 1, **changes}, tmp_path)
    assert [(e.name, e.candidates, e.ranker, e.explores) for e in ladder(settings)] == expected
