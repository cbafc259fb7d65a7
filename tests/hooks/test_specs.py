"""The contract: changing a name here breaks every plugin out there."""

from __future__ import annotations

import inspect

import pluggy
import pytest

from explorank.hooks import specs
from explorank.hooks.manager import RankingManager

CONTRACT = [
    ("ranking_startup", ("settings", "services"), "historic"),
    ("ranking_shutdown", (), None),
    ("ranking_register_components", ("registry",), None),
    ("ranking_enrich_request", ("request",), None),
    ("ranking_retrieve", ("request", "k"), None),
    ("ranking_enrich", ("request", "candidates"), None),
    ("ranking_filter", ("request", "candidates"), None),
    ("ranking_score", ("request", "candidates", "features"), "firstresult"),
    ("ranking_explore", ("request", "ranking", "n_slots", "seed"), "firstresult"),
    ("ranking_log_decision", ("decision",), None),
    ("ranking_observe_impressions", ("impressions",), None),
    ("ranking_observe_rewards", ("rewards",), None),
    ("ranking_stage_error", ("error", "stage", "plugin", "request"), None),
]


@pytest.mark.parametrize(("hook", "arguments", "kind"), CONTRACT, ids=[row[0] for row in CONTRACT])
def test_hook_is_frozen(hook, arguments, kind):
    spec = getattr(RankingManager().hook, hook).spec
    assert spec.argnames == arguments
    assert {name for name in ("historic", "firstresult") if spec.opts[name]} == ({kind} if kind else set())


def test_no_hook_is_missing_from_the_frozen_list():
    parser = pluggy.PluginManager("explorank")
    hooks = {name for name in dir(specs) if parser.parse_hookspec_opts(specs, name) is not None}
    assert hooks == {hook for hook, _, _ in CONTRACT}


@pytest.mark.parametrize("hook", [row[0] for row in CONTRACT])
def test_every_hook_says_when_it_fires(hook):
    assert inspect.getdoc(getattr(specs, hook)).startswith("Fire ")
