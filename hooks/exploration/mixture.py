"""The winners of a request share its probability, all but a part that is spread evenly."""

from __future__ import annotations

import numpy as np

from explorank.hooks.exploration.distributions import Shares
from explorank.hooks.exploration.filling import OpenSlots, Played
from explorank.hooks.types import BoolArray, FloatArray


class WinnerMixture:
    """The highest values share 1 - `uniform` of the probability, all eligible candidates share `uniform`.

    p(i) = (1 - u) · [i is highest] / #{highest} + u / #{eligible}
    """

    __slots__ = ("_everyone", "_played")

    def __init__(self, values: FloatArray, uniform: float) -> None:
        """Take `values` (n,), higher is better, +inf allowed."""
        self._everyone = np.ones(len(values), np.bool_)
        self._played = Played.of(np.arange(len(values)), values[None], uniform, ties_share=True)

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return the probability of each candidate, (n,) float64."""
        return self.drawable(eligible).dense(len(eligible))

    def drawable(self, eligible: BoolArray) -> Shares:
        """Return the same, ready to draw from."""
        shares = self._played.shares(eligible, self._everyone)
        assert shares is not None  # noqa: S101 - everyone is a member, and someone is eligible
        return Shares(self._played.members, shares)

    def fill(self, slots: OpenSlots, start: int, uniforms: FloatArray) -> int:
        """Fill slots from `start` on."""
        return slots.fill(start, self._played, self._everyone, uniforms)
