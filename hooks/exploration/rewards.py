"""What the learning policies read of a reward batch in the same way."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.types import FloatArray, RewardBatch


def row_weights(rewards: RewardBatch) -> FloatArray:
    """Return how much each reward counts, (m,): weight times the probability that its slot was looked at.

    Raises `InvalidBatch` for a weight that is negative or not finite.
    """
    weights = np.ones(len(rewards))
    for name, column in (("weights", rewards.weights), ("examination", rewards.examination)):
        if column is None:
            continue
        refused = ~(np.isfinite(column) & (column >= 0.0))
        if refused.any():
            row = int(np.argmax(refused))
            item = rewards.item_ids.tolist()[row]
            raise InvalidBatch(
                f"`{name}` of the reward for item {item!r} is {float(column[row])!r}; a reward counts 0 "
                "times or more, and learning from this one would corrupt the state. Correct the column."
            )
        weights = weights * column
    return weights


def taken_rewards(rewards: RewardBatch, rows: slice) -> RewardBatch:
    """Return the rewards at `rows`, in their order, with all their columns."""
    columns = {field.name: getattr(rewards, field.name) for field in fields(rewards)}
    taken: dict[str, Any] = {
        name: None if column is None else column[rows] for name, column in columns.items()
    }
    return RewardBatch(**taken)


def unit_rewards(policy: str, rewards: RewardBatch) -> FloatArray:
    """Return the rewards, (m,); raise `InvalidBatch` for one outside [0, 1], and for offsets."""
    values = rewards.values
    outside = (values < 0.0) | (values > 1.0)
    if outside.any():
        row = int(np.argmax(outside))
        raise InvalidBatch(
            f"The reward of item {rewards.item_ids.tolist()[row]!r} is {float(values[row])!r}; {policy} is "
            "defined for rewards in [0, 1], and its sums would mean nothing with others. Scale the reward, "
            "or use gaussian_thompson or linear_thompson."
        )
    if rewards.offsets is not None and rewards.offsets.any():
        raise InvalidBatch(
            f"{policy} was given rewards with offsets; a residual need not lie in [0, 1]. Learn "
            "residuals with gaussian_thompson or linear_thompson, or leave the offsets out."
        )
    return values


def required_column(policy: str, rewards: RewardBatch, name: str) -> NDArray[Any]:
    """Return column `name` (m,), one that the policy `learns_from`; raise `InvalidBatch` without it."""
    column: NDArray[Any] | None = getattr(rewards, name)
    if column is None:
        raise InvalidBatch(
            f"{policy} was given {len(rewards)} rewards without `{name}`; it learns from that column, and "
            "guessing it would bias all that follows. Take the rewards from the decision log, which has it, "
            "or use a policy that learns without it."
        )
    return column
