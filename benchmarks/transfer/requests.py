"""Requests to a domain, and the columns that both domains describe them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.transfer.domains import Domain
from explorank.rankers import RankingData

TEXT_DIMS: Final = 16
_DECAY: Final = 0.9
"""The weight of a liked film relative to the next newer one."""
_LONGEST: Final = 50
"""The latest liked films that are read."""
_CUTS: Final = 6
"""Training requests of a user at most."""
_HORIZON: Final = 10
"""The next liked films are a training request's positives."""
_NEGATIVES: Final = 30
_FEWEST: Final = 5
"""Liked films before a request."""

NAMES: Final = (
    *(f"item_text_{place:02d}" for place in range(TEXT_DIMS)),
    *(f"user_text_{place:02d}" for place in range(TEXT_DIMS)),
    "similarity",
    "genre_match",
    "popularity",
    "liked_share",
    "year",
    "years_apart",
    "likes_before",
)
"""No column says which film or which genre it is, so that all of them mean the same in both domains."""


class Basis:
    """The directions in which the source's texts differ most (principal components): what both domains are told in."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._mean = vectors.mean(axis=0)
        self._axes = np.linalg.svd(vectors - self._mean, full_matrices=False)[2][:TEXT_DIMS]

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, `TEXT_DIMS`) for vectors (n, d)."""
        found: NDArray[np.float32] = (vectors - self._mean) @ self._axes.T
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What was liked before a request, and what is to be found."""

    user: int
    history: NDArray[np.int64]
    relevant: NDArray[np.int64]
    hidden: NDArray[np.int64]
    """What the user had rated by then, which is not ranked."""


class Requests:
    """Rows for a domain whose statistics come from some of its users alone."""

    def __init__(
        self, domain: Domain, vectors: NDArray[np.float32], basis: Basis, known: Sequence[int]
    ) -> None:
        """Take the texts' unit vectors (n, d), and the users whose ratings are known."""
        self._domain = domain
        self._vectors = vectors
        self._text = basis.project(vectors)
        self._genres = domain.genres / np.maximum(np.linalg.norm(domain.genres, axis=1, keepdims=True), 1e-9)
        self._known = frozenset(known)
        self._rated = np.zeros(len(vectors))
        self._liked = np.zeros(len(vectors))
        for user in known:
            self._rated[domain.rated[user]] += 1
            self._liked[domain.liked(user)] += 1

    def training(self, users: Sequence[int], seed: int, called: str = "training") -> RankingData:
        """Return requests at several moments of each user, whose own ratings are in no statistic of theirs."""
        rng = np.random.default_rng(seed)
        parts, labels, sizes = [], [], []
        for user in users:
            liked = self._domain.liked(user)
            moments = np.arange(_FEWEST, len(liked) - 1)
            for cut in np.sort(rng.choice(moments, min(_CUTS, len(moments)), replace=False)):
                wanted = liked[cut : cut + _HORIZON]
                drawn = np.unique(rng.integers(len(self._vectors), size=_NEGATIVES))
                drawn = np.setdiff1d(drawn, self._domain.rated[user])
                rows = rng.permutation(len(wanted) + len(drawn))
                parts.append(self._features(user, liked[:cut], np.concatenate([wanted, drawn])[rows]))
                labels.append(np.repeat([1.0, 0.0], [len(wanted), len(drawn)])[rows])
                sizes.append(len(rows))
        return RankingData(
            features=np.concatenate(parts),
            feature_names=NAMES,
            labels=np.concatenate(labels),
            groups=np.array(sizes),
            called=called,
        )

    def asked(self, user: int) -> Asked:
        """Return the one test request of a user: the last fifth of what they liked is to be found."""
        liked, rated = self._domain.liked(user), self._domain.rated[user]
        cut = int(0.8 * len(liked))
        last = int(np.flatnonzero(rated == liked[cut - 1])[-1])
        return Asked(user, liked[:cut], liked[cut:], rated[: last + 1])

    def catalogue(self, asked: Asked) -> NDArray[np.float32]:
        """Return the rows of all films (n, d) for a request."""
        return self._features(asked.user, asked.history, np.arange(len(self._vectors)))

    def _features(
        self, user: int, history: NDArray[np.int64], films: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        rated, liked = self._rated[films], self._liked[films]
        if user in self._known:
            rated = rated - np.isin(films, self._domain.rated[user])
            liked = liked - np.isin(films, self._domain.liked(user))
        recent = history[-_LONGEST:]
        weights = _DECAY ** np.arange(len(recent) - 1, -1, -1)
        interest = weights @ self._vectors[recent]
        told = weights @ self._text[recent] / weights.sum()
        taste = weights @ self._genres[recent]
        years = self._domain.years
        liked_year = np.nanmean(years[recent]) if np.isfinite(years[recent]).any() else np.nan
        users = max(len(self._known), 1)
        columns = [
            self._vectors[films] @ interest / np.linalg.norm(interest),
            self._genres[films] @ taste / max(float(np.linalg.norm(taste)), 1e-9),
            np.log1p(
                100.0 * liked / users
            ),  # a share of the users, so that it means the same in both domains
            (liked + 1.0) / (rated + 2.0),
            years[films],
            np.abs(years[films] - liked_year),
            np.full(len(films), np.log1p(len(history))),
        ]
        rows: NDArray[np.float32] = np.column_stack(
            [self._text[films], np.tile(told, (len(films), 1)), *columns]
        ).astype(np.float32)
        return rows
