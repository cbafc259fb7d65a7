"""How many plugins' answers become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from explorank.engine import Engine
from explorank.hooks import hookimpl
from explorank.hooks.manager import RankingManager
from explorank.hooks.types import (
    Candidates,
    Fallback,
    Features,
    RankingBatch,
    RankingRequest,
    Scores,
    Slate,
)

REQUEST = RankingRequest(decision_id="d", slots=3, context=MappingProxyType({"page": 1}))
FOUND = Candidates.of(["a", "b", "c"], "test")
RANKING = RankingBatch(item_ids=np.array(["a", "b", "c"]), scores=np.array([3.0, 2.0, 1.0]))


class Answers:
    """A plugin that answers each hook with what it was given, or raises it."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def _answer(self, hook: str) -> Any:
        answer = self._answers.get(hook)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @hookimpl
    def ranking_enrich_request(self) -> Any:
        return self._answer("enrich_request")

    @hookimpl
    def ranking_retrieve(self) -> Any:
        return self._answer("retrieve")

    @hookimpl
    def ranking_filter(self) -> Any:
        return self._answer("filter")

    @hookimpl
    def ranking_enrich(self) -> Any:
        return self._answer("enrich")

    @hookimpl
    def ranking_score(self) -> Any:
        return self._answer("score")

    @hookimpl
    def ranking_explore(self) -> Any:
        return self._answer("explore")


class FailsOpen(Answers):
    ranking_filter_fails = "open"


def engine_of(**plugins: Answers) -> Engine:
    """Return an engine of these plugins, asked in this order."""
    manager = RankingManager(on_error=lambda failure: None)
    for name, plugin in reversed(plugins.items()):  # pluggy asks the last registered first
        manager.register(plugin, name)
    return Engine(manager)


def only(fallbacks: list[Fallback]) -> Fallback:
    (fallback,) = fallbacks
    return fallback


# ---- context --------------------------------------------------------------------------------------------


def enriched(**plugins: Answers) -> tuple[Mapping[str, Any], list[Fallback]]:
    fallbacks: list[Fallback] = []
    return engine_of(**plugins).enrich_request(REQUEST, fallbacks).context, fallbacks


def test_context_columns_are_added() -> None:
    context, fallbacks = enriched(
        one=Answers(enrich_request={"x": 1}), two=Answers(enrich_request={"y": 2}), three=Answers()
    )
    assert dict(context) == {"page": 1, "x": 1, "y": 2}
    assert fallbacks == []


def test_nothing_to_add_leaves_the_request_alone() -> None:
    assert engine_of(one=Answers()).enrich_request(REQUEST, []) is REQUEST


def test_what_the_host_said_wins() -> None:
    context, fallbacks = enriched(one=Answers(enrich_request={"page": 2, "x": 1}))
    assert dict(context) == {"page": 1, "x": 1}
    assert fallbacks == []


def test_a_context_key_has_one_owner() -> None:
    context, fallbacks = enriched(
        one=Answers(enrich_request={"x": 1}), two=Answers(enrich_request={"x": 2, "y": 3})
    )
    assert dict(context) == {"page": 1, "x": 1}
    assert (only(fallbacks).plugin, only(fallbacks).action) == ("two", "skipped")
    assert "['x']" in only(fallbacks).reason


@pytest.mark.parametrize("answer", [7, "text", [1, 2], RuntimeError("no")])
def test_a_context_that_is_none_is_skipped(answer: Any) -> None:
    context, fallbacks = enriched(bad=Answers(enrich_request=answer), good=Answers(enrich_request={"x": 1}))
    assert dict(context) == {"page": 1, "x": 1}
    assert only(fallbacks).plugin == "bad"


# ---- candidates -----------------------------------------------------------------------------------------


def retrieved(limit: int = 10, **plugins: Answers) -> tuple[Candidates, list[Fallback]]:
    fallbacks: list[Fallback] = []
    return engine_of(**plugins).retrieve(REQUEST, 5, limit, fallbacks), fallbacks


def test_candidates_are_united_with_their_sources() -> None:
    found, fallbacks = retrieved(
        one=Answers(retrieve=Candidates.of(["a", "b"], "near", [0.9, 0.8])),
        two=Answers(retrieve=Candidates.of(["c", "a"], "popular", [0.7, 0.95])),
    )
    assert found.item_ids.tolist() == ["a", "b", "c"]
    assert found.sources_of(np.arange(3)) == (("near", "popular"), ("near",), ("popular",))
    np.testing.assert_allclose(found.retrieval_scores, [0.95, 0.8, 0.7])
    assert fallbacks == []


def test_the_limit_keeps_the_first() -> None:
    found, _ = retrieved(2, one=Answers(retrieve=Candidates.of(["a", "b", "c"], "near")))
    assert found.item_ids.tolist() == ["a", "b"]


def test_nobody_finds_anything() -> None:
    found, fallbacks = retrieved(one=Answers())
    assert len(found) == 0
    assert fallbacks == []


@pytest.mark.parametrize("answer", [["a", "b"], {"a": 1}, np.array(["a"]), ValueError("no")])
def test_a_retriever_that_fails_is_skipped(answer: Any) -> None:
    found, fallbacks = retrieved(
        bad=Answers(retrieve=answer), good=Answers(retrieve=Candidates.of(["c"], "popular"))
    )
    assert found.item_ids.tolist() == ["c"]
    assert (only(fallbacks).step, only(fallbacks).plugin) == ("retrieve", "bad")


def test_too_many_sources_cost_the_last_not_the_request() -> None:
    plugins = {
        f"p{number}": Answers(retrieve=Candidates.of([f"i{number}"], f"source-{number}"))
        for number in range(70)
    }
    found, fallbacks = retrieved(100, **plugins)
    assert len(found) == 64
    assert len(fallbacks) == 6
    assert "64" in fallbacks[0].reason


# ---- masks ----------------------------------------------------------------------------------------------


def allowed(**plugins: Answers) -> tuple[list[bool], list[Fallback]]:
    fallbacks: list[Fallback] = []
    return engine_of(**plugins).filter(REQUEST, FOUND, fallbacks).tolist(), fallbacks


def test_masks_are_anded() -> None:
    mask, fallbacks = allowed(
        one=Answers(filter=np.array([True, True, False])),
        two=Answers(filter=[False, True, True]),
        three=Answers(),
    )
    assert mask == [False, True, False]
    assert fallbacks == []


def test_without_filters_everybody_may_be_shown() -> None:
    assert allowed(one=Answers()) == ([True] * 3, [])


BAD_MASKS = [
    np.array([True, True]),
    np.array([1, 1, 1]),
    np.array([1.0, np.nan, 0.0]),
    "yes",
    np.ones((3, 1), bool),
    RuntimeError("no"),
]


@pytest.mark.parametrize("answer", BAD_MASKS)
def test_a_filter_fails_closed(answer: Any) -> None:
    mask, fallbacks = allowed(bad=Answers(filter=answer), good=Answers(filter=np.ones(3, bool)))
    assert mask == [False] * 3
    assert (only(fallbacks).plugin, only(fallbacks).action) == ("bad", "nothing is eligible")


@pytest.mark.parametrize("answer", BAD_MASKS)
def test_a_filter_may_fail_open(answer: Any) -> None:
    mask, fallbacks = allowed(
        bad=FailsOpen(filter=answer), good=Answers(filter=np.array([True, False, True]))
    )
    assert mask == [True, False, True]
    assert (only(fallbacks).plugin, only(fallbacks).action) == ("bad", "ignored: it fails open")


# ---- columns --------------------------------------------------------------------------------------------


def columns(**plugins: Answers) -> tuple[Features, list[Fallback]]:
    fallbacks: list[Fallback] = []
    return engine_of(**plugins).enrich(REQUEST, FOUND, fallbacks), fallbacks


def test_columns_stand_side_by_side() -> None:
    one = Features(("a", "b"), np.arange(6, dtype=np.float32).reshape(3, 2))
    two = Features(("c",), np.full((3, 1), 9, np.float32))
    features, fallbacks = columns(one=Answers(enrich=one), two=Answers(enrich=two))
    assert features.names == ("a", "b", "c")
    assert features.values.tolist() == [[0, 1, 9], [2, 3, 9], [4, 5, 9]]
    assert fallbacks == []


def test_a_column_has_one_owner() -> None:
    one = Features(("a",), np.zeros((3, 1), np.float32))
    two = Features(("b", "a"), np.ones((3, 2), np.float32))
    features, fallbacks = columns(one=Answers(enrich=one), two=Answers(enrich=two))
    assert features.names == ("a",)
    assert features.values.tolist() == [[0.0]] * 3
    assert (only(fallbacks).plugin, only(fallbacks).action) == ("two", "columns missing")
    assert "['a']" in only(fallbacks).reason


@pytest.mark.parametrize(
    "answer", [Features(("a",), np.zeros((2, 1), np.float32)), np.zeros((3, 1)), RuntimeError("no")]
)
def test_columns_that_do_not_fit_are_missing(answer: Any) -> None:
    good = Features(("b",), np.ones((3, 1), np.float32))
    features, fallbacks = columns(bad=Answers(enrich=answer), good=Answers(enrich=good))
    assert features.names == ("b",)
    assert only(fallbacks).plugin == "bad"


# ---- scores ---------------------------------------------------------------------------------------------


def scored(**plugins: Answers) -> tuple[Scores | None, list[Fallback]]:
    fallbacks: list[Fallback] = []
    return engine_of(**plugins).score(REQUEST, FOUND, Features.empty(3), fallbacks), fallbacks


def test_the_first_ranker_that_answers_is_believed() -> None:
    scores, fallbacks = scored(
        none=Answers(),
        first=Answers(score=Scores(np.array([1.0, 2.0, 3.0]), version="v1")),
        second=Answers(score=Scores(np.zeros(3), version="v2")),
    )
    assert scores is not None
    assert scores.version == "v1"
    assert scores.values.tolist() == [1.0, 2.0, 3.0]
    assert fallbacks == []


def test_a_ranker_that_raises_hands_over_to_the_next() -> None:
    scores, fallbacks = scored(
        bad=Answers(score=RuntimeError("out of memory")),
        good=Answers(score=Scores(np.ones(3, np.float32), version="v2")),
    )
    assert scores is not None
    assert scores.values.dtype == np.float64
    assert "out of memory" in only(fallbacks).reason


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Scores(np.array([1.0, np.nan, 2.0])), "'b'"),
        (Scores(np.array([1.0, 2.0, np.inf])), "'c'"),
        (Scores(np.zeros(2)), r"(2,)"),
        (Scores(np.array(["x", "y", "z"])), "convert"),  # type: ignore[arg-type] - a plugin's mistake
        ([1.0, 2.0, 3.0], "list"),
        (RuntimeError("no"), "no"),
    ],
)
def test_scores_nobody_can_rank_by_are_refused(answer: Any, told: str) -> None:
    scores, fallbacks = scored(bad=Answers(score=answer))
    assert scores is None
    assert told in only(fallbacks).reason
    assert only(fallbacks).action == "retrieval order"


# ---- slates ---------------------------------------------------------------------------------------------


def slate_of(*order: int) -> Slate:
    k = len(order)
    every = np.ones((k, 3), np.bool_)
    return Slate(np.array(order), np.full(k, 0.5), ("explore",) * k, "test", 0, eligible=every, support=every)


def accept(slate: Slate) -> None:
    if 2 in slate.order:
        raise ValueError("row 2 is forbidden")


def explored(
    check: Callable[[Slate], None] = accept, **plugins: Answers
) -> tuple[Slate | None, list[Fallback]]:
    fallbacks: list[Fallback] = []
    return engine_of(**plugins).explore(REQUEST, RANKING, 2, 1, check, fallbacks), fallbacks


def test_the_first_slate_is_taken() -> None:
    slate, fallbacks = explored(one=Answers(explore=slate_of(1, 0)), two=Answers(explore=slate_of(0, 1)))
    assert slate is not None
    assert slate.order.tolist() == [1, 0]
    assert fallbacks == []


@pytest.mark.parametrize("answer", [slate_of(0, 2), [0, 1], RuntimeError("no")])
def test_a_slate_that_may_not_be_shown_is_replaced(answer: Any) -> None:
    slate, fallbacks = explored(bad=Answers(explore=answer))
    assert slate is None
    assert (only(fallbacks).plugin, only(fallbacks).action) == ("bad", "score order")


# ---- telling --------------------------------------------------------------------------------------------


class Listener:
    """Hears of everything, and one of them always raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.heard: list[str] = []
        self._error = error

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if self._error is not None:
            raise self._error

    @hookimpl
    def ranking_log_decision(self) -> None:
        self._hear("decision")

    @hookimpl
    def ranking_observe_impressions(self) -> None:
        self._hear("impressions")

    @hookimpl
    def ranking_observe_rewards(self) -> None:
        self._hear("rewards")


def test_every_listener_is_told_whatever_the_others_do() -> None:
    manager = RankingManager(on_error=lambda failure: None)
    broken, sound = Listener(RuntimeError("no")), Listener()
    manager.register(broken, "broken")
    manager.register(sound, "sound")
    engine = Engine(manager)
    engine.decided(None)  # type: ignore[arg-type] - only that it is passed on matters here
    engine.observe_impressions([])
    engine.observe_rewards([])
    assert sound.heard == broken.heard == ["decision", "impressions", "rewards"]
