"""Builds the components that settings name, once plugins have registered them.

A component's options are the parameters of its class or function. They are checked like the rest of the
settings: strictly, all at once, with the line of each problem.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from explorank.errors import Problem, SettingsError, UnknownComponent
from explorank.hooks.registry import ComponentKind, Factory, Registry
from explorank.settings.annotations import accepted, admits
from explorank.settings.model import Settings
from explorank.settings.sections import Component, RankerComponent
from explorank.settings.validation import unknown_name, validate
from explorank.settings.yaml_file import Document, KeyPath, read_value

SUPPLIED: Final = frozenset({"dim"})
"""Options that the stage knows itself, so that the settings may leave them out."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a component."""

    name: str
    annotation: Any
    required: bool
    default: Any
    """`None` where it is required."""
    description: str


def options_of(kind: ComponentKind, factory: Factory) -> tuple[Option, ...]:
    """Return the options of a component, in the order of its parameters.

    Those of a ranker are the fields of its `Options`: what it is trained with. What is served is loaded.
    """
    if kind == "ranker":
        factory = getattr(factory, "Options", _nothing)
    described = _attribute_docstrings(factory) if inspect.isclass(factory) else {}
    annotations = _annotations(factory)
    return tuple(
        Option(
            name=parameter.name,
            annotation=_checkable(annotations.get(parameter.name, Any)),
            required=parameter.default is parameter.empty,
            default=_default(factory, parameter),
            description=described.get(parameter.name, ""),
        )
        for parameter in _parameters(factory)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    )


def _nothing() -> None:
    """Stand for the options of a ranker that has none."""


def resolve_component(kind: ComponentKind, component: Component, registry: Registry, **extra: Any) -> Any:
    """Return the object that `component` describes; for a ranker its class, as `resolve_ranker` does.

    `extra` are options that the caller supplies where the component takes them and the settings leave them
    out. An option that may be a path is taken relative to the settings file. Raises `SettingsError` for a
    name that no plugin registers and for options that the component does not take.
    """
    if kind == "ranker":
        return resolve_ranker(component, registry)[0]
    factory = _factory(kind, component, registry)
    return _made(factory, _checked(kind, component, factory, extra), component)


def resolve_ranker(component: Component, registry: Registry) -> tuple[Any, Any]:
    """Return the class of a ranker, to train or load one with, and its options; `None` where it takes none.

    Raises `SettingsError` as `resolve_component` does.
    """
    factory = _factory("ranker", component, registry)
    values = _checked("ranker", component, factory, {})
    options = getattr(factory, "Options", None)
    return factory, None if options is None else _made(options, values, component)


def ranker_component(
    settings: Settings, name: str | None = None, options: Iterable[str] = ()
) -> RankerComponent | None:
    """Return the ranker `name` with what the settings say of it and `options`, `NAME=VALUE` each, over that.

    `None` is the configured one; the answer is `None` where none is configured either. Values are read as YAML reads
    them, lists and keys too, and `training.epochs=3` sets a key within an option. Raises `SettingsError` for an option
    that is no `NAME=VALUE` or whose value is no YAML, and for a value of a key that all rankers have and that does not
    fit.
    """
    configured = settings.ranker
    if name is None and configured is None:
        return None
    same = configured is not None and name in (None, configured.use)
    written = configured.model_dump(exclude={"use"}, exclude_unset=True) if same and configured else {}
    given = copy.deepcopy(written)
    for option in options:
        key, found, value = option.partition("=")
        if not found or not key.strip():
            raise SettingsError(
                f"The option {option!r} sets nothing, because it is no NAME=VALUE. Write `rounds=500`, say."
            )
        within = given
        *above, last = key.strip().split(".")
        for part in above:
            if not isinstance(within.get(part), dict):
                within[part] = {}
            within = within[part]
        within[last] = _read_option(option, value)
    if same and given == written:
        return configured
    use = name or (configured.use if configured is not None else "")
    try:
        return RankerComponent(use=use, **given)
    except ValidationError:
        validate(RankerComponent, {"use": use, **_revealed(given)}, Document({}), ("ranker",))
        raise  # pragma: no cover - what pydantic refuses, `validate` refuses in plain words


def _read_option(option: str, value: str) -> Any:
    try:
        return read_value(value)
    except SettingsError as error:
        reasons = " ".join(problem.message for problem in error.problems)
        raise SettingsError(
            f"The option {option!r} sets nothing: {reasons} Put the whole option in single quotes, so that the shell "
            "leaves it as it is, and text with a special meaning in YAML in double quotes within: 'hidden=[64, 32]', "
            "'label=\"*\"'."
        ) from None


def _factory(kind: ComponentKind, component: Component, registry: Registry) -> Factory:
    document, at = component.origin
    try:
        return registry.get(kind, component.use)
    except UnknownComponent as error:
        raise SettingsError([document.problem((*at, "use"), str(error))]) from error


def _checked(
    kind: ComponentKind, component: Component, factory: Factory, extra: dict[str, Any]
) -> dict[str, Any]:
    """Return the options by name, checked; raise `SettingsError` with all that is wrong with them."""
    document, at = component.origin
    options = {option.name: option for option in options_of(kind, factory)}
    given = {name: _revealed(value) for name, value in component.options.items()}
    values = {name: value for name, value in extra.items() if name in options} if options else {}
    problems: list[Problem] = []
    for name, value in given.items():
        if name not in options:
            known = [*type(component).model_fields, *options]
            problems.append(document.problem((*at, name), unknown_name(name, known)))
            continue
        try:
            checked = validate(options[name].annotation, value, document, (*at, name))
        except SettingsError as error:
            problems.extend(error.problems)
        else:
            values[name] = _from_base(checked, options[name].annotation, document.base)
    problems.extend(
        document.problem(
            (*at, name), f"is missing; {component.use} needs it. Accepted: {accepted(option.annotation)}."
        )
        for name, option in options.items()
        if option.required and name not in given and name not in values
    )
    if problems:
        raise SettingsError(problems)
    return values


def resolve_components(components: Iterable[Component], registry: Registry, **extra: Any) -> tuple[Any, ...]:
    """Return the object of each component; raise one `SettingsError` with the problems of them all."""
    made: list[Any] = []
    problems: list[Problem] = []
    for component in components:
        try:
            made.append(resolve_component(component.kind, component, registry, **extra))
        except SettingsError as error:
            problems.extend(error.problems)
    if problems:
        raise SettingsError(problems)
    return tuple(made)


def _made(factory: Factory, values: dict[str, Any], component: Component) -> Any:
    document, at = component.origin
    try:
        return factory(**values)
    except Exception as error:
        # Components name the option they refuse in backticks.
        message = str(error) or type(error).__name__
        culprit = [name for name in component.options if f"`{name}`" in message][:1]
        for secret in _secrets(document, at):
            message = message.replace(secret, "…")
        raise SettingsError([document.problem((*at, *culprit), message)]) from None


def _secrets(document: Document, at: KeyPath) -> Iterator[str]:
    """Return what the environment brought below `at`."""
    for path in document.environment:
        if path[: len(at)] == at:
            value: Any = document.data
            for part in path:
                value = value[part]
            if value:
                yield str(value)


def _revealed(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return {key: _revealed(item) for key, item in value.items()}
        case list():
            return [_revealed(item) for item in value]
        case _:
            return value


def _from_base(value: Any, annotation: Any, base: Path) -> Any:
    if not isinstance(value, str | Path) or not admits(annotation, Path):
        return value
    return base / value


def _parameters(factory: Factory) -> Iterator[inspect.Parameter]:
    try:
        yield from inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return  # a callable written in C may not tell; it takes no options then


def _annotations(factory: Factory) -> dict[str, Any]:
    if inspect.isclass(factory) and not dataclasses.is_dataclass(factory):
        factory = factory.__init__
    try:
        return typing.get_type_hints(factory, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}  # names that exist for type checkers only; the component checks its values itself


def _checkable(annotation: Any) -> Any:
    try:
        TypeAdapter(annotation)
    except PydanticUserError:
        return Any
    return annotation


def _default(factory: Factory, parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        return None
    if dataclasses.is_dataclass(factory):
        field = factory.__dataclass_fields__[parameter.name]
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
    return parameter.default


_described: Final[WeakKeyDictionary[type, Mapping[str, str]]] = WeakKeyDictionary()
"""What was read of each class: sources are parsed for it, and a stage asks for some classes each time it is opened."""


def _attribute_docstrings(cls: type) -> Mapping[str, str]:
    """Return the docstrings that stand under the fields of a class and its bases."""
    described = _described.get(cls)
    if described is None:
        _described[cls] = described = _read_docstrings(cls)
    return described


def _read_docstrings(cls: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):
            continue  # built-in, or made at run time
        body = typing.cast("ast.ClassDef", ast.parse(source).body[0]).body
        for field, docs in itertools.pairwise(body):
            match field, docs:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = inspect.cleandoc(text)
    return found
