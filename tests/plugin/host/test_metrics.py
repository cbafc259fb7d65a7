"""What is counted, under labels that clients cannot multiply."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from explorank.hooks.types import Fallback
from explorank.host import create_app


@pytest.fixture
def counted(client):
    async def read():
        text = (await client.get("/metrics")).text
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    return read


async def test_decisions_and_their_fallbacks(client, stage, counted):
    await client.post("/v1/rank", json={})
    stage.fallbacks = (Fallback("score", "p", "r", "a"), Fallback("log", "p", "r", "a"))
    stage.propensity_known = stage.logged = False
    await client.post("/v1/explore", json={"item_ids": [], "scores": []})
    found = await counted()
    assert found["explorank_decisions_total", "explore", "greedy", "live"] == 2
    assert found["explorank_fallbacks_total", "score"] == 1
    assert found["explorank_fallbacks_total", "log"] == 1
    assert found[("explorank_decisions_unlogged_total",)] == 1
    assert found[("explorank_decisions_propensity_unknown_total",)] == 1


async def test_a_decision_served_again_is_counted_once_and_the_limits_figures_are_exposed(
    client, stage, counted
):
    await client.post("/v1/rank", json={})
    stage.repeated = True
    assert (await client.post("/v1/rank", json={})).json()["repeated"]
    stage.limits = {"repeats": 1, "withheld_slots": 7, "rejections": 2}
    found = await counted()
    assert found["explorank_decisions_total", "explore", "greedy", "live"] == 1
    assert found[("explorank_decisions_repeated_total",)] == 1
    assert found[("explorank_explored_slots_withheld_total",)] == 7
    assert found[("explorank_rejections_total",)] == 2
    assert found[("explorank_limits_unchecked_total",)] == 0


async def test_rewards_by_what_became_of_them(client, counted):
    decision = (await client.post("/v1/rank", json={})).json()["decision_id"]
    reward = {"decision_id": decision, "slot": 0}
    await client.post("/v1/rewards", json=[reward, reward, {"decision_id": "nope", "slot": 0}, 17])
    await client.post("/v1/rewards", json={"decision_id": "nope", "slot": 0})
    found = await counted()
    assert found["explorank_rewards_total", "accepted"] == 1
    assert found["explorank_rewards_total", "duplicate"] == 1
    assert found["explorank_rewards_total", "rejected"] == 3


async def test_requests_by_route_method_and_status(client, stage, counted):
    await client.post("/v1/rank", json={})
    await client.post("/v1/rank", json={"slots": "x"})
    await client.get("/v1/rank")
    for number in range(5):
        await client.get(f"/v1/decisions/{number}")
        await client.get(f"/unknown/{number}")
        await client.request(f"BREW{number}", "/healthz")
    stage.failure = RuntimeError()
    await client.post("/v1/rank", json={})
    found = await counted()
    assert {
        frozenset(labels): value
        for (name, *labels), value in found.items()
        if name == "explorank_http_requests_total" and "/openapi.json" not in labels
    } == {
        frozenset({"/v1/rank", "200", "POST"}): 1,
        frozenset({"/v1/rank", "422", "POST"}): 1,
        frozenset({"/v1/rank", "405", "GET"}): 1,
        frozenset({"/v1/rank", "500", "POST"}): 1,
        frozenset({"/v1/decisions/{decision_id}", "404", "GET"}): 5,
        frozenset({"unmatched", "404", "GET"}): 5,
        frozenset({"/healthz", "405", "other"}): 5,
    }
    assert found["explorank_http_request_duration_seconds_count", "/v1/rank"] == 4


async def test_the_kill_switch_is_read_at_every_scrape(client, stage, counted):
    assert (await counted())[("explorank_kill_switch_engaged",)] == 0
    stage.kill_switch.engage("a test")
    assert (await counted())[("explorank_kill_switch_engaged",)] == 1


async def test_a_client_that_leaves_is_counted_as_such(stage, connect):
    app = create_app(stage)
    sent = []

    async def leave():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/rank", "query_string": b"", "headers": headers}
    await app(scope, leave, send)
    assert sent == []
    async with connect(app) as client:
        text = (await client.get("/metrics")).text
    assert 'method="POST",route="/v1/rank",status="disconnected"} 1.0' in text


async def test_two_applications_count_apart(client, stage, connect):
    await client.post("/v1/rank", json={})
    async with connect(create_app(stage)) as other:
        assert "explorank_decisions_total{" not in (await other.get("/metrics")).text


async def test_a_process_that_is_alone_shares_nothing_whatever_libraries_prepare(
    stage, connect, monkeypatch, tmp_path
):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))  # as Feast does when it is imported
    async with connect(create_app(stage)) as client:
        await client.post("/v1/rank", json={})
        text = (await client.get("/metrics")).text
    assert 'explorank_decisions_total{arm="explore",mode="live",policy="greedy"} 1.0' in text
    assert "process_cpu_seconds_total" in text
