"""From a file, or from Python, to checked settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from explorank.errors import SettingsError
from explorank.settings.model import Settings
from explorank.settings.sections import Component
from explorank.settings.validation import validate
from explorank.settings.yaml_file import Document, KeyPath, read_yaml


def load_settings(path: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in the YAML file `path`; `environment` stands in for `os.environ`.

    The options of components are checked by `resolve_component`, once plugins have registered them. Raises
    `SettingsError` with all problems, each with its line.
    """
    return _settings(read_yaml(Path(path), environment))


def parse_settings(data: Mapping[str, Any], base: str | Path = ".") -> Settings:
    """Return settings from plain dicts, lists and values, as YAML would hold them.

    Paths within are relative to the folder `base`. Raises `SettingsError` with all problems.
    """
    return _settings(Document(dict(data), base=Path(base).absolute()))


def _settings(document: Document) -> Settings:
    problems = list(document.problems)
    try:
        settings: Settings = validate(Settings, document.data, document)
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from None
    if problems:
        raise SettingsError(problems)
    settings.stand_in(document)
    for path, component in _components(settings):
        if _present(document.data, path):
            component.stand_at(document, path)
            _seal(component.__pydantic_extra__, path, document)
    for name, plugin in settings.plugins.items():
        _seal(plugin.options, ("plugins", name, "options"), document)
    return settings


def _components(settings: Settings) -> Iterator[tuple[KeyPath, Component]]:
    yield ("exploration", "policy"), settings.exploration.policy
    for position, retriever in enumerate(settings.retrieval.retrievers):
        yield ("retrieval", "retrievers", position), retriever
    for position, guard in enumerate(settings.guards):
        yield ("guards", position), guard
    if settings.ranker is not None:
        yield ("ranker",), settings.ranker
        if settings.ranker.taught_by is not None:
            yield ("ranker", "taught_by"), settings.ranker.taught_by


def _present(data: Any, path: KeyPath) -> bool:
    for part in path:
        if isinstance(data, dict) and part not in data:
            return False
        data = data[part]
    return True


def _seal(values: Any, path: KeyPath, document: Document) -> None:
    """Hide what came from the environment, in place: only whoever the value is for knows if it is secret."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if (*path, key) in document.environment:
            values[key] = SecretStr(value)
        elif isinstance(value, dict | list):
            _seal(value, (*path, key), document)
