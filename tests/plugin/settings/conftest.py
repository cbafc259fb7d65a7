from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from explorank.hooks.registry import Registry
from explorank.settings.reference import builtin_registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    return builtin_registry()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write an explorank.yaml and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "explorank.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
