"""The document is valid, complete, and its examples work. That answers keep it is checked by every client."""

import re

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import SecretStr

from explorank.host import Limits, Tokens, create_app


@pytest.fixture
async def document(client):
    return (await client.get("/openapi.json")).json()


async def test_the_document_is_valid_openapi_3_1(document):
    OpenAPIV31SpecValidator(document).validate()


async def test_every_route_is_described(stage, document):
    routes = {(route.path, method) for route in create_app(stage).routes for method in route.methods}
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert routes - described == {("/openapi.json", "GET"), ("/openapi.json", "HEAD")} | {
        (path, "HEAD") for path, method in described if method == "GET"
    }
    assert described <= routes


async def test_every_body_has_examples_that_keep_its_schema_and_are_understood(client, document):
    decision = (await client.post("/v1/rank", json={"slots": 2})).json()
    shown = [item["item_id"] for item in decision["items"]]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if "requestBody" not in operation:
                continue
            media = operation["requestBody"]["content"]["application/json"]
            assert media["examples"]
            for example in media["examples"].values():
                schema = media["schema"] | {"components": document["components"]}
                Draft202012Validator(schema).validate(example["value"])
                known = _about(example["value"], decision["decision_id"], shown)
                response = await client.post(path, json=known)
                assert response.status_code == 200, (path, example, response.text)


def _about(value, decision_id, shown):
    """Return an example with its made-up decision and items replaced by real ones."""
    if isinstance(value, list):
        return [_about(each, decision_id, shown) for each in value]
    if not isinstance(value, dict):
        return value
    real = {"decision_id": decision_id, "items_in_order": shown, "item_id": shown[0]}
    return {
        name: real[name] if name in real else _about(each, decision_id, shown) for name, each in value.items()
    }


async def test_fields_are_described_and_limits_stated(stage, connect, document):
    schemas = document["components"]["schemas"]
    assert schemas["RankRequest"]["properties"]["slots"]["maximum"] == 1000
    assert schemas["RankRequest"]["additionalProperties"] is False
    assert schemas["RankRequest"]["properties"]["user_id"]["description"].startswith("Leave out")
    assert schemas["RewardMessage"]["required"] == ["decision_id"]
    async with connect(create_app(stage, limits=Limits(slots=7))) as client:
        other = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert other["ExploreRequest"]["properties"]["slots"]["maximum"] == 7


async def test_scopes_are_stated_where_tokens_are_set(stage, connect, document):
    assert "security" not in document["paths"]["/v1/rank"]["post"]
    async with connect(create_app(stage, tokens=Tokens(admin=SecretStr("x")))) as client:
        closed = (await client.get("/openapi.json")).json()
    OpenAPIV31SpecValidator(closed).validate()
    assert closed["paths"]["/v1/rank"]["post"]["security"] == [{"token": ["rank"]}]
    assert closed["paths"]["/metrics"]["get"]["security"] == [{"token": ["admin"]}]
    assert "security" not in closed["paths"]["/healthz"]["get"]


async def test_no_schema_tells_of_its_making(document):
    assert not re.search(r"TypeAdapter|pydantic|__main__|explorank\.host", str(document))
