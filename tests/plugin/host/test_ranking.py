"""`rank` and `explore`: what the stage is asked and what the client gets."""

import numpy as np
import pytest

from explorank.hooks.types import Fallback
from explorank.host import Limits, create_app


async def test_rank_passes_the_question_on_and_answers_with_the_decision(client, stage):
    response = await client.post(
        "/v1/rank",
        json={
            "user_id": 196,
            "slots": 2,
            "surface": "home",
            "context": {"history": [50, "x"], "device": {"kind": "phone"}},
            "exclude": ["i0", 7],
            "similar_to": 50,
        },
    )
    assert response.status_code == 200
    assert stage.asked == [
        {
            "user_id": "196",
            "slots": 2,
            "surface": "home",
            "context": {"history": ["50", "x"], "device": {"kind": "phone"}},
            "exclude": ["i0", "7"],
            "similar_to": "50",
        }
    ]
    assert response.json() == {
        "decision_id": "d0",
        "items": [
            {
                "slot": slot,
                "item_id": f"i{slot + 1}",
                "score": 29.0 - slot,
                "propensity": 1.0,
                "method": "score",
                "sources": ["popular"],
            }
            for slot in (0, 1)
        ],
        "policy": "greedy",
        "policy_version": 3,
        "mode": "live",
        "arm": "explore",
        "versions": {"ranker": "7"},
        "fallbacks": [],
        "propensity_known": True,
        "logged": True,
        "repeated": False,
    }


async def test_an_empty_object_is_an_anonymous_visitor_with_the_defaults(client, stage):
    response = await client.post("/v1/rank", json={})
    assert len(response.json()["items"]) == 10
    assert stage.asked[0]["user_id"] is None
    assert stage.asked[0]["context"] == {}


async def test_fallbacks_are_named(client, stage):
    stage.fallbacks = (Fallback("score", "lightgbm", "no model", "retrieval order"),)
    response = await client.post("/v1/rank", json={})
    assert response.json()["fallbacks"] == [
        {"step": "score", "plugin": "lightgbm", "reason": "no model", "action": "retrieval order"}
    ]


async def test_explore_takes_the_hosts_candidates(client, stage):
    response = await client.post(
        "/v1/explore",
        json={
            "item_ids": ["a", 2, "c"],
            "scores": [0.1, 0.9, 5],
            "features": [[1, 2], [3, 4], [5, 6]],
            "slots": 2,
            "exclude": ["c"],
        },
    )
    assert [item["item_id"] for item in response.json()["items"]] == ["2", "a"]
    asked = stage.asked[0]
    assert asked["item_ids"] == ["a", "2", "c"]
    assert asked["scores"].dtype == np.float64
    assert asked["features"].dtype == np.float32
    assert asked["features"].tolist() == [[1, 2], [3, 4], [5, 6]]


async def test_no_candidates_and_no_slots_are_answered_with_nothing(client):
    for path, body in (
        ("/v1/explore", {"item_ids": [], "scores": []}),
        ("/v1/rank", {"slots": 0}),
    ):
        response = await client.post(path, json=body)
        assert response.status_code == 200
        assert response.json()["items"] == []


async def test_what_the_stage_refuses_is_422(client):
    response = await client.post("/v1/explore", json={"item_ids": ["a"], "scores": [1], "features": [[1]]})
    assert response.status_code == 422
    assert "2 features, not 1" in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "where", "rule"),
    [
        ({"slots": 1001}, "$.slots", "less than or equal to 1000"),
        ({"slots": -1}, "$.slots", "greater than or equal to 0"),
        ({"slots": "10"}, "$.slots", "valid integer"),
        ({"slots": 1.5}, "$.slots", "integer"),
        ({"slots": True}, "$.slots", "integer"),
        ({"slots": 10**30}, "$.slots", "integer"),
        ({"slot": 3}, "$.slot", "the nearest known is `slots`"),
        ({"colour": 3}, "$.colour", "unknown field"),
        ({"user_id": True}, "$.user_id", "a string or a whole number"),
        ({"user_id": 1.5}, "$.user_id", "a string or a whole number"),
        ({"user_id": ""}, "$.user_id", "at least 1 character"),
        ({"user_id": "a\x00"}, "$.user_id", "no control characters"),
        ({"user_id": "u" * 257}, "$.user_id", "at most 256 characters"),
        ({"exclude": ["a", None]}, "$.exclude[1]", "a string or a whole number"),
        ({"context": []}, "$.context", "JSON object"),
        ({"context": {"history": "a"}}, "$.context.history", "valid list"),
        ({"surface": None}, "$.surface", "valid string"),
        ([], "$", "JSON object"),
        ("rank", "$", "JSON object"),
    ],
)
async def test_a_broken_rule_is_422_and_names_field_and_rule(client, stage, body, where, rule):
    response = await client.post("/v1/rank", json=body)
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["where"] == where
    assert rule in error["rule"]
    assert stage.asked == []


@pytest.mark.parametrize(
    ("body", "where", "rule"),
    [
        ({"item_ids": ["a"]}, "$.scores", "required"),
        ({"item_ids": ["a"], "scores": [1, 2]}, "$.scores", "2 scores for 1 item ids"),
        ({"item_ids": ["a"], "scores": ["1"]}, "$.scores[0]", "valid number"),
        ({"item_ids": ["a", "a"], "scores": [1, 2]}, "$.item_ids", "'a' is listed twice"),
        ({"item_ids": [1, "1"], "scores": [1, 2]}, "$.item_ids", "'1' is listed twice"),
        ({"item_ids": ["a"], "scores": [1], "features": []}, "$.features", "0 features for 1 item ids"),
        ({"item_ids": ["a"], "scores": [1], "features": [[1e39]]}, "$.features[0][0]", "less than or equal"),
        (
            {"item_ids": ["a", "b"], "scores": [1, 2], "features": [[1], [1, 2]]},
            "$.features",
            "same length",
        ),
    ],
)
async def test_candidates_that_do_not_fit_together_are_422(client, body, where, rule):
    response = await client.post("/v1/explore", json=body)
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["where"] == where
    assert rule in error["rule"]


@pytest.mark.parametrize(("depth", "status"), [(16, 200), (17, 422), (900, 422)])
async def test_context_nests_to_a_stated_depth(client, depth, status):
    body = b'{"context": {"a": ' + b"[" * depth + b"1" + b"]" * depth + b"}}"
    response = await client.post("/v1/rank", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status


async def test_the_slot_limit_is_the_hosts(stage, connect):
    async with connect(create_app(stage, limits=Limits(slots=3))) as client:
        assert len((await client.post("/v1/rank", json={})).json()["items"]) == 3
        assert (await client.post("/v1/rank", json={"slots": 4})).status_code == 422


async def test_many_broken_rules_are_listed_to_a_bound(client):
    response = await client.post("/v1/rank", json={f"x{number}": 1 for number in range(1000)})
    assert len(response.json()["errors"]) == 20
    assert "1000 rules" in response.json()["detail"]
