"""Who may call what."""

import pytest
from pydantic import SecretStr

from explorank.host import InvalidToken, Scope, Tokens, create_app
from explorank.settings import TokenSettings

TOKENS = Tokens(rank=SecretStr("r" * 20), reward=SecretStr("w" * 20), admin=SecretStr("a" * 20))

CALLS = [
    ("POST", "/v1/rank", {}, Scope.RANK),
    ("POST", "/v1/explore", {"item_ids": ["a"], "scores": [1]}, Scope.RANK),
    ("GET", "/v1/decisions/d0", None, Scope.RANK),
    ("POST", "/v1/shown", {"decision_id": "d0", "items_in_order": []}, Scope.REWARD),
    ("POST", "/v1/rewards", [], Scope.REWARD),
    ("GET", "/metrics", None, Scope.ADMIN),
    ("GET", "/v1/admin/status", None, Scope.ADMIN),
    ("POST", "/v1/admin/kill-switch", {"engaged": False}, Scope.ADMIN),
]


@pytest.mark.parametrize(("method", "path", "body", "scope"), CALLS)
async def test_each_call_takes_its_own_scope_and_admin_only(stage, connect, method, path, body, scope):
    app = create_app(stage, tokens=TOKENS)
    async with connect(app, Authorization="Bearer " + "a" * 20) as client:
        await client.post("/v1/rank", json={})
        assert (await client.request(method, path, json=body)).status_code == 200
    async with connect(app) as client:
        response = await client.request(method, path, json=body)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="explorank"'
    for other, letter in ((Scope.RANK, "r"), (Scope.REWARD, "w")):
        async with connect(app, Authorization="Bearer " + letter * 20) as client:
            response = await client.request(method, path, json=body)
        assert response.status_code == (200 if other is scope else 403)
        if other is not scope:
            assert f'scope="{scope.value}"' in response.headers["www-authenticate"]


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer " + "r" * 19,
        "Bearer " + "r" * 21,
        "Bearer " + "r" * 20 + " x",
        "Basic " + "r" * 20,
        "r" * 20,
        "Bearer é".encode(),
        b"Bearer \xff\xfe",
    ],
)
async def test_a_wrong_token_is_401_and_never_reaches_the_stage(stage, connect, header):
    async with connect(create_app(stage, tokens=TOKENS)) as client:
        response = await client.post("/v1/rank", json={}, headers={"Authorization": header})
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert stage.asked == []


async def test_two_authorization_headers_are_refused(stage, connect):
    headers = [("Authorization", "Bearer " + "r" * 20)] * 2 + [("Content-Type", "application/json")]
    async with connect(create_app(stage, tokens=TOKENS)) as client:
        assert (await client.post("/v1/rank", content=b"{}", headers=headers)).status_code == 401


async def test_the_token_is_asked_for_before_the_body_is_read(stage, connect):
    async def body():
        raise AssertionError("the body was read")
        yield b""

    async with connect(create_app(stage, tokens=TOKENS)) as client:
        assert (await client.post("/v1/rank", content=body())).status_code == 401


async def test_probes_and_the_document_are_open(stage, connect):
    async with connect(create_app(stage, tokens=TOKENS)) as client:
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await client.get(path)).status_code == 200


async def test_without_tokens_everything_is_open(client):
    for method, path, body, _ in CALLS:
        assert (await client.request(method, path, json=body)).status_code in {200, 404}


async def test_one_token_closes_the_other_scopes_too(stage, connect):
    app = create_app(stage, tokens=Tokens(rank=SecretStr("r" * 20)))
    async with connect(app, Authorization="Bearer " + "r" * 20) as client:
        assert (await client.post("/v1/rank", json={})).status_code == 200
        assert (await client.post("/v1/rewards", json=[])).status_code == 403
    async with connect(app) as client:
        assert (await client.get("/metrics")).status_code == 401


def test_one_secret_may_open_two_scopes():
    tokens = Tokens(rank=SecretStr("same"), reward=SecretStr("same"))
    assert tokens.granted(b"same") == {Scope.RANK, Scope.REWARD}
    assert tokens.granted(b"other") == frozenset()


@pytest.mark.parametrize("secret", ["", " ", "two words", "é", "line\n"])
def test_a_token_that_no_header_carries_is_refused(secret):
    with pytest.raises(InvalidToken, match="'rank'"):
        Tokens(rank=SecretStr(secret))


def test_secrets_do_not_print():
    assert "aaaa" not in repr(TOKENS)


def test_tokens_come_from_the_settings():
    settings = TokenSettings(rank=SecretStr("r"), admin=SecretStr("a"))
    assert Tokens.of(settings) == Tokens(rank=SecretStr("r"), admin=SecretStr("a"))
    assert Tokens.of(TokenSettings()).open
