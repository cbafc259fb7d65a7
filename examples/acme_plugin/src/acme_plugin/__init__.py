"""Brings Explorank the policy `boltzmann` and the guard `at_most_per_category`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acme_plugin.at_most_per_category import AtMostPerCategory
from acme_plugin.boltzmann import Boltzmann
from explorank.hooks import hookimpl

if TYPE_CHECKING:
    from explorank.hooks.registry import Registry

__all__ = ["AtMostPerCategory", "Boltzmann", "ranking_register_components"]


@hookimpl
def ranking_register_components(registry: Registry) -> None:
    """Add both under the names that settings use."""
    registry.policy("boltzmann", Boltzmann)
    registry.guard("at_most_per_category", AtMostPerCategory)
