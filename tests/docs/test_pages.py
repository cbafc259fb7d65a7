"""The code on the pages runs, from top to bottom, and their links lead somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchor(heading: str) -> str:
    """Return the fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    content = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for path, fragment in LINK.findall(content):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if fragment:
            assert fragment in map(anchor, HEADING.findall(target.read_text(encoding="utf-8"))), fragment


@pytest.mark.parametrize("page", ["howto-host", "howto-policy"])
def test_the_how_to_runs(page: str, work_through: Any) -> None:
    assert "python" in work_through(f"docs/{page}.md").ran


def test_the_how_to_for_plugins_runs(work_through: Any, installation: Path) -> None:
    assert "python" in work_through("docs/howto-plugin.md", installation).ran
