"""EASE: the linear autoencoder with a closed form (Steck 2019, "Embarrassingly Shallow Autoencoders")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import lapack

from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.item_weights import ItemWeights
from explorank.retrieval.errors import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class EASEOptions:
    """How EASE is fitted."""

    l2: float = 500.0
    """λ, the penalty on the weights, above 0; the more interactions, the greater the best value."""

    def __post_init__(self) -> None:
        if not self.l2 > 0:
            raise InvalidOption(
                f"EASE: l2={self.l2} leaves items that were always taken up together without a solution. Set a "
                "number above 0; 500 suits some hundred thousand interactions."
            )


class EASE(ItemWeights):
    r"""Weights B = I - P / diag(P), with P = (X'X + λI)⁻¹ and X (users, items) of zeros and ones.

    They minimise ||X - XB||² + λ||B||² under diag(B) = 0 (eq. 8 of the paper). Fitting takes O(n³) time and two
    (n, n) float64 arrays: some 20,000 items on one machine. Weights are dense and may be below 0: what speaks against
    an item is learnt as well as what speaks for it.
    """

    Options: ClassVar = EASEOptions
    _format: ClassVar[str] = "explorank.ease/1"

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        options: EASEOptions | None = None,
        seed: int = 0,  # noqa: ARG003 - exact
    ) -> Self:
        """Return the exact solution for `interactions`."""
        options = options or EASEOptions()
        matrix = interactions.matrix.astype(np.float64)
        gram = np.asfortranarray((matrix.T @ matrix).toarray())
        gram[np.diag_indices_from(gram)] += options.l2
        # The Gram matrix is positive definite: Cholesky takes a third of the time of a general inverse.
        factor, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)
        inverse, failed_too = lapack.dpotri(factor, lower=1, overwrite_c=1)
        if failed or failed_too:
            raise InvalidOption(
                f"EASE: with l2={options.l2} the Gram matrix cannot be inverted in double precision. Raise l2."
            )
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        return cls(interactions.item_ids, np.ascontiguousarray(weights, np.float32))
