"""Reads type annotations: what they accept, in words, and what stands at a path within them.

The same words serve error messages and the reference page, so that both always agree with the code.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import AwareDatetime, BaseModel, SecretStr
from pydantic.fields import FieldInfo

from explorank.settings.yaml_file import KeyPath


@dataclass(frozen=True, slots=True)
class Accepts:
    """Put into `Annotated[...]` where words say better what is accepted than the type does."""

    text: str


_WORDS: Final[dict[Any, str]] = {
    Any: "any value",
    AwareDatetime: "a time with its zone, such as `2026-01-31T12:00:00Z`",
    Path: "a path",
    SecretStr: "secret text",
    bool: "`true` or `false`",
    datetime: "a time, such as `2026-01-31T12:00:00Z`",
    float: "a number",
    int: "a whole number",
    str: "text",
    type(None): "`null`",
}


def accepted(annotation: Any) -> str:
    """Return in words what `annotation` accepts, limits included."""
    annotation, metadata = _split(annotation)
    for item in metadata:
        if isinstance(item, Accepts):
            return item.text
    return _type_in_words(annotation, _length(metadata)) + _limits(metadata)


def _length(metadata: Sequence[Any]) -> int | None:
    """Return how many items a list must have, where that is one number."""
    lengths: dict[type, int] = {}
    for item in _flatten(metadata):
        match item:
            case annotated_types.MinLen(min_length=length) | annotated_types.MaxLen(max_length=length):
                lengths[type(item)] = length
    least, most = lengths.get(annotated_types.MinLen), lengths.get(annotated_types.MaxLen)
    return least if least == most else None


def _type_in_words(annotation: Any, length: int | None = None) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _either([f"`{choice}`" for choice in arguments])
    if origin in (Union, types.UnionType):
        return _either([accepted(argument) for argument in arguments])
    kind = origin or annotation
    return _WORDS.get(kind) or _class_in_words(kind, arguments, length)


def _class_in_words(kind: Any, arguments: tuple[Any, ...], length: int | None) -> str:
    if not isinstance(kind, type):
        return str(kind)
    if issubclass(kind, Mapping):
        return "names, each with " + (accepted(arguments[1]) if arguments else "any value")
    if issubclass(kind, Sequence | Set):
        items = [argument for argument in arguments if argument is not ...]
        words = "a list" if length is None else f"a list of {length}"
        return words + (f", each {_either([accepted(item) for item in items])}" if items else "")
    if issubclass(kind, BaseModel):
        return str(getattr(kind, "words", "keys and values"))
    if is_dataclass(kind):
        return "keys and values"
    return kind.__name__


def _either(choices: list[str]) -> str:
    distinct = list(dict.fromkeys(choices))
    return " or ".join([", ".join(distinct[:-1]), distinct[-1]] if len(distinct) > 1 else distinct)


def _limits(metadata: Sequence[Any]) -> str:
    words = []
    for item in _flatten(metadata):
        match item:
            case annotated_types.Ge(ge=bound):
                words.append(f"at least {bound}")
            case annotated_types.Gt(gt=bound):
                words.append(f"above {bound}")
            case annotated_types.Le(le=bound):
                words.append(f"at most {bound}")
            case annotated_types.Lt(lt=bound):
                words.append(f"below {bound}")
            case annotated_types.MinLen(min_length=1):
                words.append("not empty")
            case _ if (pattern := getattr(item, "pattern", None)) is not None:
                words.append(f"matching `{pattern}`")
    return "".join(f", {word}" for word in words)


def _flatten(metadata: Sequence[Any]) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from item.metadata
        else:
            yield item


def annotation_at(annotation: Any, path: KeyPath) -> Any | None:
    """Return the annotation of what stands at `path` within a value of `annotation`; `None` if unknown."""
    for part in path:
        annotation = _step(annotation, part)
        if annotation is None:
            return None
    return annotation


def _step(annotation: Any, part: str | int) -> Any | None:
    annotation, _ = _split(annotation)
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return next((found for argument in arguments if (found := _step(argument, part)) is not None), None)
    kind = origin or annotation
    if not isinstance(kind, type):
        return None
    if issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return field_annotation(field) if field else None
    if is_dataclass(kind):
        return get_type_hints(kind, include_extras=True).get(str(part))
    return _item_of(kind, arguments, part)


def _item_of(kind: type, arguments: tuple[Any, ...], part: str | int) -> Any | None:
    if issubclass(kind, Mapping):
        return arguments[1] if len(arguments) == 2 else None
    if issubclass(kind, Sequence | Set) and arguments and isinstance(part, int):
        return arguments[0]
    return None


def field_annotation(field: FieldInfo) -> Any:
    """Return the annotation of a model's field with its limits, as it was written."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first settings model that a value of `annotation` may be."""
    return next((kind for kind in _kinds(annotation) if issubclass(kind, BaseModel)), None)


def fields_in(annotation: Any) -> list[str]:
    """Return the names of the fields of the first dataclass that a value of `annotation` may be."""
    return next(
        ([field.name for field in fields(kind)] for kind in _kinds(annotation) if is_dataclass(kind)), []
    )


def admits(annotation: Any, kind: type) -> bool:
    """Say whether a value of `annotation` may be a `kind`, or a model with one among its fields."""
    for found in _kinds(annotation):
        if found is kind:
            return True
        if issubclass(found, BaseModel) and any(
            admits(field.annotation, kind) for field in found.model_fields.values()
        ):
            return True
    return False


def choices_in(annotation: Any) -> list[str]:
    """Return the texts that a `Literal` within `annotation` allows."""
    annotation, _ = _split(annotation)
    if get_origin(annotation) is Literal:
        return [choice for choice in get_args(annotation) if isinstance(choice, str)]
    if get_origin(annotation) in (Union, types.UnionType):
        return [choice for argument in get_args(annotation) for choice in choices_in(argument)]
    return []


def _kinds(annotation: Any) -> Iterator[type]:
    annotation, _ = _split(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _kinds(argument)
    elif isinstance(origin or annotation, type):
        yield origin or annotation


def _split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    metadata: tuple[Any, ...] = ()
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        metadata = (*metadata, *more)
    return annotation, metadata
