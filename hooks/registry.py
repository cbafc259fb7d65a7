"""Components by name: what plugins add, and what settings choose from."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from explorank.hooks.errors import InvalidPlugin, UnknownComponent

ComponentKind: TypeAlias = Literal["policy", "guard", "retriever", "ranker"]
Factory: TypeAlias = Callable[..., Any]
"""A class or function that makes the component from the options in the settings."""

COMPONENT_KINDS: Final[tuple[ComponentKind, ...]] = get_args(ComponentKind)


@dataclass(frozen=True, slots=True)
class Component:
    """A registered factory, and who registered it."""

    kind: ComponentKind
    name: str
    factory: Factory
    plugin: str


class Registry:
    """The components that the installed plugins offer, each under a kind and a name.

    Filled once, before settings are read, by the hook `ranking_register_components`.
    """

    def __init__(self) -> None:
        self._components: dict[ComponentKind, dict[str, Component]] = {kind: {} for kind in COMPONENT_KINDS}
        self._registering = "the host"

    @contextlib.contextmanager
    def registering(self, plugin: str) -> Iterator[None]:
        """Attribute what is added inside the block to `plugin`."""
        before, self._registering = self._registering, plugin
        try:
            yield
        finally:
            self._registering = before

    def add(self, kind: ComponentKind, name: str, factory: Factory) -> None:
        """Offer `factory` to settings as `name`.

        Raises `InvalidPlugin` for a name that is taken and a factory that cannot be called, and
        `UnknownComponent` for an unknown kind.
        """
        known = self._of_kind(kind)
        if not name or str(name).strip() != name:
            raise InvalidPlugin(
                f"Plugin {self._registering!r} registers a {kind} under the name {name!r}, which nobody "
                "could write in the settings. Use a word, such as `my_policy`."
            )
        if not callable(factory):
            raise InvalidPlugin(
                f"Plugin {self._registering!r} registers {factory!r} as the {kind} {name!r}; settings make a "
                "component by calling its factory. Register the class, not an instance."
            )
        taken = known.get(name)
        if taken is not None:
            raise InvalidPlugin(
                f"Plugin {self._registering!r} registers a {kind} {name!r}, but plugin {taken.plugin!r} has "
                "registered that name already; settings could not tell them apart. Rename one, or disable "
                "one of the plugins."
            )
        known[name] = Component(kind, name, factory, self._registering)

    def policy(self, name: str, factory: Factory) -> None:
        """Add an exploration policy."""
        self.add("policy", name, factory)

    def guard(self, name: str, factory: Factory) -> None:
        """Add a guard."""
        self.add("guard", name, factory)

    def retriever(self, name: str, factory: Factory) -> None:
        """Add a retriever."""
        self.add("retriever", name, factory)

    def ranker(self, name: str, factory: Factory) -> None:
        """Add a ranker."""
        self.add("ranker", name, factory)

    def get(self, kind: ComponentKind, name: str) -> Factory:
        """Return the factory of `name`; raise `UnknownComponent` where no plugin registers it."""
        known = self._of_kind(kind)
        if name in known:
            return known[name].factory
        offers = ", ".join(f"{one.name} (plugin {one.plugin})" for one in self.components(kind)) or "none"
        raise UnknownComponent(
            f"No installed plugin registers a {kind} {name!r}.{did_you_mean(name, known)} Known: {offers}. "
            "Correct the name, or install or enable the plugin that has it."
        )

    def names(self, kind: ComponentKind) -> tuple[str, ...]:
        """Return the known names of a kind, sorted."""
        return tuple(sorted(self._of_kind(kind)))

    def components(self, kind: ComponentKind) -> tuple[Component, ...]:
        """Return all components of a kind, sorted by name."""
        return tuple(component for _, component in sorted(self._of_kind(kind).items()))

    def _of_kind(self, kind: ComponentKind) -> dict[str, Component]:
        if kind not in self._components:
            raise UnknownComponent(
                f"There is no component kind {kind!r}.{did_you_mean(kind, COMPONENT_KINDS)} The kinds are "
                f"{', '.join(COMPONENT_KINDS)}."
            )
        return self._components[kind]


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ` Did you mean …?` for the known name closest to `name`, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
