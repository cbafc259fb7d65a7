"""Stages for these tests: one for a host that brings its own candidates, one on the prepared installation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from explorank import Stage, load
from explorank.settings import parse_settings

OpenStage: TypeAlias = Callable[..., Stage]

# The learner steps when a test says so, or when a reward wakes it.
EXPLORE_ONLY: dict[str, Any] = {
    "version": 1,
    "ranker": None,
    "retrieval": {"retrievers": []},
    "exploration": {"mode": "live", "holdout": 0.0, "policy": {"use": "epsilon_greedy", "epsilon": 0.5}},
    "feedback": {"learn_every_s": 3600.0},
}


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` with `changes` laid over them; a component is replaced as a whole."""
    result = dict(settings)
    for key, value in changes.items():
        old = result.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping) and "use" not in value
        result[key] = merged(old, value) if nested else value
    return result


@pytest.fixture
def open_stage(tmp_path: Path) -> Iterator[OpenStage]:
    """Open a stage without retrieval, ranker and Feast; closed after the test."""
    with ExitStack() as stages:

        def open_(changes: Mapping[str, Any] | None = None, *, plugins: Sequence[object] = ()) -> Stage:
            settings = parse_settings(merged(EXPLORE_ONLY, changes or {}), tmp_path)
            return stages.enter_context(load(settings, plugins=plugins))

        yield open_


@pytest.fixture
def open_books(installation: Path) -> Iterator[OpenStage]:
    """Open a stage on a copy of the prepared installation; closed after the test."""
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    with ExitStack() as stages:

        def open_(changes: Mapping[str, Any] | None = None, *, plugins: Sequence[object] = ()) -> Stage:
            base = merged(written, {"feedback": {"learn_every_s": 3600.0}})
            settings = parse_settings(merged(base, changes or {}), installation)
            return stages.enter_context(load(settings, plugins=plugins))

        yield open_
