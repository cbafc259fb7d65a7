"""Why a ranker scored as it did: what each feature added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._logistic import logistic

Link: TypeAlias = Literal["identity", "logistic", "exponential"]

_LINKS: Final[dict[Link, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "identity": lambda raw: raw,
    "logistic": logistic,
    "exponential": np.exp,
}
_NEARLY_NOTHING: Final = 1e-3
"""Attributions that cancel to less than this share of their size say nothing about a slope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Attributions of n scores to d features; each row sums to its raw score."""

    feature_names: tuple[str, ...]
    """(d,)"""
    attributions: NDArray[np.float64]
    """(n, d) what each feature adds to the raw score."""
    base: NDArray[np.float64]
    """(n,) the raw score that a row starts from, before any feature is looked at."""
    method: str
    """How they come about: `tree_shap`, `integrated_gradients`."""
    link: Link = "identity"
    """From the raw score to the score: as it is, by the logistic function, or by the exponential one."""

    @property
    def raw_scores(self) -> NDArray[np.float64]:
        """(n,) base and attributions summed: what the ranker scores before its link function."""
        raw: NDArray[np.float64] = self.base + self.attributions.sum(axis=1)
        return raw

    @property
    def scores(self) -> NDArray[np.float64]:
        """(n,) as the ranker scores, up to rounding."""
        return _LINKS[self.link](self.raw_scores)

    def take(self, rows: NDArray[np.int64]) -> Explanation:
        """Return the attributions of some rows, in the order given."""
        return replace(self, attributions=self.attributions[rows], base=self.base[rows])

    def on_score_scale(self) -> Explanation:
        """Return attributions that sum to the score itself, by the rescale rule where there is a link."""
        return self if self.link == "identity" else replace(self.through(_LINKS[self.link]), link="identity")

    def through(
        self,
        function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        outcome: NDArray[np.float64] | None = None,
    ) -> Explanation:
        """Return attributions of `function(raw score)`, which sum to it exactly.

        `outcome` (n,) is what the function gives for the rows, where it has steps that rounding could miss.

        The rescale rule (Shrikumar et al. 2017, DeepLIFT): the attributions of a row are multiplied by the slope of
        `function`, which never falls, between the row's base and its raw score. Where attributions cancel almost
        wholly, that slope is taken around the base, and what is then left over is shared out by their size.
        """
        base, raw = function(self.base), function(self.raw_scores) if outcome is None else outcome
        distance, size = self.raw_scores - self.base, np.abs(self.attributions).sum(axis=1)
        reach = _NEARLY_NOTHING * np.where(size > 0, size, 1.0)
        around = (function(self.base + reach) - function(self.base - reach)) / (2.0 * reach)
        tells = np.abs(distance) > reach
        slope = np.where(tells, (raw - base) / np.where(tells, distance, 1.0), around)
        left_over = (raw - base) - slope * distance
        share = np.abs(self.attributions) / np.where(size > 0, size, 1.0)[:, None]
        return replace(
            self,
            attributions=slope[:, None] * self.attributions + left_over[:, None] * share,
            base=base,
            method=self.method if self.method.endswith("+rescale") else f"{self.method}+rescale",
        )
