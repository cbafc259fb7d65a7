"""What a ranker is, so that others than ours can stand in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.manifest import RankerManifest


class Ranker(Protocol):
    """Scores candidates from their features; immutable, and safe for use from many threads."""

    @property
    def manifest(self) -> RankerManifest:
        """What the ranker says of itself."""

    def check(self, names: Sequence[str]) -> None:
        """Raise `FeatureMismatch` unless `names` are the ranker's features, in its order."""

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return one score per row, (n,) float64, for features (n, d), NaN for missing; more is better."""
