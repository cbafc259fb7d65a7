"""Decision ids, and the seed that each one stands for."""

from __future__ import annotations

import hashlib
import secrets
import time


def new_decision_id() -> str:
    """Return a fresh id of 32 hex digits that sorts by time (milliseconds, then 80 random bits)."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def seed_of(decision_id: str) -> int:
    """Return the 63-bit seed of a decision, so that its draws can be replayed from its id alone."""
    return int.from_bytes(hashlib.blake2b(decision_id.encode(), digest_size=8).digest()) >> 1
