"""The built-in guards, registered through the same door as anyone's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorank.hooks.guards.already_seen import AlreadySeen
from explorank.hooks.guards.block_list import BlockList
from explorank.hooks.markers import hookimpl

if TYPE_CHECKING:
    from explorank.hooks.registry import Registry


@hookimpl
def ranking_register_components(registry: Registry) -> None:
    """Add every guard of this package under its name in YAML."""
    for guard in (BlockList, AlreadySeen):
        registry.guard(guard.name, guard)
