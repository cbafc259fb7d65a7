"""Which arm a user is in: a stable hash, so that the same user always sees the same treatment."""

from __future__ import annotations

from hashlib import blake2b

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.types import Arm


def assign(user_key: str, *, salt: str, holdout: float, share: float) -> Arm:
    """Return the arm of `user_key`.

    `holdout` is the share of all users that never explore and never change with `share`: the yardstick for
    the long run. `share` is the part of the other users that explores; raising it only adds users. The two
    draws are independent halves of one BLAKE2b digest, so neither tells of the other. Another `salt` deals
    all users anew.

    Raises `InvalidPolicy` where a share lies outside [0, 1].
    """
    for name, value in (("holdout", holdout), ("share", share)):
        if not 0.0 <= value <= 1.0:
            raise InvalidPolicy(
                f"`{name}` is {value!r}; it is a share of users and must lie in [0, 1]. Write 5 % as 0.05."
            )
    key = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    digest = blake2b(
        user_key.encode("utf-8", "surrogatepass"), digest_size=16, key=key, person=b"explorank.arm"
    ).digest()
    if _uniform(digest[:8]) < holdout:
        return "holdout"
    return "explore" if _uniform(digest[8:]) < share else "baseline"


def _uniform(eight_bytes: bytes) -> float:
    # 53 bits fill a float64's significand exactly, so the result is below 1.
    return (int.from_bytes(eight_bytes, "big") >> 11) * 2.0**-53
