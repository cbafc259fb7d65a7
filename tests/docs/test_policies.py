"""Each built-in policy has a page, which says and shows what a reader must know to choose."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from explorank.hooks.exploration import builtin
from explorank.hooks.registry import Registry
from explorank.settings import PolicyComponent, resolve_component
from explorank.settings.components import SUPPLIED, options_of

DOCS = Path(__file__).parents[2] / "docs"
INDEX = (DOCS / "policies.md").read_text(encoding="utf-8")
SECTIONS = ["Equation", "Behaviour", "When to use it", "When not", "Propensity", "Source", "Use it"]


def registry_of_builtins() -> Registry:
    registry = Registry()
    builtin.ranking_register_components(registry)
    return registry


REGISTRY = registry_of_builtins()
POLICIES = list(REGISTRY.names("policy"))


def page_of(policy: str) -> str:
    return (DOCS / "policies" / f"{policy}.md").read_text(encoding="utf-8")


def test_every_policy_has_a_page_a_plot_and_a_row_of_the_overview() -> None:
    assert sorted(page.stem for page in (DOCS / "policies").glob("*.md")) == POLICIES
    assert sorted(plot.stem for plot in (DOCS / "policies" / "plots").iterdir()) == POLICIES
    rows = re.findall(r"^\| \[`(\w+)`\]\(policies/(\w+)\.md\)", INDEX, re.MULTILINE)
    assert all(name == page for name, page in rows)
    assert sorted(name for name, _ in rows) == POLICIES


@pytest.mark.parametrize("policy", POLICIES)
def test_a_page_says_how_when_why_and_what_is_logged(policy: str) -> None:
    page = page_of(policy)
    assert page.startswith(f"# `{policy}`\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == SECTIONS
    for section in re.split(r"^## .+$", page, flags=re.MULTILINE)[1:]:
        assert section.strip()
    assert f"(../settings.md#{policy})" in page
    assert re.search(r"^!\[.{40,}\]\(plots/" + policy + r"\.svg\)$", page, re.MULTILINE)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_plot_is_a_small_vector_image(policy: str) -> None:
    plot = DOCS / "policies" / "plots" / f"{policy}.svg"
    assert ET.parse(plot).getroot().tag.endswith("svg")  # noqa: S314 - our own file
    assert plot.stat().st_size < 60_000
    assert b"base64" not in plot.read_bytes()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_settings_on_a_page_make_the_policy(policy: str) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", page_of(policy), re.DOTALL)
    given = yaml.safe_load(block)["exploration"]["policy"]
    taken = {option.name for option in options_of("policy", REGISTRY.get("policy", policy))}
    made = resolve_component(
        "policy", PolicyComponent(**given), REGISTRY, **dict.fromkeys(SUPPLIED & taken, 3)
    )
    assert made.name == policy


def test_every_option_stands_in_the_settings() -> None:
    settings = (DOCS / "settings.md").read_text(encoding="utf-8")
    for policy in POLICIES:
        section = settings.partition(f"#### `{policy}`\n")[2].partition("\n#### ")[0]
        options = options_of("policy", REGISTRY.get("policy", policy))
        assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {
            option.name for option in options
        }


def test_every_policy_can_be_drawn() -> None:
    """The script of the plots knows the policies that there are; `make plots` writes them anew."""
    script = (DOCS.parent / "benchmarks" / "policy_plots.py").read_text(encoding="utf-8")
    drawn = re.findall(r"^@plot_of\((\w+)\)$", script, re.MULTILINE)
    assert sorted(drawn) == sorted(REGISTRY.get("policy", name).__name__ for name in POLICIES)
