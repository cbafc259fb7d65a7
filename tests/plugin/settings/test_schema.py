from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
import yaml

from explorank.settings import json_schema, parse_settings, template


@pytest.fixture(scope="module")
def validator(registry) -> jsonschema.Draft202012Validator:
    schema = json_schema(registry)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def filled() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(template())
    data["guards"].append({"use": "block_list", "path": "blocked.txt"})
    data["plugins"] = {"acme": {"enabled": True, "budget_ms": 50, "options": {"any": ["thing"]}}}
    return data


def test_it_accepts_the_template_and_the_bare_minimum(validator):
    validator.validate(filled())
    validator.validate({"version": 1})
    validator.validate({"version": 1, "ranker": None, "features": None})


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("features",),
        ("retrieval",),
        ("retrieval", "index"),
        ("retrieval", "retrievers", 0),
        ("ranker",),
        ("exploration",),
        ("exploration", "policy"),
        ("guards", 0),
        ("guards", 1),
        ("feedback",),
        ("feedback", "rewards", "click"),
        ("limits",),
        ("plugins", "acme"),
        ("server",),
    ],
)
def test_it_rejects_a_misspelt_key_anywhere(validator, path):
    data = filled()
    here: Any = data
    for part in path:
        here = here[part]
    here["misspelt"] = 1
    assert not validator.is_valid(data)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"project": 5},
        {"exploration": {"mode": "shaddow"}},
        {"exploration": {"policy": {"use": "linear_thomson"}}},
        {"exploration": {"policy": {"floor": 0.1}}},
        {"exploration": {"policy": {"use": "epsilon_greedy", "epsilon": "0.1"}}},
        {"exploration": {"slots": [-1]}},
        {"guards": "already_seen"},
        {"server": {"port": 70_000}},
    ],
)
def test_it_rejects_wrong_values(validator, change):
    assert not validator.is_valid({"version": 1, **change})


def test_any_single_value_may_come_from_the_environment(validator):
    variable = {"$env": "NAME"}
    data = {
        "version": variable,
        "project": variable,
        "exploration": {
            "mode": variable,
            "slots": [variable],
            "policy": {"use": "epsilon_greedy", "epsilon": variable},
        },
        "retrieval": {"retrievers": [{"use": "popular", "k": variable}]},
        "feedback": {"rewards": {"click": variable, "sale": {"weight": {"$env": "W", "default": 1}}}},
        "server": {"port": variable, "tokens": {"rank": variable}},
    }
    validator.validate(data)
    assert not validator.is_valid({"version": 1, "project": {"$env": "NOT A NAME"}})
    assert not validator.is_valid({"version": 1, "project": {"$env": "NAME", "fallback": 1}})


def test_every_key_is_described(registry):
    schema = json_schema(registry)
    for name, definition in {"": schema, **schema["$defs"]}.items():
        for key, value in definition.get("properties", {}).items():
            if name != "Environment":
                described = (
                    "description" in value or "description" in schema["$defs"][value["$ref"].split("/")[-1]]
                )
                assert described, f"{name}.{key}"


def test_what_it_accepts_loads(validator):
    data = filled()
    validator.validate(data)
    parse_settings(copy.deepcopy(data))
