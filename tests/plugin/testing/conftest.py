"""Runs one test of a suite, as pytest would."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def run(tmp_path: Path) -> Callable[[object, str], None]:
    def call(suite: object, test: str) -> None:
        method = getattr(suite, test)
        takes_path = "tmp_path" in inspect.signature(method).parameters
        method(**({"tmp_path": tmp_path} if takes_path else {}))

    return call
