"""The hook reference names every hook with its arguments, its kind and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest

from explorank.hooks.manager import RankingManager
from explorank.hooks.types import CONTRACT_VERSION

PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"
HEADING = re.compile(r"^### `(\w+)\((.*)\)`$", re.MULTILINE)
HOOKS = {name: caller for name, caller in vars(RankingManager().hook).items() if caller.has_spec()}


def sections() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return the arguments in the heading and the text below it, by hook."""
    content = PAGE.read_text(encoding="utf-8").partition("\n## Wrappers")[0]
    found = list(HEADING.finditer(content))
    ends = [match.start() for match in found[1:]] + [len(content)]
    return {
        match[1]: (tuple(filter(None, match[2].split(", "))), content[match.end() : end])
        for match, end in zip(found, ends, strict=True)
    }


def test_the_page_documents_the_hooks_there_are() -> None:
    documented = [hook for hook, _ in HEADING.findall(PAGE.read_text(encoding="utf-8"))]
    assert sorted(documented) == sorted(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_heading_has_the_arguments(hook: str) -> None:
    assert sections()[hook][0] == HOOKS[hook].spec.argnames


@pytest.mark.parametrize("hook", HOOKS)
def test_every_argument_is_explained(hook: str) -> None:
    arguments, text = sections()[hook]
    throughout = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    for argument in arguments:
        assert f"`{argument}`" in throughout + text, argument


@pytest.mark.parametrize("hook", HOOKS)
def test_the_kind_is_stated(hook: str) -> None:
    options = HOOKS[hook].spec.opts
    kind = "First result" if options["firstresult"] else "Historic" if options["historic"] else "All"
    assert sections()[hook][1].strip().startswith(f"{kind}. Fires ")


@pytest.mark.parametrize("hook", HOOKS)
def test_failure_and_answer_are_stated(hook: str) -> None:
    text = sections()[hook][1].lower()
    assert "answer" in text or "stays" in text


def test_the_version_is_the_contract_s() -> None:
    assert f"is its version, {CONTRACT_VERSION}." in PAGE.read_text(encoding="utf-8")


def test_its_code_runs(work_through: Any) -> None:
    assert work_through("docs/hooks.md").ran == ["python"] * 3
