"""The OpenAPI 3.1 document, made from the table of calls and the models of bodies and answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from explorank.host.answers import ProblemAnswer
from explorank.host.errors import ProblemKind
from explorank.host.operations import Operation
from explorank.host.problem_response import MEDIA_TYPE as PROBLEM_MEDIA_TYPE

_SCHEME: Final = "token"


def document(operations: Sequence[Operation], *, open_to_all: bool) -> dict[str, Any]:
    """Return the document; `open_to_all` leaves the tokens out."""
    schemas, components = _schemas(operations)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method.lower()] = _operation(
            operation, schemas, open_to_all=open_to_all
        )
    security = (
        {}
        if open_to_all
        else {
            "securitySchemes": {
                _SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the scope that the call names, or of scope `admin`.",
                }
            }
        }
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Explorank",
            "version": version("explorank"),
            "description": "Ranking with bandit exploration and true propensities.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(paths),
        "components": {"schemas": components, **security},
    }


def _schemas(operations: Sequence[Operation]) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    inputs: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = [
        ("problem", "serialization", TypeAdapter(ProblemAnswer))
    ]
    for operation in operations:
        if operation.body is not None:
            inputs.append(((operation.name, "body"), "validation", TypeAdapter(operation.body.documented)))
        if operation.answer is not None:
            inputs.append(((operation.name, "answer"), "serialization", TypeAdapter(operation.answer)))
    by_input, definitions = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return {key: schema for (key, _), schema in by_input.items()}, definitions["$defs"]


def _operation(operation: Operation, schemas: Mapping[Any, Any], *, open_to_all: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": _responses(operation, schemas),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.scope is not None and not open_to_all:
        described["security"] = [{_SCHEME: [operation.scope.value]}]
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": schemas[operation.name, "body"],
                    "examples": {
                        name.replace(" ", "-"): {"summary": name, "value": value}
                        for name, value in operation.body.examples.items()
                    },
                }
            },
        }
    if "{decision_id}" in operation.path:
        described["parameters"] = [
            {"name": "decision_id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return described


def _responses(operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    content = (
        {"text/plain": {"schema": {"type": "string"}}}
        if operation.answer is None
        else {"application/json": {"schema": schemas[operation.name, "answer"]}}
    )
    by_status: dict[int, list[ProblemKind]] = defaultdict(list)
    for kind in operation.all_problems():
        by_status[kind.status].append(kind)
    return {
        "200": {"description": "Done", "content": content},
        **{
            str(status): {
                "description": "; ".join(f"{kind.title} (`{kind.type_uri}`)" for kind in kinds),
                "content": {PROBLEM_MEDIA_TYPE: {"schema": schemas["problem"]}},
            }
            for status, kinds in sorted(by_status.items())
        },
    }
