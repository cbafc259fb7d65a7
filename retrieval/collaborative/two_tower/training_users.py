"""The numbers of users that towers are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.two_tower.user_encoding import UserEncoding


class TrainingUsers(Protocol):
    """What the user tower reads besides histories."""

    @property
    def width(self) -> int:
        """How many numbers tell of a user."""

    def at_events(
        self, known: Interactions, chosen: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return the numbers (m, w) to train on of the users of some interactions, those at `chosen` (m,)."""

    def lately(self, known: Interactions, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the numbers (m, w) of `users` (m,), who have interactions, at each one's latest."""


@dataclass(frozen=True, slots=True)
class ConstantUsers:
    """Finite numbers (u, w) in the order of the interactions' users, the same at all times."""

    numbers: NDArray[np.float32]

    @property
    def width(self) -> int:
        """How many numbers tell of a user."""
        return int(self.numbers.shape[1])

    def at_events(
        self,
        known: Interactions,
        chosen: NDArray[np.int64],
        generator: np.random.Generator,  # noqa: ARG002 - nothing is drawn
    ) -> NDArray[np.float32]:
        """Return the numbers of the users of those interactions."""
        return self.numbers[known.users[chosen]]

    def lately(self, known: Interactions, users: NDArray[np.int64]) -> NDArray[np.float32]:  # noqa: ARG002
        """Return the numbers of those users."""
        return self.numbers[users]


@dataclass(frozen=True, slots=True)
class PastUsers:
    """Columns (e, g) as they were known at each of the interactions that `Interactions.of` was given."""

    encoding: UserEncoding
    values: NDArray[np.float32]
    dropout: float
    """The share of columns that training hides."""

    @property
    def width(self) -> int:
        """How many numbers tell of a user."""
        return self.encoding.width

    def at_events(
        self, known: Interactions, chosen: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return the numbers as of those interactions, some hidden."""
        values = self.values[known.given[chosen]]
        return self.encoding.encode(self.encoding.hide(values, self.dropout, generator))

    def lately(self, known: Interactions, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the numbers as of each user's last interaction, all of them."""
        last = np.searchsorted(known.users, users, side="right") - 1
        return self.encoding.encode(self.values[known.given[last]])
