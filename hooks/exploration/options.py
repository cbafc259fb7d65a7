"""Checks of the numbers that several policies take as options."""

from __future__ import annotations

import math

from explorank.hooks.errors import InvalidPolicy


def check_share(policy: str, option: str, value: float, *, example: float) -> None:
    """Raise `InvalidPolicy` where `value` is no share of a slot's probability, from 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise InvalidPolicy(
            f"`{option}` of {policy} is {value!r}; it is a probability, from 0 to 1, and no slot could be "
            f"drawn with it. Try {example!r}."
        )


def check_positive(policy: str, option: str, value: float, *, otherwise: str, example: float) -> None:
    """Raise `InvalidPolicy` where `value` is not positive and finite; `otherwise` says what goes wrong."""
    if not 0.0 < value < math.inf:
        raise InvalidPolicy(
            f"`{option}` of {policy} is {value!r}; it must be positive and finite, or {otherwise}. "
            f"Try {example!r}."
        )


def check_temperature(policy: str, temperature: float) -> None:
    """Raise `InvalidPolicy` for a temperature that scores cannot be divided by."""
    check_positive(
        policy,
        "temperature",
        temperature,
        otherwise="scores have no shares (in the limits, `greedy` or `uniform` has them)",
        example=1.0,
    )


def check_finite(policy: str, option: str, value: float) -> None:
    """Raise `InvalidPolicy` where `value` is NaN or infinite."""
    if not math.isfinite(value):
        raise InvalidPolicy(
            f"`{option}` of {policy} is {value!r}; every item would be worth that, and none could be told "
            "from another. Set a finite number, such as 0."
        )
