from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

from explorank.errors import SettingsError
from explorank.hooks.exploration import EpsilonGreedy, LinearThompson
from explorank.hooks.guards.block_list import BlockList
from explorank.hooks.registry import Registry
from explorank.settings import (
    PolicyComponent,
    load_settings,
    parse_settings,
    ranker_component,
    resolve_component,
    resolve_components,
    resolve_ranker,
)
from explorank.settings.components import options_of


@dataclass(frozen=True)
class Shop:
    """A guard of a third party, with an option of each shape."""

    shelves: Sequence[str]
    """Which shelves."""
    limit: float = 1.0
    ratio: tuple[int, int] = (1, 2)
    kind: Literal["open", "shut"] = "open"
    table: Path | None = None
    key: SecretStr | None = None
    depth: list[int] = field(default_factory=lambda: [1])

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"`limit` of shop is {self.limit}; it cannot be negative.")


def make_shop(limit: float, *, label: str = "x", anything=None) -> tuple[Any, ...]:
    return limit, label, anything


class Explosive:
    def __init__(self, fuse: int = 1) -> None:
        raise RuntimeError("boom")


class Leaky:
    def __init__(self, key: str) -> None:
        raise ValueError(f"no such key: {key}")


class Hidden:
    def __init__(self, value: NoSuchName = 1) -> None:  # noqa: F821 - as if imported for type checkers only
        self.value = value


@pytest.fixture
def shop_registry() -> Registry:
    registry = Registry()
    for name, factory in {"shop": Shop, "made": make_shop, "explosive": Explosive, "hidden": Hidden}.items():
        registry.guard(name, factory)
    registry.ranker("model", Explosive)
    return registry


def guard_of(write, text: str):
    return load_settings(write(f"version: 1\nguards:\n  - {text}\n"), {"KEY": "hush", "N": "3"}).guards[0]


def test_the_object_is_built_from_its_options(registry):
    settings = parse_settings(
        {"version": 1, "exploration": {"policy": {"use": "epsilon_greedy", "epsilon": 1}}}
    )
    assert resolve_component("policy", settings.exploration.policy, registry) == EpsilonGreedy(epsilon=1.0)


def test_what_the_stage_supplies_yields_to_the_settings(registry):
    bare, given = PolicyComponent(use="linear_thompson"), PolicyComponent(use="linear_thompson", dim=7)
    assert resolve_component("policy", bare, registry, dim=3) == LinearThompson(dim=3)
    assert resolve_component("policy", given, registry, dim=3) == LinearThompson(dim=7)
    # A component that does not take it is not given it.
    resolve_component("policy", PolicyComponent(use="greedy"), registry, dim=3)
    with pytest.raises(SettingsError, match=r"policy\.dim: is missing; linear_thompson needs it"):
        resolve_component("policy", bare, registry)


def test_yaml_values_become_what_the_options_are(write, shop_registry, tmp_path):
    text = "{use: shop, shelves: [a], limit: 3, ratio: [3, 4], kind: shut, table: t.csv, key: {$env: KEY}}"
    guard = guard_of(write, text)
    assert "hush" not in repr(guard)
    assert resolve_component("guard", guard, shop_registry) == Shop(
        ["a"], 3.0, (3, 4), "shut", tmp_path / "t.csv", SecretStr("hush")
    )


def test_numbers_may_come_from_the_environment(write, shop_registry):
    guard = guard_of(write, "{use: made, limit: {$env: N}, label: {$env: N}}")
    assert resolve_component("guard", guard, shop_registry) == (3.0, "3", None)


def test_a_block_list_stands_beside_the_settings(write, registry, tmp_path):
    (tmp_path / "blocked.txt").write_text("a\n")
    guard = resolve_component("guard", guard_of(write, "{use: block_list, path: blocked.txt}"), registry)
    assert isinstance(guard, BlockList)
    assert guard.blocked == {"a"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{use: shopp, shelves: []}",
            "explorank.yaml:3: guards[0].use: No installed plugin registers a guard 'shopp'",
        ),
        (
            "{use: shop, shelvs: [], shelves: []}",
            "explorank.yaml:3: guards[0].shelvs: unknown key; did you mean `shelves`?",
        ),
        (
            "{use: shop}",
            "explorank.yaml:3: guards[0].shelves: is missing; shop needs it. Accepted: a list, each text.",
        ),
        ("{use: shop, shelves: a}", "guards[0].shelves: given the text 'a'; accepted: a list, each text."),
        ("{use: shop, shelves: [1]}", "guards[0].shelves[0]: given the number 1; accepted: text."),
        ("{use: shop, shelves: [], limit: '3'}", "guards[0].limit: given the text '3'; accepted: a number."),
        ("{use: shop, shelves: [], limit: -1}", "guards[0].limit: `limit` of shop is -1.0; it cannot be"),
        ("{use: shop, shelves: [], kind: opn}", "accepted: `open` or `shut`. Did you mean `open`?"),
        (
            "{use: shop, shelves: [], key: [1]}",
            "guards[0].key: given a list; accepted: secret text or `null`.",
        ),
        ("{use: made, limit: 1, labl: a}", "guards[0].labl: unknown key; did you mean `label`?"),
        ("{use: explosive}", "explorank.yaml:3: guards[0]: boom"),
    ],
)
def test_wrong_options_are_named_with_their_line(write, shop_registry, text, expected):
    with pytest.raises(SettingsError) as caught:
        resolve_component("guard", guard_of(write, text), shop_registry)
    assert len(caught.value.problems) == 1
    assert expected in str(caught.value)


def test_a_component_that_quotes_a_secret_is_not_quoted(write, shop_registry):
    shop_registry.guard("leaky", Leaky)
    guard = guard_of(write, "{use: leaky, key: {$env: KEY}}")
    with pytest.raises(SettingsError, match=r"guards\[0\]: no such key: …") as caught:
        resolve_component("guard", guard, shop_registry)
    assert caught.value.problems[0].line == 3


def test_all_problems_of_all_components_come_at_once(write, shop_registry):
    text = "version: 1\nguards:\n  - {use: shop, limit: x}\n  - {use: made, limit: 1}\n  - {use: gone}\n"
    with pytest.raises(SettingsError) as caught:
        resolve_components(load_settings(write(text)).guards, shop_registry)
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (3, "guards[0].limit"),
        (3, "guards[0].shelves"),
        (5, "guards[2].use"),
    ]


def test_options_that_only_type_checkers_understand_are_passed_on(write, shop_registry):
    assert resolve_component("guard", guard_of(write, "{use: hidden, value: [1]}"), shop_registry).value == [
        1
    ]


def test_a_ranker_is_loaded_rather_than_built(shop_registry):
    ranker = parse_settings({"version": 1, "ranker": {"use": "model"}}).ranker
    assert ranker is not None
    assert resolve_component("ranker", ranker, shop_registry) is Explosive
    misspelt = parse_settings({"version": 1, "ranker": {"use": "model", "budget": 5}}).ranker
    assert misspelt is not None
    with pytest.raises(SettingsError, match="did you mean `budget_ms`"):
        resolve_component("ranker", misspelt, shop_registry)


@dataclass(frozen=True)
class ModelOptions:
    """How the model is trained."""

    depth: int = 3
    """How deep."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"`depth` is {self.depth}; a model has at least 1 layer.")


class Model:
    Options = ModelOptions


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"dpeth": 2}, "ranker.dpeth: unknown key; did you mean `depth`?"),
        ({"depth": "two"}, "ranker.depth: given the text 'two'; accepted: a whole number"),
        ({"depth": 0}, "ranker.depth: `depth` is 0; a model has at least 1 layer."),
    ],
)
def test_a_ranker_is_trained_with_its_own_options(given: dict[str, Any], expected: str) -> None:
    registry = Registry()
    registry.ranker("model", Model)

    def resolved(**options: Any) -> tuple[Any, Any]:
        ranker = parse_settings({"version": 1, "ranker": {"use": "model", **options}}).ranker
        assert ranker is not None
        return resolve_ranker(ranker, registry)

    assert resolved(depth=2) == (Model, ModelOptions(depth=2))
    assert resolved(budget_ms=5.0) == (Model, ModelOptions())
    with pytest.raises(SettingsError) as refused:
        resolved(**given)
    assert expected in str(refused.value)


def test_options_of_the_command_line_lie_over_those_of_the_settings() -> None:
    written = {"use": "model", "depth": 2, "inner": {"a": 1, "b": 2}}
    settings = parse_settings({"version": 1, "ranker": written})
    assert ranker_component(settings) == settings.ranker
    same = ranker_component(settings, "model", ["inner.b=3", "depth=true", "word =two"])
    assert same is not None
    assert same.options == {"depth": True, "inner": {"a": 1, "b": 3}, "word": "two"}
    other = ranker_component(settings, "other", ["deep.est.x=1.5"])
    assert other is not None
    assert (other.use, other.options) == ("other", {"deep": {"est": {"x": 1.5}}})
    assert settings.ranker is not None
    assert settings.ranker.options == {"depth": 2, "inner": {"a": 1, "b": 2}}
    assert ranker_component(parse_settings({"version": 1, "ranker": None})) is None
    with pytest.raises(SettingsError, match="no NAME=VALUE"):
        ranker_component(settings, None, ["depth"])


@pytest.mark.parametrize(
    ("option", "read"),
    [
        ("a=[64, 32]", [64, 32]),
        ("a=[]", []),
        ("a={b: [1e-3, x], c: {d: null}}", {"b": [0.001, "x"], "c": {"d": None}}),
        ('a={"b": true}', {"b": True}),
        ("a=", None),
        ("a=off", "off"),
        ("a=1=2", "1=2"),
        ("a='[64, 32]'", "[64, 32]"),
        ('a="*"', "*"),
    ],
)
def test_a_value_of_the_command_line_is_read_as_in_the_file(write, option: str, read: object) -> None:
    given = ranker_component(parse_settings({"version": 1}), "model", [option])
    assert given is not None
    assert given.options == {"a": read}
    written = load_settings(
        write(f"version: 1\nranker:\n  use: model\n  a: {option.partition('=')[2]}\n"), {}
    ).ranker
    assert written is not None
    assert written.options == given.options


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("hidden=[64,", r"'hidden=\[64,' sets nothing: not valid YAML \(column 5\).*single quotes"),
        ("label=*", "not valid YAML .*an alias.*double quotes within"),
        ("a={b: 1, b: 2}", "given twice"),
        ("a=!!python/name:os.system x", "no value that settings can hold"),
        ("a={$env: KEY}", r'Let the shell fill it in: "\$KEY"'),
        ("a=\x07", "control character U\\+0007"),
        (f"a={'[' * 50}{']' * 50}", "nested more than 40 levels"),
    ],
)
def test_a_value_of_the_command_line_that_cannot_be_read_sets_nothing(
    monkeypatch, option: str, said: str
) -> None:
    monkeypatch.setenv("KEY", "hush")
    with pytest.raises(SettingsError, match=said) as caught:
        ranker_component(parse_settings({"version": 1}), "model", [option])
    assert "hush" not in str(caught.value)


def test_options_carry_their_documentation_and_defaults():
    by_name = {option.name: option for option in options_of("guard", Shop)}
    assert by_name["shelves"].required
    assert by_name["shelves"].description == "Which shelves."
    assert by_name["depth"].default == [1]
    assert [option.name for option in options_of("guard", make_shop)] == ["limit", "label", "anything"]


def test_every_option_of_the_built_in_components_is_documented(registry):
    for kind in ("policy", "guard", "retriever", "ranker"):
        assert registry.names(kind)
        for name in registry.names(kind):
            for option in options_of(kind, registry.get(kind, name)):
                assert option.description, f"{kind} {name}: {option.name} has no docstring"
