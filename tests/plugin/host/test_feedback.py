"""`shown`, `rewards` and reading decisions back."""

import pytest

from explorank.hooks.errors import LogUnavailable
from explorank.host import Limits, create_app


@pytest.fixture
async def decision_id(client):
    return (await client.post("/v1/rank", json={"slots": 3})).json()["decision_id"]


async def test_shown_records_what_was_displayed(client, stage, decision_id):
    response = await client.post(
        "/v1/shown", json={"decision_id": decision_id, "items_in_order": ["i1", "i0"]}
    )
    assert response.status_code == 200
    assert response.json() == {"decision_id": decision_id, "items": 2}
    assert stage.displayed == {decision_id: ("i1", "i0")}


async def test_shown_refuses_what_was_never_answered(client, decision_id):
    unknown = await client.post("/v1/shown", json={"decision_id": "nope", "items_in_order": []})
    assert unknown.status_code == 404
    assert unknown.json()["type"] == "urn:explorank:problem:unknown-decision"
    other = await client.post("/v1/shown", json={"decision_id": decision_id, "items_in_order": ["i9"]})
    assert other.status_code == 422


async def test_one_reward_counts_once(client, stage, decision_id):
    reward = {"decision_id": decision_id, "slot": 0, "value": 0.5, "reward_id": 17}
    first = await client.post("/v1/rewards", json=reward)
    again = await client.post("/v1/rewards", json=reward)
    assert first.json() == {
        "accepted": 1,
        "duplicate": 0,
        "rejected": 0,
        "results": [{"result": "accepted", "problem": None}],
    }
    assert again.status_code == 200
    assert again.json()["results"] == [{"result": "duplicate", "problem": None}]
    assert stage.rewards == {"17": 0.5}


@pytest.mark.parametrize(
    ("change", "status", "where"),
    [
        ({"decision_id": "nope"}, 404, "$.decision_id"),
        ({"value": 2}, 422, "$"),
        ({"slot": 7}, 422, "$"),
        ({"slot": -1}, 422, "$.slot"),
        ({"slot": None}, 422, "$"),
        ({"slot": None, "item_id": "i9"}, 422, "$"),
        ({"value": "1"}, 422, "$.value"),
        ({"time": -1}, 422, "$.time"),
        ({"time": 1e300}, 422, "$.time"),
        ({"kind": ""}, 422, "$.kind"),
        ({"valeu": 1}, 422, "$.valeu"),
    ],
)
async def test_a_single_refused_reward_is_a_problem(client, stage, decision_id, change, status, where):
    response = await client.post("/v1/rewards", json={"decision_id": decision_id, "slot": 0} | change)
    assert response.status_code == status
    assert response.json()["errors"][0]["where"] == where
    assert stage.rewards == {}


@pytest.mark.parametrize("envelope", ["list", "object"])
async def test_several_rewards_are_judged_one_by_one(client, stage, decision_id, envelope):
    rewards = [
        {"decision_id": decision_id, "item_id": "i0"},
        {"decision_id": "nope", "slot": 0},
        {"decision_id": decision_id, "slot": 0},
        {"decision_id": decision_id, "slot": 1, "value": 5},
        {"decision_id": decision_id, "slot": "1"},
        17,
        {"decision_id": decision_id, "slot": 2},
    ]
    body, prefix = (rewards, "$") if envelope == "list" else ({"rewards": rewards}, "$.rewards")
    response = await client.post("/v1/rewards", json=body)
    answer = response.json()
    assert response.status_code == 200
    assert [each["result"] for each in answer["results"]] == [
        "accepted",
        "rejected",
        "duplicate",
        "rejected",
        "rejected",
        "rejected",
        "accepted",
    ]
    assert (answer["accepted"], answer["duplicate"], answer["rejected"]) == (2, 1, 4)
    assert [each["problem"] and each["problem"]["status"] for each in answer["results"]] == [
        None,
        404,
        None,
        422,
        422,
        422,
        None,
    ]
    assert answer["results"][4]["problem"]["errors"][0]["where"] == f"{prefix}[4].slot"
    assert len(stage.rewards) == 2


async def test_no_rewards_are_no_error(client):
    response = await client.post("/v1/rewards", json=[])
    assert response.json() == {"accepted": 0, "duplicate": 0, "rejected": 0, "results": []}


@pytest.mark.parametrize("body", [{"rewards": [], "rewrads": 1}, {"rewards": 1}, 17, "reward"])
async def test_what_is_neither_one_reward_nor_several_is_422(client, body):
    assert (await client.post("/v1/rewards", json=body)).status_code == 422


async def test_more_rewards_than_the_limit_are_refused_as_a_whole(stage, connect):
    async with connect(create_app(stage, limits=Limits(rewards=2))) as client:
        decision = (await client.post("/v1/rank", json={})).json()["decision_id"]
        rewards = [{"decision_id": decision, "slot": slot} for slot in range(3)]
        assert (await client.post("/v1/rewards", json=rewards)).status_code == 422
        assert stage.rewards == {}
        assert (await client.post("/v1/rewards", json=rewards[:2])).json()["accepted"] == 2


@pytest.mark.parametrize("several", [False, True])
async def test_a_log_that_takes_nothing_is_503_and_hides_its_path(
    client, stage, decision_id, several, caplog
):
    stage.failure = LogUnavailable("/secret/place/log.sqlite is read-only")
    reward = {"decision_id": decision_id, "slot": 0}
    response = await client.post("/v1/rewards", json=[reward] if several else reward)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "/secret" not in response.text
    assert "/secret" in caplog.text


async def test_a_logged_decision_is_read_back_whole(client, decision_id):
    response = await client.get(f"/v1/decisions/{decision_id}")
    decision = response.json()
    assert response.status_code == 200
    assert decision["request"]["time"] == 1_700_000_000.0
    assert decision["item_ids"][:2] == ["i0", "i1"]
    assert decision["slate"]["order"] == [0, 1, 2]
    assert decision["slate"]["seed"] == str(2**100)
    assert decision["slate"]["eligible"] == [list(range(30))] * 3
    assert decision["features"] == {"names": ["age_days"], "rows": [0], "values": [[None]]}
    assert decision["shadow"] is None


@pytest.mark.parametrize("decision_id", ["nope", "%00", "x" * 300, "%F0%9F%A6%94", "%ff"])
async def test_an_unknown_decision_is_404(client, decision_id):
    response = await client.get(f"/v1/decisions/{decision_id}")
    assert response.status_code == 404
    assert response.json()["type"] == "urn:explorank:problem:unknown-decision"
