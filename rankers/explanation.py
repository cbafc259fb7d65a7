"""Why a ranker scored as it did: what each feature added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


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
    link: Literal["identity", "logistic"] = "identity"
    """From the raw score to the score: as it is, or by the logistic function."""

    @property
    def raw_scores(self) -> NDArray[np.float64]:
        """(n,) base and attributions summed: what the ranker scores before its link function."""
        raw: NDArray[np.float64] = self.base + self.attributions.sum(axis=1)
        return raw

    @property
    def scores(self) -> NDArray[np.float64]:
        """(n,) as the ranker scores, up to rounding."""
        return self.raw_scores if self.link == "identity" else 1.0 / (1.0 + np.exp(-self.raw_scores))
