"""The page of policies has each built-in one, and says of each what a reader must know to choose."""

import re
from pathlib import Path

import pytest

from explorank.hooks.exploration import builtin
from explorank.hooks.registry import Registry

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)`$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def registered() -> list[str]:
    """Return the names that YAML knows the built-in policies by."""
    registry = Registry()
    builtin.ranking_register_components(registry)
    return list(registry.names("policy"))


def test_every_policy_has_a_section_and_a_row_of_the_overview() -> None:
    assert sorted(SECTIONS) == sorted(registered())
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", PAGE, re.MULTILINE)) == sorted(registered())


@pytest.mark.parametrize("part", ["Source", "When", "When not", "Propensity"])
@pytest.mark.parametrize("policy", registered())
def test_a_section_says_where_it_comes_from_when_to_use_it_and_what_is_logged(policy: str, part: str) -> None:
    assert f"- **{part}**: " in SECTIONS[policy]
