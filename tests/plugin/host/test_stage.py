"""The host over a real stage: a decision's whole life, on disk."""

import pytest

import explorank
from explorank.host import create_app

SETTINGS = """
version: 1
ranker: null
retrieval: {retrievers: []}
guards: [{use: block_list, items: [blocked]}]
exploration:
  mode: live
  holdout: 0.0
  policy: {use: epsilon_greedy, epsilon: 0.5}
"""
CANDIDATES = {"item_ids": ["a", "b", "c", "blocked"], "scores": [3, 2, 1, 9], "slots": 2, "user_id": "u1"}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "explorank.yaml"
    path.write_text(SETTINGS)
    return path


async def test_a_decision_from_question_to_reward(config, connect):
    app = create_app(explorank.load(config))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        decision = (await client.post("/v1/explore", json=CANDIDATES)).json()
        decision_id, shown = decision["decision_id"], [item["item_id"] for item in decision["items"]]
        assert decision["logged"]
        assert decision["fallbacks"] == []
        assert "blocked" not in shown
        assert all(0 < item["propensity"] <= 1 for item in decision["items"])

        impression = {"decision_id": decision_id, "items_in_order": shown}
        assert (await client.post("/v1/shown", json=impression)).status_code == 200
        click = {"decision_id": decision_id, "slot": 0}
        rewards = [click, click, {**click, "value": 2}, {**click, "kind": "sale"}, {**click, "slot": 2}]
        answer = (await client.post("/v1/rewards", json=rewards)).json()
        assert [result["result"] for result in answer["results"]] == [
            "accepted",
            "duplicate",
            "rejected",
            "rejected",
            "rejected",
        ]
        record = (await client.get(f"/v1/decisions/{decision_id}")).json()
        assert [record["item_ids"][row] for row in record["slate"]["order"]] == shown
        assert record["request"]["user_id"] == "u1"
        status = await client.get("/v1/admin/status")
        assert {"epsilon_greedy"} <= {status.json()["policy"]}

    app = create_app(explorank.load(config))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert (await client.get(f"/v1/decisions/{decision_id}")).json() == record
        assert (await client.post("/v1/rewards", json=click)).json()["duplicate"] == 1


async def test_the_kill_switch_stops_exploration_at_the_next_request(config, connect):
    app = create_app(explorank.load(config))
    async with app.router.lifespan_context(app), connect(app) as client:
        switch = {"engaged": True, "reason": "a test"}
        await client.post("/v1/admin/kill-switch", json=switch)
        stopped = [(await client.post("/v1/explore", json=CANDIDATES)).json() for _ in range(20)]
        assert {tuple(item["item_id"] for item in each["items"]) for each in stopped} == {("a", "b")}
        assert {item["propensity"] for each in stopped for item in each["items"]} == {1.0}
        await client.post("/v1/admin/kill-switch", json={"engaged": False})
        resumed = [(await client.post("/v1/explore", json=CANDIDATES)).json() for _ in range(40)]
        assert len({tuple(item["item_id"] for item in each["items"]) for each in resumed}) > 1


async def test_a_stage_without_a_catalogue_answers_rank_with_nothing(config, connect):
    app = create_app(explorank.load(config))
    async with app.router.lifespan_context(app), connect(app) as client:
        response = await client.post("/v1/rank", json={"user_id": "u1"})
        assert response.status_code == 200
        assert response.json()["items"] == []
