"""What the learning policies read of a reward batch in the same way."""

from __future__ import annotations

import numpy as np

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
