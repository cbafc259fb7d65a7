"""What the tests of the limits share with those of the log."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def records() -> ModuleType:
    """The makers of decisions and rewards; loaded by path, because test folders are no packages."""
    path = Path(__file__).parents[1] / "feedback" / "records.py"
    spec = importlib.util.spec_from_file_location("limits_test_records", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
