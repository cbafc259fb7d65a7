"""Calls run on bounded threads; the event loop, probes and operators stay responsive; shutdown is orderly."""

import asyncio

import pytest

from explorank.host import Limits, create_app


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def slow(stage):
    stage.may_go_on.clear()
    yield stage
    stage.may_go_on.set()


async def test_a_host_full_of_work_answers_probes_and_refuses_more_work(slow, connect):
    async with connect(create_app(slow, limits=Limits(threads=2, waiting=1))) as client:
        asking = [asyncio.create_task(client.post("/v1/rank", json={})) for _ in range(3)]
        await until(lambda: len(slow.asked) == 2)
        for path in ("/healthz", "/readyz", "/metrics", "/v1/admin/status"):
            assert (await client.get(path)).status_code == 200
        stop = {"engaged": True, "reason": "full"}
        assert (await client.post("/v1/admin/kill-switch", json=stop)).status_code == 200
        refused = await client.post("/v1/rank", json={})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert len(slow.asked) == 2
        slow.may_go_on.set()
        assert [response.status_code for response in await asyncio.gather(*asking)] == [200] * 3
        assert (await client.post("/v1/rank", json={})).status_code == 200


async def test_a_call_whose_client_left_still_holds_its_thread(slow, connect):
    async with connect(create_app(slow, limits=Limits(threads=1, waiting=0))) as client:
        left = asyncio.create_task(client.post("/v1/rank", json={}))
        await until(lambda: len(slow.asked) == 1)
        left.cancel()
        await asyncio.wait([left])
        assert (await client.post("/v1/rank", json={})).status_code == 503
        slow.may_go_on.set()
        await until(lambda: len(slow.records) == 1)
        async with asyncio.timeout(60):  # the thread is given back a moment after it has answered
            while (await client.post("/v1/rank", json={})).status_code == 503:
                await asyncio.sleep(0.001)


async def test_a_failure_whose_client_left_is_silent(slow, connect, caplog):
    slow.failure = RuntimeError("nobody waits for this")
    app = create_app(slow)
    async with app.router.lifespan_context(app), connect(app) as client:
        left = asyncio.create_task(client.post("/v1/rank", json={}))
        await until(lambda: len(slow.asked) == 1)
        left.cancel()
        await asyncio.wait([left])
        slow.may_go_on.set()
    assert "never retrieved" not in caplog.text


async def test_the_stage_is_closed_once_and_after_the_last_call(slow, connect):
    app = create_app(slow)
    async with connect(app) as client:
        async with app.router.lifespan_context(app):
            asking = asyncio.create_task(client.post("/v1/rank", json={}))
            await until(lambda: len(slow.asked) == 1)
            asyncio.get_running_loop().call_later(0.05, slow.may_go_on.set)
        assert (await asking).status_code == 200
    assert slow.closed == 1


async def test_many_clients_at_once_get_their_own_answers(stage, connect):
    async with connect(create_app(stage, limits=Limits(waiting=200))) as client:
        responses = await asyncio.gather(
            *(client.post("/v1/explore", json={"item_ids": [n], "scores": [n]}) for n in range(100))
        )
    assert [response.json()["items"][0]["item_id"] for response in responses] == [str(n) for n in range(100)]
    assert len({response.json()["decision_id"] for response in responses}) == 100


@pytest.mark.parametrize("name", ["body_bytes", "body_timeout_s", "slots", "rewards", "threads"])
def test_limits_that_refuse_everything_are_refused(name):
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})
    with pytest.raises(ValueError, match="waiting"):
        Limits(waiting=-1)
