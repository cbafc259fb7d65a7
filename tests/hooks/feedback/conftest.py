"""What the feedback tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def records(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The module of makers."""
    return module_at(HERE / "records.py")


@pytest.fixture
def run_script() -> Callable[..., str]:
    """Run one of the scripts beside this file in a process of its own and return what it printed."""

    def run(name: str, *arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, str(HERE / name), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
