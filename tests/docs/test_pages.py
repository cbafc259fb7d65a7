"""The code on the pages runs, from top to bottom, and their links lead somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
POLICIES = [page.stem for page in PAGES if page.parent.name == "policies"]
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


@pytest.mark.parametrize(
    "page",
    [
        "accuracy",
        "budgets",
        "data",
        "encoders",
        "howto-host",
        "howto-notebook",
        "howto-policy",
        "howto-state",
        "index-at-scale",
        "learning",
        "neural-rankers",
        "policies",
        "rankers",
        "safety",
        "transfer",
    ],
)
def test_the_code_runs(page: str, work_through: Any) -> None:
    assert "python" in work_through(f"docs/{page}.md").ran


@pytest.mark.parametrize("policy", POLICIES)
def test_the_code_of_a_policy_runs(policy: str, work_through: Any) -> None:
    assert work_through(f"docs/policies/{policy}.md").ran == ["yaml", "python"]


@pytest.mark.parametrize(
    "page", ["by-use", "columnar-store", "howto-plugin", "learned-embeddings", "operations", "training"]
)
def test_the_code_runs_in_an_installation(
    page: str, work_through: Any, installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scope in ("RANK", "REWARD", "ADMIN"):
        monkeypatch.setenv(f"EXPLORANK_{scope}_TOKEN", f"a-token-for-{scope}")
    assert "python" in work_through(f"docs/{page}.md", installation).ran


def test_no_page_is_left_out() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {path for path, _ in LINK.findall(index)}
    assert {page.name for page in PAGES if page.parent == ROOT / "docs"} - {"index.md"} <= linked
