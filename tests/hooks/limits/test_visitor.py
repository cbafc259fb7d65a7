"""Who asks, and whether it is the same question."""

from __future__ import annotations

import numpy as np
import pytest

from explorank.hooks.limits import day_of, question_of, visitor_of
from explorank.hooks.types import RankingRequest


def request_of(**fields):
    return RankingRequest(**{"decision_id": "d", "slots": 3, **fields})


def test_a_user_a_session_and_nobody():
    user = visitor_of(request_of(user_id="7"))
    session = visitor_of(request_of(context={"session_id": "7"}))
    assert user is not None
    assert session is not None
    assert len(user) == len(session) == 16
    assert user != session
    assert user != visitor_of(request_of(user_id="8"))
    assert user == visitor_of(request_of(user_id="7", surface="search", context={"session_id": "9"}))
    assert visitor_of(request_of()) is None
    assert visitor_of(request_of(user_id="", context={"session_id": ""})) is None
    assert visitor_of(request_of(user_id="\ud800")) is not None  # half a character is a name too


@pytest.mark.parametrize(("time", "day"), [(0.0, 0), (86_399.999, 0), (86_400.0, 1), (-1.0, -1)])
def test_days_count_from_the_epoch(time, day):
    assert day_of(time) == day


def test_questions_differ_by_what_is_asked_and_not_by_who_asks():
    question = question_of(request_of(context={"page": 1, "history": ["a"]}), {"history"})
    assert question == question_of(
        request_of(
            decision_id="e",
            user_id="u",
            time=9.0,
            exclude=frozenset("x"),
            context={"history": ["b"], "page": 1},
        ),
        {"history"},
    )
    assert question != question_of(request_of(context={"page": 2}), {"history"})
    assert question != question_of(request_of(context={"page": 1}, similar_to="a"), {"history"})
    assert question != question_of(request_of(context={"page": 1, "history": ["a"]}))


def test_any_context_can_be_compared():
    def context():
        return {
            "nested": {"b": 1, "a": [2, None]},
            "set": {"x", "y"},
            "array": np.arange(3),
            "kind": RankingRequest,
            7: 1,
        }

    assert question_of(request_of(context=context())) == question_of(request_of(context=context()))
