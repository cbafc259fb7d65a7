"""No input, however wrong, is answered with 5xx."""

import asyncio
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import explorank
from explorank.host import create_app

PATHS = ["/v1/rank", "/v1/explore", "/v1/shown", "/v1/rewards", "/v1/admin/kill-switch"]
FIELDS = [
    "user_id",
    "slots",
    "surface",
    "context",
    "exclude",
    "similar_to",
    "item_ids",
    "scores",
    "features",
    "decision_id",
    "items_in_order",
    "item_id",
    "slot",
    "kind",
    "value",
    "reward_id",
    "time",
    "rewards",
    "history",
    "engaged",
    "reason",
]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["d0", "i0", "a", "\x00", "\u202e", "1"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), inner)
    ),
    max_leaves=12,
)
NEARLY_RIGHT = {
    "/v1/rank": st.fixed_dictionaries(
        {}, optional={"slots": st.integers(-1, 200), "context": VALUES, "exclude": st.lists(SCALARS)}
    ),
    "/v1/explore": st.integers(0, 5).flatmap(
        lambda n: st.fixed_dictionaries(
            {
                "item_ids": st.lists(st.integers() | st.text(), min_size=n, max_size=n, unique=True),
                "scores": st.lists(
                    st.floats(allow_nan=False, allow_infinity=False) | SCALARS, min_size=n, max_size=n
                ),
            },
            optional={"features": VALUES, "slots": SCALARS},
        )
    ),
    "/v1/shown": st.fixed_dictionaries(
        {"decision_id": st.just("d0"), "items_in_order": st.lists(SCALARS)}, optional={"x": VALUES}
    ),
    "/v1/rewards": st.lists(
        st.fixed_dictionaries(
            {"decision_id": st.sampled_from(["d0", "d1", 0])},
            optional=dict.fromkeys(("slot", "item_id", "kind", "value", "time", "reward_id"), SCALARS),
        )
    ),
    "/v1/admin/kill-switch": st.fixed_dictionaries({"engaged": SCALARS, "reason": SCALARS}),
}
MANY = settings(max_examples=80)


@pytest.fixture(scope="module", params=["in memory", "real"])
def stage(request, new_stage, tmp_path_factory):
    if request.param == "in memory":
        return new_stage()
    config = tmp_path_factory.mktemp("stage") / "explorank.yaml"
    config.write_text(
        "{version: 1, ranker: null, retrieval: {retrievers: []}, exploration: {mode: live, holdout: 0.0}}"
    )
    return explorank.load(config)


@pytest.fixture(scope="module")
def ask(stage, connect):
    """Return a function that sends one request to a host with one decision, `d0`, and returns the status."""
    app = create_app(stage)
    with asyncio.Runner() as runner:
        lifespan, connection = app.router.lifespan_context(app), connect(app)
        runner.run(lifespan.__aenter__())
        client = runner.run(connection.__aenter__())
        candidates = {"item_ids": ["i0", "i1"], "scores": [2, 1], "slots": 2}
        decision = runner.run(client.post("/v1/explore", json=candidates)).json()["decision_id"]

        def send(method, path, content=b"", content_type="application/json"):
            async def exchange():
                return await client.request(
                    method,
                    path,
                    content=content.replace(b'"d0"', f'"{decision}"'.encode()),
                    headers={"Content-Type": content_type},
                )

            return runner.run(exchange()).status_code

        yield send
        runner.run(connection.__aexit__(None, None, None))
        runner.run(lifespan.__aexit__(None, None, None))


@pytest.mark.parametrize("path", PATHS)
@MANY
@given(body=st.binary(max_size=64))
def test_any_bytes(ask, path, body):
    assert ask("POST", path, body) < 500


@pytest.mark.parametrize("path", PATHS)
@MANY
@given(data=st.data())
def test_any_json(ask, path, data):
    value = data.draw(VALUES | NEARLY_RIGHT[path])
    assert ask("POST", path, _encode(value)) < 500


@MANY
@given(identifier=st.text(min_size=1, max_size=40) | st.binary(min_size=1, max_size=40))
def test_any_decision_id(ask, identifier):
    assert ask("GET", f"/v1/decisions/{quote(identifier, safe='')}") in {200, 404}


@MANY
@given(content_type=st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_any_content_type(ask, content_type):
    assert ask("POST", "/v1/rank", b"{}", content_type) in {200, 415}


def _encode(value):
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # whole numbers beyond 64 bits, lone surrogates
        return repr(value).replace("'", '"').encode("utf-8", "surrogatepass")
