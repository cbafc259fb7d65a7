"""Components by name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from explorank.hooks.errors import InvalidPlugin, UnknownComponent
from explorank.hooks.registry import COMPONENT_KINDS, Component, Registry


@dataclass(frozen=True)
class Cheerful:
    """A component with one option."""

    share: float = 0.1


@pytest.mark.parametrize("kind", COMPONENT_KINDS)
def test_each_kind_has_names_of_its_own(kind):
    registry = Registry()
    for each in COMPONENT_KINDS:
        getattr(registry, each)("cheerful", lambda each=each: each)
    assert registry.get(kind, "cheerful")() == kind
    assert registry.names(kind) == ("cheerful",)


def test_a_factory_may_be_a_class_or_a_function():
    registry = Registry()
    registry.policy("cheerful", Cheerful)
    registry.policy("half", lambda: Cheerful(0.5))
    assert registry.get("policy", "cheerful")(share=0.2) == Cheerful(0.2)
    assert registry.get("policy", "half")() == Cheerful(0.5)
    assert registry.names("policy") == ("cheerful", "half")


def test_a_component_knows_who_registered_it():
    registry = Registry()
    with registry.registering("acme"):
        registry.guard("cheerful", Cheerful)
    registry.guard("plain", Cheerful)
    assert registry.components("guard") == (
        Component("guard", "cheerful", Cheerful, "acme"),
        Component("guard", "plain", Cheerful, "the host"),
    )


def test_an_unknown_name_is_answered_with_the_known_ones():
    registry = Registry()
    with registry.registering("acme"):
        registry.policy("linear_thompson", Cheerful)
    with pytest.raises(
        UnknownComponent,
        match=r"'linear_thomson'\. Did you mean 'linear_thompson'\? Known: linear_thompson \(plugin acme\)",
    ):
        registry.get("policy", "linear_thomson")
    with pytest.raises(UnknownComponent, match="Known: none"):
        registry.get("guard", "linear_thompson")


def test_a_name_is_taken_once():
    registry = Registry()
    with registry.registering("acme"):
        registry.policy("cheerful", Cheerful)
    with registry.registering("other"), pytest.raises(InvalidPlugin, match=r"'other' .* but plugin 'acme'"):
        registry.policy("cheerful", Cheerful)
    assert registry.components("policy")[0].plugin == "acme"


def test_an_instance_is_no_factory():
    with pytest.raises(InvalidPlugin, match="Register the class, not an instance"):
        Registry().policy("cheerful", Cheerful())


@pytest.mark.parametrize("name", ["", " padded", 3, None])
def test_a_name_must_fit_the_settings(name):
    with pytest.raises(InvalidPlugin, match="nobody could write"):
        Registry().policy(name, Cheerful)


def test_an_unknown_kind_is_named():
    with pytest.raises(UnknownComponent, match=r"'polcy'\. Did you mean 'policy'\?"):
        Registry().add("polcy", "cheerful", Cheerful)
