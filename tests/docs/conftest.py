"""Runs the code of a page, as a reader would: from the top, in one folder, each block after the one before.

- `python`: run in one namespace per page; a block that begins with a comment naming a `.py` file is that file.
- `yaml`: a whole `explorank.yaml`, or sections of one; it must load. A first comment naming a file writes it.
- `sh`: `explorank` runs in this process, `pytest` in one of its own, `curl` against a server that `explorank
  serve` starts here. `make` and `pip` change the environment and are run elsewhere.
- Every other block is for reading; one that begins with a comment naming a file is written.
"""

import contextlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

Running: TypeAlias = Callable[[Path], contextlib.AbstractContextManager[int]]

ROOT = Path(__file__).parents[2]
PORT = "8080"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.\w+)\s*$")
_ELSEWHERE = {"make", "pip"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    line: int
    """Of the page, where the block's text begins."""

    @property
    def file(self) -> str | None:
        """The file that the block's first line names."""
        named = _FILE.match(self.text.partition("\n")[0])
        return named[1] if named else None


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    content = page.read_text(encoding="utf-8")
    return [
        Block(match[1], match[2], content.count("\n", 0, match.start(2)) + 1)
        for match in _FENCE.finditer(content)
    ]


class Reader:
    """Somebody who works through a page in the current folder."""

    def __init__(self, page: Path, running: Running) -> None:
        self.page = page
        self._running = running
        self.namespace: dict[str, Any] = {"__name__": "__page__"}
        self.ran: list[str] = []
        """The languages of the blocks that were run."""
        self._servers = contextlib.ExitStack()
        self._port: int | None = None

    def work_through(self) -> None:
        """Run every block; an exception tells the page and the line."""
        with self._servers:
            for block in blocks_of(self.page):
                if block.file is not None:
                    file = Path(block.file)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(block.text, encoding="utf-8")
                run = getattr(self, f"_run_{block.language}", None)
                if run is not None and not (block.language == "python" and block.file):
                    run(block)
                    self.ran.append(block.language)

    def _run_python(self, block: Block) -> None:
        # Empty lines before the code make a traceback show the page's own line numbers.
        source = "\n" * (block.line - 1) + block.text
        exec(compile(source, str(self.page), "exec"), self.namespace)  # noqa: S102 - what is tested here

    def _run_yaml(self, block: Block) -> None:
        from explorank.settings import load_settings

        if "version:" in block.text:
            content = block.text
        else:
            content = yaml.safe_dump({"version": 1, **yaml.safe_load(block.text)})
        file = Path("explorank-of-a-block.yaml")
        file.write_text(content, encoding="utf-8")
        load_settings(file)
        file.unlink()

    def _run_sh(self, block: Block) -> None:
        for line in block.text.replace("\\\n", " ").splitlines():
            command = shlex.split(line, comments=True)
            if not command or command[0] in _ELSEWHERE:
                continue
            if command[0] == "cd":
                os.chdir(command[1])  # `work_through` comes back
            elif command[:2] == ["explorank", "serve"]:
                self._serve()
            elif command[0] == "explorank":
                self._explorank(command[1:])
            elif command[0] == "pytest":
                self._shell(shlex.join([sys.executable, "-m", *command]), block)
            elif command[0] == "python":
                runpy.run_path(command[1], run_name="__main__")
            else:
                self._shell(line, block)

    def _explorank(self, arguments: list[str]) -> None:
        from explorank.cli.app import app

        assert not app(arguments, standalone_mode=False), arguments  # an exit code, if there is one

    def _shell(self, line: str, block: Block) -> None:
        if self._port is not None:
            line = line.replace(PORT, str(self._port))
        done = subprocess.run(["bash", "-euc", line], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self.page}:{block.line}: {line}\n{done.stdout}\n{done.stderr}"
        self.namespace["answer"] = done.stdout

    def _serve(self) -> None:
        self._port = self._servers.enter_context(self._running(Path("explorank.yaml")))


@pytest.fixture
def work_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, running: Running) -> Iterator[Any]:
    """Work through a page of the repository in a folder; return the reader."""
    before = set(sys.modules)

    def run(page: str, folder: Path = tmp_path) -> Reader:
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        reader = Reader(ROOT / page, running)
        reader.work_through()
        return reader

    yield run
    for name in set(sys.modules) - before:
        module_file = getattr(sys.modules[name], "__file__", None) or ""
        if module_file.startswith(f"{tmp_path}{os.sep}"):
            del sys.modules[name]
