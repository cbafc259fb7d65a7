"""What is known of users apart from what they took up: numbers by name."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.errors import InvalidVectors


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """Columns of one user, or of several in rows; NaN for what is not known.

    Raises `InvalidVectors` where names and columns differ in number.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    """(g,) of one user, (r, g) of several."""
    categories: AbstractSet[str] = frozenset()
    """Which of them are codes of a category, whole numbers from 0, rather than amounts; for training."""

    def __post_init__(self) -> None:
        if self.values.ndim not in {1, 2} or self.values.shape[-1] != len(self.names):
            raise InvalidVectors(
                f"User features of shape {self.values.shape} for the {len(self.names)} names {list(self.names)}; they "
                "would be mixed up. Pass a column for each name."
            )

    def take(self, rows: NDArray[Any]) -> UserFeatures:
        """Return some of several users, by positions or a mask."""
        return UserFeatures(self.names, self.values[rows], self.categories)

    def tell_any(self, names: tuple[str, ...]) -> bool:
        """Say whether any of `names` is known of this one user."""
        places = [place for place, name in enumerate(self.names) if name in names]
        return bool(np.isfinite(self.values[places]).any())
