"""Whether settings can name the policy, and what is said to somebody who writes them wrongly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, Final

from explorank.errors import SettingsError
from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration import Policy
from explorank.hooks.registry import Registry
from explorank.settings import PolicyComponent, json_schema, resolve_component
from explorank.settings.components import options_of
from explorank.testing.cases import PolicyCases
from explorank.testing.demands import demand, refused

WORD: Final = re.compile(r"[a-z][a-z0-9_]*")


class OptionTests(PolicyCases):
    """The part of `PolicyTests` about the registry, YAML and the JSON Schema."""

    def test_settings_can_name_it(self) -> None:
        """Registered under its `name`, the policy is made from its options as YAML holds them.

        What `resolve_component` returns equals `make_policy()`.
        """
        policy, registry = self._registered()
        given = _options(policy)
        try:
            made = resolve_component("policy", PolicyComponent(use=policy.name, **given), registry)
        except SettingsError as error:
            raise AssertionError(
                f"{policy.name} cannot be made from its own options {given}: {error}"
            ) from error
        demand(
            made == policy,
            f"Settings make {made!r} of {given}, which is not {policy!r}; keep options as they are given.",
        )

    def test_wrong_options_are_refused(self) -> None:
        """An option it does not have, a value of another type, and `invalid_options` are errors.

        `InvalidPolicy` says what is wrong and names the option in backticks, so that settings can point at
        the line.
        """
        policy, registry = self._registered()
        given = _options(policy)
        with refused(SettingsError, f"{policy.name} accepts an option that it does not have."):
            resolve_component("policy", PolicyComponent(use=policy.name, **given, no_such_option=1), registry)
        for option in options_of("policy", type(policy)):
            if option.annotation in (bool, int, float):
                wrong = PolicyComponent(use=policy.name, **{**given, option.name: ["no number"]})
                with refused(SettingsError, f"`{option.name}` of {policy.name} accepts a list."):
                    resolve_component("policy", wrong, registry)
        for changes in self.invalid_options:
            said = _refusal(policy, changes)
            demand(
                said is not None,
                f"{policy.name} accepts {dict(changes)}. Check it in `__post_init__`, raise `InvalidPolicy`.",
            )
            demand(
                any(f"`{name}`" in str(said) for name in changes),
                f"{policy.name} refuses {dict(changes)} with {said!r}, which names no option in backticks; "
                "settings could not point at the line.",
            )

    def test_every_option_is_documented(self) -> None:
        """Each field has a docstring under it, and the JSON Schema of explorank.yaml holds it.

        Editors complete and explain settings with it.
        """
        policy, registry = self._registered()
        schema = json_schema(registry)
        json.dumps(schema)
        (own,) = schema["$defs"]["PolicyComponent"]["oneOf"]
        demand(own["description"], f"{policy.name} has no docstring; its first paragraph is its description.")
        for name in (option.name for option in options_of("policy", type(policy))):
            demand(
                own["properties"].get(name, {}).get("description"),
                f"Option `{name}` of {policy.name} is not documented; write a docstring under the field: what "
                "it means, its unit, what it may be.",
            )

    def _registered(self) -> tuple[Policy[Any], Registry]:
        policy = self.make_policy()
        demand(
            is_dataclass(policy),
            f"{type(policy).__name__} is no dataclass; its fields would not be options. Decorate it with "
            "`@dataclass(frozen=True)`.",
        )
        demand(
            isinstance(getattr(policy, "name", None), str) and WORD.fullmatch(policy.name),
            f"`name` of {type(policy).__name__} is {getattr(policy, 'name', None)!r}; it must be a word of "
            "small letters, digits and underscores, to be written in YAML and in the log.",
        )
        registry = Registry()
        registry.policy(policy.name, type(policy))
        return policy, registry


def _refusal(policy: Policy[Any], changes: Mapping[str, Any]) -> str | None:
    """Return what the policy says of options that it refuses; `None` where it takes them."""
    try:
        replace(policy, **changes)
    except InvalidPolicy as error:
        return str(error)
    return None


def _options(policy: Policy[Any]) -> dict[str, Any]:
    """Return the options that differ from their defaults or have none, as YAML would hold them."""
    return {
        field.name: value
        for field in fields(policy)
        if field.init
        and ((value := getattr(policy, field.name)) != field.default or field.default is MISSING)
    }
