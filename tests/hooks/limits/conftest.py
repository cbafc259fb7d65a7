"""What the tests of the limits share with those of the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def records(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The makers of decisions and rewards."""
    return module_at(Path(__file__).parents[1] / "feedback" / "records.py")
