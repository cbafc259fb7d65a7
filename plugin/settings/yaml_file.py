"""Reads a YAML file and remembers on which line every value stands.

The scalars follow YAML 1.2's core schema, as editors and JSON Schema tools read them: `off` is text,
`1e-3` is a number, a date is text. (PyYAML's own YAML 1.1 rules would turn `mode: off` into `mode: false`.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from explorank.errors import Problem, SettingsError

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands: `("retrieval", "retrievers", 0, "k")`."""

MAX_DEPTH: Final = 40
"""How deeply values may be nested; settings need 6."""
MAX_VALUES: Final = 100_000
"""How many values a file may expand to; aliases of aliases grow exponentially."""

ENVIRONMENT_KEY: Final = "$env"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAG: Final = "tag:yaml.org,2002:"


class _CoreLoader(yaml.SafeLoader):
    """Composes nodes under the core schema and notes keys that a mapping holds twice."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML fills the class's own dict

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.repeated: dict[int, list[tuple[yaml.ScalarNode, int]]] = {}
        """By mapping node: each key that was seen before, and the line that had it first."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Apply `<<` once per node, after looking for repeated keys: merging repeats them on purpose."""
        if id(node) in self.repeated:
            return
        first: dict[str, int] = {}
        repeated = self.repeated.setdefault(id(node), [])
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
                continue
            if key.value in first:
                repeated.append((key, first[key.value]))
            first.setdefault(key.value, key.start_mark.line + 1)
        super().flatten_mapping(node)


for _name, _pattern, _starts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _CoreLoader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), _starts)


@dataclass(frozen=True)
class Document:
    """The values of a settings file, with the environment filled in."""

    data: dict[str, Any]
    """Only dicts, lists, text, numbers, booleans and `None`."""
    source: Path | None = None
    """`None` for settings that came from Python."""
    base: Path = field(default_factory=Path.cwd)
    """The folder that paths within are relative to, absolute."""
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    environment: Mapping[KeyPath, str] = field(default_factory=dict)
    """The values that `{$env: NAME}` brought, and the NAME of each. They may be secrets."""
    problems: tuple[Problem, ...] = ()
    """What is wrong already: repeated keys, missing variables. Their values in `data` mean nothing."""
    broken: frozenset[KeyPath] = frozenset()
    """The paths of those values."""

    def problem(self, path: KeyPath, message: str) -> Problem:
        """Return a problem at `path`, with the line of the nearest key that stands in the file."""
        nearest = path
        while nearest and nearest not in self.lines:
            nearest = nearest[:-1]
        return Problem(message, dotted(path), self.source, self.lines.get(nearest))


def dotted(path: KeyPath) -> str:
    """Return `retrieval.retrievers[0].k` for `("retrieval", "retrievers", 0, "k")`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def read_scalar(text: str) -> Any:
    """Return what YAML reads in `text` when it stands unquoted: a number, a boolean, null, or the text."""
    loader = _CoreLoader("")
    try:
        tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call] # PyYAML's stubs
        return _scalar(tag.removeprefix(_TAG), text)
    except ValueError:
        return text
    finally:
        loader.dispose()


def read_value(text: str) -> Any:
    """Return what YAML reads in `text`: a scalar, or a list or keys, such as `[64, 32]`.

    Raises `SettingsError` for what is no YAML, and for what settings cannot hold. Environment variables are not filled
    in: where a text comes from the command line, the shell has done it.
    """
    _, value, walk = _read(text, None, None)
    if walk.problems:
        raise SettingsError(walk.problems)
    return value


def read_yaml(path: Path, environment: Mapping[str, str] | None = None) -> Document:
    """Return the document in `path`; raise `SettingsError` where it cannot be read as a YAML mapping.

    `environment` stands in for `os.environ`.
    """
    root, data, walk = _read(_read_text(path), path, os.environ if environment is None else environment)
    if root is None:
        raise _refused(path, "the file is empty; it needs at least `version: 1`.")
    if not isinstance(root, yaml.MappingNode):
        raise _refused(
            path, "the file must hold keys and values, such as `version: 1`, not a list or text.", 1
        )
    return Document(
        data=data,
        source=path,
        base=path.absolute().parent,
        lines=walk.lines,
        environment=walk.environment,
        problems=tuple(walk.problems),
        broken=frozenset(walk.broken),
    )


def _read(
    text: str, source: Path | None, variables: Mapping[str, str] | None
) -> tuple[yaml.Node | None, Any, _Walk]:
    """Return the node that `text` is, its value, and what was noted of it; raise `SettingsError` for no YAML."""
    try:
        loader = _CoreLoader(text)
        try:
            walk = _Walk(loader, source, variables)
            root = loader.get_single_node()
            return root, None if root is None else walk.value(root, (), ()), walk
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        # The mark's snippet is left out: it may show a token.
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        column = f" (column {mark.column + 1})" if mark else ""
        raise _refused(
            source,
            f"not valid YAML{column}: {reason}. Look for a missing quote, bracket, colon or indentation here "
            "or just above.",
            mark.line + 1 if mark else None,
        ) from None
    except yaml.reader.ReaderError as error:
        raise _refused(
            source,
            f"holds the control character U+{error.character:04X}, which YAML forbids. Remove it, or "
            'write it as an escape within "double quotes".',
            text[: error.position].count("\n") + 1,
        ) from None
    except RecursionError:
        raise _refused(source, f"is nested more than {MAX_DEPTH} levels deep; settings need 6.") from None


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _refused(
            path, "there is no such file. `explorank init` writes a commented one; or give another path."
        ) from None
    except IsADirectoryError:
        raise _refused(path, "is a folder; give the path of the YAML file within it.") from None
    except (OSError, ValueError) as error:
        raise _refused(path, f"cannot be read ({error}).") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(
            path,
            f"is not UTF-8 text (byte 0x{content[error.start]:02X}). Save it with the encoding UTF-8.",
            content[: error.start].count(b"\n") + 1,
        ) from None


def _refused(path: Path | None, message: str, line: int | None = None) -> SettingsError:
    return SettingsError([Problem(message, source=path, line=line)])


def _scalar(kind: str, text: str) -> Any:
    """Return the value of a scalar of the core schema's `kind`; raise `ValueError` where it is none."""
    match kind:
        case "null":
            return None
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case "str":
            text.encode()  # raises for half a surrogate pair, which no file or log could hold
            return text
        case _:
            raise ValueError(f"no {kind}")


class _Walk:
    """Turns nodes into values, noting lines, environment variables and problems on the way."""

    def __init__(self, loader: _CoreLoader, source: Path | None, variables: Mapping[str, str] | None) -> None:
        self.loader = loader
        self.source = source
        self.variables = variables
        self.values = 0
        self.lines: dict[KeyPath, int] = {}
        self.environment: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self.broken: set[KeyPath] = set()

    def value(self, node: yaml.Node, path: KeyPath, above: tuple[int, ...]) -> Any:
        """Return the value of `node`, which stands at `path` within the nodes `above`."""
        self.values += 1
        line = node.start_mark.line + 1
        if self.values > MAX_VALUES:
            raise _refused(
                self.source, f"expands to more than {MAX_VALUES} values. Use fewer aliases (`*name`).", line
            )
        if id(node) in above:
            raise _refused(self.source, "an alias (`*name`) stands within its own anchor (`&name`).", line)
        if len(path) > MAX_DEPTH:
            raise RecursionError
        within = (*above, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path, within)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            items = []
            for position, item in enumerate(node.value):
                self.lines[*path, position] = item.start_mark.line + 1
                items.append(self.value(item, (*path, position), within))
            return items
        if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_TAG):
            try:
                return _scalar(node.tag.removeprefix(_TAG), node.value)
            except ValueError:
                pass
        tag = node.tag.replace(_TAG, "!!")
        return self._broken(
            path,
            line,
            f"is no value that settings can hold (tag `{tag}`). Use plain text, numbers, lists or keys.",
        )

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, within: tuple[int, ...]) -> Any:
        self.loader.flatten_mapping(node)
        for key, first in self.loader.repeated[id(node)]:
            self._broken(
                (*path, key.value),
                key.start_mark.line + 1,
                f"is given twice, first on line {first}; only one of them could count. Remove one.",
            )
        values: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                shown = f"`{key.value}`" if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                self._broken(
                    path,
                    line,
                    f"{shown} is a key that is not text. Put it in quotes if it is meant as a name.",
                )
                continue
            self.lines[*path, key.value] = line
            values[key.value] = self.value(value, (*path, key.value), within)
        if ENVIRONMENT_KEY in values:
            return self._variable(values, path, node.start_mark.line + 1)
        return values

    def _variable(self, values: dict[str, Any], path: KeyPath, line: int) -> Any:
        name, default = values[ENVIRONMENT_KEY], values.get("default")
        surplus = sorted(values.keys() - {ENVIRONMENT_KEY, "default"})
        if surplus or not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            return self._broken(
                path,
                line,
                "an environment variable is written `{$env: NAME}` or `{$env: NAME, default: VALUE}`, with "
                "a name of letters, digits and underscores and nothing else beside it.",
            )
        if isinstance(default, dict | list):
            return self._broken(path, line, f"the default of `{name}` must be a single value.")
        if self.variables is None:
            return self._broken(
                path, line, f'`{{$env: {name}}}` is for settings files. Let the shell fill it in: "${name}".'
            )
        if name in self.variables:
            self.environment[path] = name
            return self.variables[name]
        if "default" in values:
            return default
        return self._broken(
            path,
            line,
            f"the environment variable `{name}` is not set. Set it before starting, or write "
            f"`{{$env: {name}, default: VALUE}}`.",
        )

    def _broken(self, path: KeyPath, line: int, message: str) -> None:
        self.broken.add(path)
        self.problems.append(Problem(message, dotted(path), self.source, line))
