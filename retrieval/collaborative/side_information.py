"""What is known of items and users apart from who took up what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.errors import InvalidTable


@dataclass(frozen=True, slots=True, kw_only=True)
class SideInformation:
    """Columns in the order of the items and users of some `Interactions`; each may be missing."""

    content: NDArray[np.float32] | None = None
    """(n, c) of unit length, such as embeddings of the items' texts."""
    tags: NDArray[np.float32] | None = None
    """(n, t) 1 where an item has a tag, such as a genre, else 0."""
    item_numbers: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """By name (n,), NaN for missing: a year, a price."""
    user_groups: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """By name (u,), codes from 0: a gender, an occupation."""
    user_numbers: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """By name (u,), NaN for missing."""

    def check(self, interactions: Interactions) -> None:
        """Raise `InvalidTable`, naming the column, where one is not as long as the items or users."""
        items, users = len(interactions.item_ids), len(interactions.user_ids)
        columns: list[tuple[str, NDArray[Any] | None, int]] = [
            ("content", self.content, items),
            ("tags", self.tags, items),
            *((name, column, items) for name, column in self.item_numbers.items()),
            *((name, column, users) for name, column in self.user_groups.items()),
            *((name, column, users) for name, column in self.user_numbers.items()),
        ]
        for name, column, wanted in columns:
            if column is not None and len(column) != wanted:
                raise InvalidTable(
                    f"{name} has {len(column)} rows for {wanted}; it would be taken for that of other items or users. "
                    "Bring it into the order of the interactions' ids."
                )
