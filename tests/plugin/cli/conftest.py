"""Commands as somebody types them, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest

from explorank import cli
from explorank.cli import console


class Ran(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Ran]


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in the current folder, on a screen that breaks no line."""
    for screen in (console.output, console.errors):
        monkeypatch.setattr(screen, "width", 250)

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["explorank", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = 0 if end.code is None else int(end.code)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
