"""Guards: who may stand in a slot, decided before the draw."""

from explorank.hooks.guards.already_seen import AlreadySeen
from explorank.hooks.guards.block_list import BlockList
from explorank.hooks.guards.guard import (
    Guard,
    OnGuardError,
    SnapshotFailed,
    guard_mask,
    guard_name,
    is_static,
    static_mask,
    with_snapshots,
)

__all__ = [
    "AlreadySeen",
    "BlockList",
    "Guard",
    "OnGuardError",
    "SnapshotFailed",
    "guard_mask",
    "guard_name",
    "is_static",
    "static_mask",
    "with_snapshots",
]
