"""Shapley values: what each of some players added to what all of them reach together."""

from __future__ import annotations

from math import factorial

import numpy as np
from numpy.typing import NDArray


def coalitions(players: int) -> NDArray[np.bool_]:
    """Return who is in each of the 2^p coalitions, (2^p, p): player i where bit i of its number is set."""
    return (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(np.bool_)


def shapley_values(worths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each player added, (n, p), for the worths (n, 2^p) of all coalitions in the order of `coalitions`.

    The mean, over all orders in which players may come, of what each adds to those before it (Shapley 1953). A row sums
    to what all of them reach less what none does.
    """
    players = int(worths.shape[1]).bit_length() - 1
    numbers = np.arange(2**players)
    sizes = coalitions(players).sum(axis=1)
    values = np.empty((len(worths), players))
    for player in range(players):
        without = numbers[numbers >> player & 1 == 0]
        chances = np.array(
            [
                factorial(size) * factorial(players - size - 1) / factorial(players)
                for size in sizes[without].tolist()
            ]
        )
        values[:, player] = (worths[:, without | 1 << player] - worths[:, without]) @ chances
    return values
