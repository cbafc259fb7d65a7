"""From a feature matrix to what a network reads: numbers as they are, and the places of categories in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

_UNKNOWN: Final = 0
_MISSING: Final = 1
FIRST_KNOWN: Final = 2
"""Rows of a column's stretch before those of its known codes."""


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """Which columns are numbers and which are categories, and the codes that have an embedding.

    Each categorical column has a stretch of one table of embeddings: the unknown code, the missing one, then the known
    ones in ascending order.
    """

    dense: tuple[int, ...]
    """Where the numeric columns stand."""
    categorical: tuple[int, ...]
    """Where the categorical columns stand."""
    known: tuple[NDArray[np.float32], ...]
    """The codes of each categorical column that have an embedding, ascending."""

    @classmethod
    def of(
        cls,
        features: NDArray[np.float32],
        names: Sequence[str],
        categorical: Sequence[str],
        min_count: int,
        *,
        every: Mapping[str, NDArray[np.float32]] | None = None,
        also: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> Self:
        """Return the layout for training features (n, d): codes seen fewer than `min_count` times are unknown.

        `every` holds, by column, all codes that are known, however often they were seen; `also` some beside those seen.
        """
        places = tuple(names.index(name) for name in names if name in set(categorical))
        known = []
        for place in places:
            column = features[:, place]
            codes, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            frequent = np.union1d(codes[counts >= min_count], (also or {}).get(names[place], ()))
            known.append((every or {}).get(names[place], frequent).astype(np.float32))
        dense = tuple(place for place in range(len(names)) if place not in places)
        return cls(dense, places, tuple(known))

    @property
    def table_rows(self) -> int:
        """How many embeddings there are for all columns together."""
        return sum(len(codes) + FIRST_KNOWN for codes in self.known)

    @property
    def unknown_rows(self) -> NDArray[np.int64]:
        """(c,) where in the table the unknown code of each categorical column stands."""
        sizes = [len(codes) + FIRST_KNOWN for codes in self.known]
        return np.cumsum([0, *sizes], dtype=np.int64)[: len(sizes)]

    def embedded_rows(self, number: int) -> slice:
        """Return where in the table the rows of a categorical column stand: unknown, missing, then each known code."""
        start = int(self.unknown_rows[number])
        return slice(start, start + FIRST_KNOWN + len(self.known[number]))

    def numbers(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the numeric columns (n, p) of features (n, d)."""
        if not self.categorical:
            return np.ascontiguousarray(features, np.float32)
        return np.ascontiguousarray(features[:, self.dense], np.float32)

    def table_places(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the places (n, c) in the table of the categorical columns of features (n, d)."""
        places = np.empty((len(features), len(self.categorical)), np.int64)
        for number, (start, column, codes) in enumerate(
            zip(self.unknown_rows.tolist(), self.categorical, self.known, strict=True)
        ):
            values = features[:, column]
            nearest = np.searchsorted(codes, values)
            found = (
                np.take(codes, nearest, mode="clip") == values if len(codes) else np.zeros(len(values), bool)
            )
            place = np.where(found, nearest + FIRST_KNOWN, _UNKNOWN)
            places[:, number] = start + np.where(np.isnan(values), _MISSING, place)
        return places
