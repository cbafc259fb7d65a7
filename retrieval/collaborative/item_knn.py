"""Item-based nearest neighbours (Sarwar et al. 2001), with cosines shrunk towards 0 where users are few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.sparse import csr_matrix

from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.item_weights import ItemWeights
from explorank.retrieval.errors import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemKNNOptions:
    """How neighbours are found."""

    neighbours: int = 200
    """Each item's score sums over at most so many items most similar to it."""
    shrinkage: float = 50.0
    """How much is added to the denominator of the cosine, 0 or more; it damps similarities of rare items."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or not self.shrinkage >= 0:
            raise InvalidOption(
                f"ItemKNN: neighbours={self.neighbours}, shrinkage={self.shrinkage}; no item would have a neighbour, "
                "or rare items would be inflated. Set neighbours to 1 or more, and shrinkage to 0 or more."
            )


class ItemKNN(ItemWeights):
    """Weights c_ij / (√(c_i c_j) + shrinkage), of each column the greatest; c counts users.

    Fitting takes O(Σ_users history²); weights are sparse.
    """

    Options: ClassVar = ItemKNNOptions
    _format: ClassVar[str] = "explorank.item_knn/1"

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        options: ItemKNNOptions | None = None,
        seed: int = 0,  # noqa: ARG003 - exact
    ) -> Self:
        """Return the neighbours by `interactions`."""
        options = options or ItemKNNOptions()
        matrix = interactions.matrix.astype(np.float64)
        together = (matrix.T @ matrix).tocoo()
        apart = together.row != together.col
        rows, columns, count = together.row[apart], together.col[apart], together.data[apart]
        norms = np.sqrt(interactions.popularity.astype(np.float64))
        cosines = count / (norms[rows] * norms[columns] + options.shrinkage)
        order = np.lexsort((rows, -cosines, columns))
        rows, columns, cosines = rows[order], columns[order], cosines[order]
        starts = np.searchsorted(columns, np.arange(len(norms)))
        near = np.arange(len(columns)) - starts[columns] < options.neighbours
        weights = csr_matrix(
            (cosines[near].astype(np.float32), (rows[near], columns[near])), (len(norms), len(norms))
        )
        weights.sort_indices()
        return cls(interactions.item_ids, weights)
