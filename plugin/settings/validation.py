"""Validates the values of a document against a type, and says in plain words what does not fit.

Values are validated as JSON, strictly: `"10"` is no number and `1` no boolean, but a list may become a
tuple and text a path or a time, since YAML has no other way to write them.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from explorank.errors import Problem, SettingsError
from explorank.settings.annotations import accepted, admits, annotation_at, choices_in, fields_in, model_in
from explorank.settings.yaml_file import Document, KeyPath, read_scalar

_RULE: Final = "settings_rule"


def rule_broken(message: str, *at: str) -> PydanticCustomError:
    """Return what a model's validator raises for a rule between keys; `at` is the key to point at."""
    return PydanticCustomError(_RULE, "{message}", {"message": message, "at": list(at)})


def validate(annotation: Any, data: Any, document: Document, at: KeyPath = ()) -> Any:
    """Return `data`, which stands at `at` in `document`, as a value of `annotation`.

    A value that an environment variable brought is text; where text does not fit, it is read as YAML reads
    an unquoted value. Raises `SettingsError` with everything that does not fit.
    """
    value, errors = _attempt(annotation, data)
    rereadable = [path for error in errors if (*at, *(path := _path(error, data))) in document.environment]
    if rereadable:
        data = _reread(data, rereadable)
        value, errors = _attempt(annotation, data)
    problems = [
        _problem(path, error, annotation, data, document, at)
        for path, error in _telling(errors, data)
        if not _within((*at, *path), document.broken)
    ]
    if problems:
        raise SettingsError(problems)
    return value


def _attempt(annotation: Any, data: Any) -> tuple[Any, list[ErrorDetails]]:
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return adapter.validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _path(error: ErrorDetails, data: Any) -> KeyPath:
    """Return where in `data` the error is; pydantic's location also names members of unions."""
    path: list[str | int] = []
    here: Any = data
    for part in error["loc"]:
        with contextlib.suppress(KeyError, IndexError, TypeError):
            here = here[part]
            path.append(part)
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    if error["type"] == _RULE:
        path.extend(error.get("ctx", {})["at"])
    return tuple(path)


def _reread(data: Any, paths: Iterable[KeyPath]) -> Any:
    holder = {"": copy.deepcopy(data)}
    for path in set(paths):
        parent: Any = holder
        *above, last = ("", *path)
        for part in above:
            parent = parent[part]
        if isinstance(parent[last], str):
            parent[last] = read_scalar(parent[last])
    return holder[""]


def _telling(errors: Sequence[ErrorDetails], data: Any) -> Iterable[tuple[KeyPath, ErrorDetails]]:
    """Return one error per place; within a union only those of the member that fits best."""
    by_path: dict[KeyPath, ErrorDetails] = {}
    for error in errors:
        by_path.setdefault(_path(error, data), error)
    return [
        (path, error)
        for path, error in by_path.items()
        if error["type"] == _RULE
        or not any(len(other) > len(path) and other[: len(path)] == path for other in by_path)
    ]


def _within(path: KeyPath, others: Iterable[KeyPath]) -> bool:
    return any(path[: len(other)] == other for other in others)


def _problem(
    path: KeyPath, error: ErrorDetails, annotation: Any, data: Any, document: Document, at: KeyPath
) -> Problem:
    full = (*at, *path)
    wanted = annotation_at(annotation, path)
    match error["type"]:
        case kind if kind == _RULE:
            message = str(error.get("ctx", {})["message"])
        case "extra_forbidden":
            message = unknown_key(str(path[-1]), annotation_at(annotation, path[:-1]), annotation)
        case "unexpected_keyword_argument":
            message = unknown_name(str(path[-1]), fields_in(annotation_at(annotation, path[:-1])))
        case "value_error":  # a library's options refuse in words of their own
            message = str(error.get("ctx", {})["error"])
        case "missing":
            message = f"is missing; it has no default. Accepted: {accepted(wanted)}."
        case _ if wanted is None:
            message = error["msg"]
        case _:
            given = _given(_value_at(data, path), full, document, hidden=admits(wanted, SecretStr))
            if error["type"] in ("too_short", "too_long") and isinstance(_value_at(data, path), list):
                given = f"a list of {len(_value_at(data, path))}"
            message = f"given {given}; accepted: {accepted(wanted)}."
            if _value_at(data, path) is None:
                message += " Leave the key out for its default."
            if suggestion := closest(_value_at(data, path), choices_in(wanted)):
                message += f" Did you mean `{suggestion}`?"
    return document.problem(full, message)


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _given(value: Any, full: KeyPath, document: Document, *, hidden: bool) -> str:
    if full in document.environment:
        return f"the value of the environment variable `{document.environment[full]}`"
    if value is None:
        return "nothing (`null`)"
    if isinstance(value, dict | list):
        return "keys and values" if isinstance(value, dict) else "a list"
    if hidden:
        return "a value that is not shown, as it may be secret"
    if isinstance(value, str):
        return f"the text {_short(repr(value))}"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"the number {_short(str(value))}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def unknown_key(key: str, section: Any, root: Any) -> str:
    """Return the message for `key`, which the model `section` lacks; it may stand elsewhere in `root`."""
    known = list(model.model_fields) if (model := model_in(section)) else []
    if elsewhere := _elsewhere(key, root):
        return f"unknown key here; did you mean `{elsewhere}`? Known keys here: {_listed(known)}."
    return unknown_name(key, known)


def unknown_name(key: str, known: Sequence[str]) -> str:
    """Return the message for `key`, which is none of the `known` ones."""
    suggestion = closest(key, known)
    hint = f"; did you mean `{suggestion}`?" if suggestion else "."
    return f"unknown key{hint} Known keys: {_listed(known)}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "none"


def closest(given: Any, known: Sequence[str]) -> str | None:
    """Return the known name that a misspelt one most likely means."""
    matches = difflib.get_close_matches(given, known, n=1, cutoff=0.6) if isinstance(given, str) else []
    return matches[0] if matches else None


def _elsewhere(key: str, root: Any) -> str | None:
    """Return the dotted path of a section's field called `key`, for keys written a level too high."""
    model = model_in(root)
    for name, field in model.model_fields.items() if model else ():
        section = model_in(field.annotation)
        if section and key in section.model_fields:
            return f"{name}.{key}"
    return None
