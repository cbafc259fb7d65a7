"""Writes the reference page of explorank.yaml from the models and the built-in components.

Use: `python -m explorank.settings.reference > docs/settings.md`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from explorank.hooks.manager import ENTRY_POINT_GROUP, RankingManager
from explorank.hooks.markers import PROJECT_NAME
from explorank.hooks.registry import ComponentKind, Registry
from explorank.settings.annotations import accepted, annotation_at, field_annotation, model_in
from explorank.settings.components import SUPPLIED, Option, options_of
from explorank.settings.model import Settings
from explorank.settings.schema import COMPONENTS, summary
from explorank.settings.sections import Component

_INTRODUCTION = """\
# Settings

Everything about an installation stands in one file, `explorank.yaml`. `explorank init` writes a commented
one, `explorank check` checks it, and `explorank schema` prints its JSON Schema for editors. Every key but
`version` has a default. A misspelt key or a value of another type is an error that names the file and the
line; nothing is guessed. Paths are relative to the file.

Any single value may come from the environment: `{$env: NAME}`, or `{$env: NAME, default: VALUE}`. A variable
that is not set and has no default is an error. Where text does not fit, the variable is read as YAML reads
an unquoted value, so a port may come from one too.

This page is generated from the code: `python -m explorank.settings.reference > docs/settings.md`.
"""

_HEADINGS: dict[ComponentKind, tuple[str, str]] = {
    "policy": ("Policies", "Named by `exploration.policy`."),
    "guard": ("Guards", "Named in `guards`."),
    "retriever": ("Retrievers", "Named in `retrieval.retrievers`."),
    "ranker": (
        "Rankers",
        "Named by `ranker`. The options are what `explorank train` trains it with; what is served is loaded from what "
        "that published, whatever they say by then.",
    ),
}


def reference(registry: Registry) -> str:
    """Return the page, in Markdown, with the components in `registry`."""
    parts = [_INTRODUCTION, "## All sections\n", _table(_fields(Settings))]
    for path, model in _sections(Settings, ""):
        parts += [f"## `{path}`\n", f"{_documentation(model)}\n", _table(_fields(model))]
    parts.append(
        "## Components\n\nA component is written `{use: NAME}`, with its options beside `use`. Plugins may add "
        "more.\n"
    )
    for component in COMPONENTS:
        parts.extend(_components(component, registry))
    return "\n".join(parts)


def builtin_registry() -> Registry:
    """Return the components of Explorank itself, whatever else is installed."""
    manager = RankingManager()
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if point.dist is not None and point.dist.name == PROJECT_NAME:
            manager.register(point.load(), point.name)
    registry = Registry()
    for result in manager.register_components(registry):
        if result.failure is not None:
            raise result.failure.error
    return registry


def _sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[Any]]]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if dataclasses.is_dataclass(field.annotation) and isinstance(field.annotation, type):
            yield path, field.annotation
            continue
        section = model_in(field.annotation)
        if section is None:
            path = f"{path}.NAME"
            section = model_in(annotation_at(field.annotation, ("NAME",)))
        if section is None:
            path = f"{prefix}{name}[]"
            section = model_in(annotation_at(field.annotation, (0,)))
        if section is not None and not issubclass(section, Component):
            yield path, section
            yield from _sections(section, f"{path}.")


def _fields(model: type[Any]) -> Iterator[tuple[str, str, str, str]]:
    """Return the keys of a section: a settings model, or a library's dataclass of options."""
    if not issubclass(model, BaseModel):
        for option in options_of("retriever", model):
            yield option.name, accepted(option.annotation), _default(option.default), option.description
        return
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _default(field.default)
        if dataclasses.is_dataclass(field.default):
            default = "see below"
        yield name, accepted(field_annotation(field)), default, field.description or ""


def _components(component: type[Component], registry: Registry) -> Iterator[str]:
    heading, place = _HEADINGS[component.kind]
    yield f"### {heading}\n\n{place}\n"
    own = [row for row in _fields(component) if row[0] != "use"]
    if own:
        yield "Beside `use`, each takes:\n"
        yield _table(own)
    for name, field in component.model_fields.items():
        within = model_in(field.annotation)
        if within is not None:
            yield f"`{name}` takes, beside `use` and the options of what that names:\n"
            yield _table(row for row in _fields(within) if row[0] != "use")
    for name in registry.names(component.kind):
        factory = registry.get(component.kind, name)
        yield f"#### `{name}`\n\n{summary(factory)}\n"
        options = options_of(component.kind, factory)
        if options:
            yield _table(
                (option.name, accepted(option.annotation), _option_default(option), option.description)
                for option in options
            )


def _option_default(option: Option) -> str:
    if option.name in SUPPLIED:
        return "set by the stage"
    return "required" if option.required else _default(option.default)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel) and not isinstance(value, Component):
        return "see below"
    return f"`{json.dumps(to_jsonable_python(value), ensure_ascii=False)}`"


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    lines = ["| key | accepts | default | meaning |", "|---|---|---|---|"]
    for name, *cells in rows:
        lines.append("| " + " | ".join([f"`{name}`", *(_cell(text) for text in cells)]) + " |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _documentation(model: type[Any]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


if __name__ == "__main__":
    sys.stdout.write(reference(builtin_registry()))
