"""What is refused before it reaches the stage, and how failures are told."""

import asyncio
import json

import pytest

from explorank.hooks.errors import InvalidPolicy
from explorank.host import Limits, create_app

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b'{"slots": }', "line 1, column 11"),
        (b'{\n"slots": 1,}', "line 2, column 11"),
        (b"\xff\xfe", "line 1, column 1"),
        (b'"\\ud800"', "line 1, column 2"),
        (b"[" * 100_000, "line 1, column 1026"),
        (b'{"slots": 1e999}', "line 1, column 11"),
        (b'{"slots": ' + b"9" * 5000 + b"}", "line 1, column 11"),
    ],
)
async def test_what_is_not_json_is_400_with_the_place(client, stage, body, where):
    response = await client.post("/v1/rank", content=body, headers=JSON)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:explorank:problem:malformed-json"
    assert response.json()["errors"][0]["where"] == where
    assert stage.asked == []


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
async def test_numbers_that_json_lacks_are_named(client, word):
    body = f'{{"item_ids": ["a"], "scores": [{word}]}}'.encode()
    response = await client.post("/v1/explore", content=body, headers=JSON)
    assert response.status_code == 400
    assert response.json()["errors"][0]["given"] == word


async def test_of_equal_keys_the_last_counts(client):
    response = await client.post("/v1/rank", content=b'{"slots": 1, "slots": 2}', headers=JSON)
    assert len(response.json()["items"]) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
async def test_anything_but_plain_json_is_415(client, headers):
    response = await client.post("/v1/rank", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert response.headers["accept"] == "application/json"


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", "application/vnd.shop+json"]
)
async def test_json_goes_by_several_names(client, content_type):
    response = await client.post("/v1/rank", content=b"{}", headers={"Content-Type": content_type})
    assert response.status_code == 200


async def chunks(sizes, sent):
    for size in sizes:
        sent.append(size)
        yield b" " * size


@pytest.mark.parametrize(("padding", "status"), [(98, 200), (99, 413), (10_000, 413)])
async def test_the_body_limit_is_exact(stage, connect, padding, status):
    async with connect(create_app(stage, limits=Limits(body_bytes=100))) as client:
        response = await client.post("/v1/rank", content=b"{}" + b" " * padding, headers=JSON)
        assert response.status_code == status


async def test_an_oversized_body_is_refused_while_it_arrives(stage, connect):
    sent = []
    async with connect(create_app(stage, limits=Limits(body_bytes=100))) as client:
        response = await client.post("/v1/rank", content=chunks([40] * 1000, sent), headers=JSON)
    assert response.status_code == 413
    assert response.headers["connection"] == "close"
    assert len(sent) == 3


async def test_a_declared_oversized_body_is_not_read_at_all(stage, connect):
    sent = []
    async with connect(create_app(stage, limits=Limits(body_bytes=100))) as client:
        headers = JSON | {"Content-Length": "1" + "0" * 30}
        response = await client.post("/v1/rank", content=chunks([40], sent), headers=headers)
    assert response.status_code == 413
    assert sent == []


async def test_a_body_that_never_ends_is_408(stage, connect):
    async def trickle():
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    async with connect(create_app(stage, limits=Limits(body_timeout_s=0.05))) as client:
        response = await client.post("/v1/rank", content=trickle(), headers=JSON)
    assert response.status_code == 408


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/rank/", "/v1/ranks", "/v1/decisions/", "/v1/decisions/a/b"]
)
async def test_an_unknown_path_is_404(client, path):
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["type"] == "urn:explorank:problem:unknown-route"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/rank", {"POST"}),
        ("DELETE", "/v1/rewards", {"POST"}),
        ("OPTIONS", "/v1/rank", {"POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("BREW", "/v1/decisions/x", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_one(client, method, path, allowed):
    response = await client.request(method, path)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("failure", [RuntimeError("secret"), InvalidPolicy("secret"), KeyError("secret")])
async def test_a_failure_is_500_without_its_cause_which_is_logged(client, stage, failure, caplog):
    stage.failure = failure
    response = await client.post("/v1/rank", json={}, headers={"X-Request-Id": "req-1"})
    assert response.status_code == 500
    assert response.json()["type"] == "urn:explorank:problem:internal"
    assert "secret" not in response.text
    assert "req-1" in response.json()["detail"]
    assert "secret" in caplog.text
    assert "req-1" in caplog.text
    stage.failure = None
    assert (await client.post("/v1/rank", json={})).status_code == 200


async def test_a_request_id_is_echoed_or_made(client):
    given = await client.get("/healthz", headers={"X-Request-Id": "a.b:c-9"})
    assert given.headers["x-request-id"] == "a.b:c-9"
    for unfit in ("two words", "x" * 129, "né", ""):
        made = await client.get("/healthz", headers={"X-Request-Id": unfit.encode()})
        assert len(made.headers["x-request-id"]) == 32


async def test_answers_are_not_cached(client):
    response = await client.post("/v1/rank", json={})
    assert response.headers["cache-control"] == "no-store"


async def test_readiness_names_what_is_missing(client, stage):
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    stage.not_ready = {"ranker": "no model was trained", "index": "index.faiss is corrupt"}
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert [(error["where"], error["rule"]) for error in response.json()["errors"]] == [
        ("index", "index.faiss is corrupt"),
        ("ranker", "no model was trained"),
    ]
    assert (await client.get("/healthz")).json() == {"status": "up"}


async def test_the_kill_switch_stops_and_resumes(client, stage):
    response = await client.post("/v1/admin/kill-switch", json={"engaged": True, "reason": "a test"})
    assert response.json() == {"engaged": True}
    assert stage.kill_switch.reason == "a test"
    response = await client.post("/v1/admin/kill-switch", json={"engaged": False})
    assert response.json() == {"engaged": False}
    assert stage.kill_switch.reason is None


@pytest.mark.parametrize(
    "body", [{"engaged": True}, {"engaged": True, "reason": " "}, {"engaged": "yes"}, {}]
)
async def test_the_kill_switch_wants_a_reason(client, stage, body):
    assert (await client.post("/v1/admin/kill-switch", json=body)).status_code == 422
    assert not stage.kill_switch.engaged


async def test_a_large_body_of_errors_is_answered_briefly(client):
    body = {"item_ids": [None] * 100_000, "scores": ["x"] * 100_000}
    response = await client.post("/v1/explore", content=json.dumps(body), headers=JSON)
    assert response.status_code in {413, 422}
    assert len(response.content) < 2_000
