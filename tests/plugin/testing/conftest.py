"""Runs one test of a suite, as pytest would."""

import inspect
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def run(tmp_path: Path) -> Callable[[object, str], None]:
    numbers = itertools.count()

    def call(suite: object, test: str) -> None:
        method = getattr(suite, test)
        takes_path = "tmp_path" in inspect.signature(method).parameters
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        method(**({"tmp_path": folder} if takes_path else {}))

    return call
