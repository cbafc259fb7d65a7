"""How what is known of a user becomes the finite numbers that a network reads."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.user_features import UserFeatures

_CLIP: Final = 5.0  # standard deviations; one absurd value must not place a user
_USERS_OF_A_CATEGORY: Final = 5
_CATEGORIES: Final = 100
UNKNOWN: Final = -1.0
"""A code that stands for no category that training knew."""


class UserEncoding:
    """Scales amounts and spreads categories over places of 0 and 1; immutable.

    Of `g` columns each amount becomes its distance from the mean in standard deviations, cut at 5, and a place that is
    1 where it is missing. Each category has a place, of those that at least 5 users had the 100 with the most; all
    others share one more, codes that training never met among them, and missing has another.
    """

    def __init__(
        self,
        names: NDArray[np.str_],
        categorical: NDArray[np.bool_],
        means: NDArray[np.float32],
        scales: NDArray[np.float32],
        known: NDArray[np.int64],
    ) -> None:
        """Take the columns (g,), whether each is a category, means and 1 / deviation of the amounts; use `fit`.

        `known` (c, 2) are the categories with a place of their own: the column and the code.
        """
        self.names: tuple[str, ...] = tuple(names.tolist())
        """The columns, by name."""
        self._parts = (names, categorical, means, scales, known)
        self._amounts, self._categories = np.flatnonzero(~categorical), np.flatnonzero(categorical)
        self._means, self._scales = means[self._amounts], scales[self._amounts]
        first = 2 * len(self._amounts)
        places: list[NDArray[np.int64]] = []
        for column in self._categories:
            codes = known[known[:, 0] == column, 1]
            other, size = first + len(codes), int(codes.max(initial=-1)) + 1
            place = np.full(size + 2, other)
            place[codes] = first + np.arange(len(codes))
            place[-1] = other + 1
            places.append(place)
            first = other + 2
        self.width = first
        """How many numbers it makes of a user."""
        self._sizes = np.array([len(place) - 2 for place in places], np.int64)
        self._starts = np.cumsum([0, *(len(place) for place in places)])[: len(places)].astype(np.int64)
        self._places = np.concatenate(places) if places else np.empty(0, np.int64)
        every = np.arange(len(self.names))
        self._asked: tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]] = self.names, every, every

    @classmethod
    def fit(cls, told: UserFeatures, users: NDArray[np.int64]) -> Self:
        """Learn the scale and the categories of `told` (r, g), of which each row is one of `users` (r,)."""
        values = told.values.astype(np.float64)
        categorical = np.array([name in told.categories for name in told.names], np.bool_)
        means, scales = np.zeros(len(told.names), np.float32), np.zeros(len(told.names), np.float32)
        known: list[tuple[int, int]] = []
        for column in range(len(told.names)):
            present = np.isfinite(values[:, column])
            if not categorical[column]:
                amounts = values[present, column]
                if len(amounts) and amounts.std() > 0:
                    means[column], scales[column] = amounts.mean(), 1.0 / amounts.std()
                continue
            pairs = np.unique(
                np.stack([values[present, column].astype(np.int64), users[present]], axis=1), axis=0
            )
            codes, counts = np.unique(pairs[:, 0], return_counts=True)
            most = np.argsort(-counts, kind="stable")[:_CATEGORIES]
            own = most[(counts[most] >= _USERS_OF_A_CATEGORY) & (codes[most] >= 0)]
            known += [(column, int(code)) for code in np.sort(codes[own])]
        return cls(
            np.array(told.names, np.str_),
            categorical,
            means,
            scales,
            np.array(known, np.int64).reshape(-1, 2),
        )

    def read(self, told: UserFeatures) -> NDArray[np.float32]:
        """Return the columns that are encoded, in their order, (m, g); NaN for those that are not among `told`."""
        asked, own, places = self._asked
        if asked != told.names:
            where = {name: place for place, name in enumerate(told.names)}
            found = np.array([where.get(name, -1) for name in self.names], np.int64)
            own = np.flatnonzero(found >= 0)
            places = found[own]
            self._asked = told.names, own, places  # who asks rarely changes what is told
        values = np.atleast_2d(told.values)
        read = np.full((len(values), len(self.names)), np.nan, np.float32)
        read[:, own] = values[:, places]
        return read

    def encode(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the numbers (m, w) of columns (m, g); what is not finite is missing."""
        count, amounts = len(values), len(self._amounts)
        encoded = np.zeros((count, self.width), np.float32)
        if amounts:
            given = values[:, self._amounts]
            missing = ~np.isfinite(given)
            given[missing] = 0.0
            encoded[:, :amounts] = np.clip((given - self._means) * self._scales, -_CLIP, _CLIP)
            encoded[:, :amounts][missing] = 0.0
            encoded[:, amounts : 2 * amounts] = missing
        if len(self._categories):
            codes = values[:, self._categories]
            unknown = ~((codes >= 0) & (codes < self._sizes))
            rows = np.where(unknown, self._sizes + ~np.isfinite(codes), codes).astype(np.int64)
            encoded[np.arange(count)[:, None], self._places[self._starts + rows]] = 1.0
        return encoded

    def nothing_known(self, count: int) -> NDArray[np.float32]:
        """Return the numbers (m, w) of `count` users of whom no column is known."""
        return self.encode(np.full((count, len(self.names)), np.nan, np.float32))

    def hide(
        self, values: NDArray[np.float32], share: float, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return columns (m, g) with some hidden by chance, so that training meets what is not known.

        Of a `share` of the users nothing is left, as of those who are anonymous; of the others the same share of
        columns is hidden. Half of the categories among those are unknown ones instead of missing.
        """
        hidden = values.copy()
        chance = generator.random(values.shape)
        hidden[chance < share] = np.nan
        unknown = chance < share / 2
        unknown[:, self._amounts] = False
        hidden[unknown] = UNKNOWN
        hidden[generator.random(len(values)) < share] = np.nan
        return hidden

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `of_arrays` needs, by name."""
        return dict(zip(ENCODING_ARRAYS, self._parts, strict=True))

    @classmethod
    def of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Return the encoding whose `arrays` these are, among others."""
        return cls(*(np.asarray(arrays[name]) for name in ENCODING_ARRAYS))


ENCODING_ARRAYS: Final = (
    "user_names",
    "user_categorical",
    "user_means",
    "user_scales",
    "user_categories",
)
"""The files of an encoding."""
