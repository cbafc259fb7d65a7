"""Where a new item would stand among collaborative factors, foretold from its content (Gantner et al. 2010)."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval.collaborative._arrays import load_arrays, save_arrays
from explorank.retrieval.errors import InvalidOption, InvalidVectors

_FORMAT: Final = "explorank.content_mapping/1"


class ContentMapping:
    """A ridge regression from content vectors (c,) to the factors (f,) of a collaborative model."""

    def __init__(
        self, weights: NDArray[np.float64], content_mean: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> None:
        """Take weights (c, f) and the means of content (c,) and factors (f,); use `fit` or `load`."""
        self._weights, self._content_mean, self._mean = weights, content_mean, mean

    @classmethod
    def fit(
        cls, content: ArrayLike, factors: ArrayLike, *, l2: float = 30.0, confidence: ArrayLike | None = None
    ) -> Self:
        """Return the mapping of known items, with `content` (n, c) and `factors` (n, f).

        `confidence` (n,) weighs the items, as the number of users behind each one's factors; `l2` is the penalty in
        units of the mean confidence. Raises `InvalidVectors` for arrays that do not fit together.
        """
        known, wanted = np.asarray(content, np.float64), np.asarray(factors, np.float64)
        weigh = np.ones(len(known)) if confidence is None else np.asarray(confidence, np.float64)
        if (
            known.ndim != 2
            or wanted.ndim != 2
            or not len(known) == len(wanted) == len(weigh)
            or not weigh.sum() > 0
        ):
            raise InvalidVectors(
                f"Content of shape {known.shape}, factors of shape {wanted.shape} and confidence of shape "
                f"{weigh.shape} do not describe the same items. Pass (n, c), (n, f) and (n,), some confidence above 0."
            )
        if not l2 > 0:
            raise InvalidOption(
                f"ContentMapping: l2={l2} overfits whatever has more columns than items. Set it above 0."
            )
        weigh = weigh / weigh.mean()
        content_mean, mean = (np.average(part, axis=0, weights=weigh) for part in (known, wanted))
        centred = known - content_mean
        gram = centred.T @ (centred * weigh[:, None]) + l2 * np.eye(known.shape[1])
        weights = np.linalg.solve(gram, centred.T @ ((wanted - mean) * weigh[:, None]))
        return cls(weights, content_mean, mean)

    def factors(self, content: ArrayLike) -> NDArray[np.float64]:
        """Return the factors (m, f) foretold for items with `content` (m, c)."""
        vectors = np.asarray(content, np.float64)
        if vectors.ndim != 2 or vectors.shape[1] != len(self._content_mean):
            raise InvalidVectors(
                f"Content of shape {vectors.shape}, and the mapping was learnt from (n, {len(self._content_mean)}); "
                "they come from different encoders. Fit the mapping again."
            )
        mapped: NDArray[np.float64] = (vectors - self._content_mean) @ self._weights + self._mean
        return mapped

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`."""
        arrays = {"weights": self._weights, "content_mean": self._content_mean, "mean": self._mean}
        save_arrays(folder, _FORMAT, {}, arrays)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the mapping that `save` wrote; raise `CorruptArtefact` naming the file that is not intact."""
        names = ("weights", "content_mean", "mean")
        _, arrays = load_arrays(folder, _FORMAT, *names)
        return cls(*(arrays[name] for name in names))
