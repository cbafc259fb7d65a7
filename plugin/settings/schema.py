"""The JSON Schema of explorank.yaml, for editors; it knows the components of the installed plugins."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python

from explorank.hooks.registry import ComponentKind, Registry
from explorank.settings.components import SUPPLIED, Option, options_of
from explorank.settings.model import Settings
from explorank.settings.sections import (
    Component,
    GuardComponent,
    PolicyComponent,
    RankerComponent,
    RetrieverComponent,
    TeacherComponent,
)
from explorank.settings.yaml_file import ENVIRONMENT_KEY

Schema: TypeAlias = dict[str, Any]

COMPONENTS: Final[tuple[type[Component], ...]] = (
    PolicyComponent,
    GuardComponent,
    RetrieverComponent,
    RankerComponent,
)

_SCALARS: Final = frozenset({"string", "number", "integer", "boolean"})
_REFERENCE: Final = {"$ref": "#/$defs/Environment"}
_ENVIRONMENT: Final[Schema] = {
    "type": "object",
    "description": "The value of an environment variable; an error where it is not set and has no default.",
    "properties": {
        ENVIRONMENT_KEY: {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "default": {"type": ["string", "number", "boolean", "null"]},
    },
    "required": [ENVIRONMENT_KEY],
    "additionalProperties": False,
}


def json_schema(registry: Registry) -> Schema:
    """Return the JSON Schema (draft 2020-12) of explorank.yaml with the components in `registry`."""
    schema = Settings.model_json_schema()
    definitions: dict[str, Schema] = schema.pop("$defs")
    named: tuple[type[Component], ...] = (*COMPONENTS, TeacherComponent)
    for component in named:
        own = definitions[component.__name__]
        definitions[component.__name__] = _one_of(component.kind, own, registry, definitions)
    for definition in definitions.values():
        _allow_environment_within(definition)
    _allow_environment_within(schema)
    definitions["Environment"] = _ENVIRONMENT
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "explorank.yaml",
        "$defs": definitions,
    }


def _one_of(kind: ComponentKind, own: Schema, registry: Registry, definitions: dict[str, Schema]) -> Schema:
    choices = []
    for name in registry.names(kind):
        factory = registry.get(kind, name)
        options = options_of(kind, factory)
        properties = {option.name: _option(option, definitions) for option in options}
        required = [option.name for option in options if option.required and option.name not in SUPPLIED]
        choices.append(
            {
                "type": "object",
                "title": name,
                "description": summary(factory),
                "properties": {**own["properties"], **properties, "use": {"const": name}},
                "required": ["use", *required],
                "additionalProperties": False,
            }
        )
    return {"description": own["description"], "oneOf": choices} if choices else own


def _option(option: Option, definitions: dict[str, Schema]) -> Schema:
    try:
        schema = TypeAdapter(option.annotation).json_schema(ref_template="#/$defs/{model}")
    except PydanticInvalidForJsonSchema:
        schema = {}
    definitions.update(schema.pop("$defs", {}))
    if option.description:
        schema["description"] = option.description
    if not option.required:
        # A default that JSON cannot hold cannot be written in YAML either.
        with contextlib.suppress(PydanticSerializationError):
            schema["default"] = to_jsonable_python(option.default)
    return schema


def summary(factory: Any) -> str:
    """Return the first paragraph of a component's documentation, on one line."""
    return " ".join((inspect.getdoc(factory) or "").split("\n\n")[0].split())


def _allow_environment_within(schema: Schema) -> None:
    """Let `{$env: NAME}` stand for every single value below `schema`, in place."""
    for name, value in schema.get("properties", {}).items():
        if name != "use":
            schema["properties"][name] = _allowing_environment(value)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = _allowing_environment(schema[key])
    for key in ("anyOf", "oneOf"):
        for member in schema.get(key, ()):
            _allow_environment_within(member)


def _allowing_environment(schema: Schema) -> Schema:
    _allow_environment_within(schema)
    members = schema.get("anyOf", [schema])
    if not any(member.get("type") in _SCALARS or "const" in member or "enum" in member for member in members):
        return schema
    about: Schema = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    if "anyOf" not in schema:
        members = [{key: value for key, value in schema.items() if key not in about}]
    return {**about, "anyOf": [*members, _REFERENCE]}
