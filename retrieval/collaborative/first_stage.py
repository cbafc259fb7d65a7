"""The first of two stages: candidates from several models, and what a ranker is told of each of them.

Everything is computed from the interactions given to `fit`, so that a row's own label cannot be among its features
as long as it was held out (see `folds`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.collaborative.ease import EASE, EASEOptions
from explorank.retrieval.collaborative.folds import Fold
from explorank.retrieval.collaborative.implicit_als import ImplicitALS, ImplicitALSOptions
from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.item_knn import ItemKNN, ItemKNNOptions
from explorank.retrieval.collaborative.model import CollaborativeModel
from explorank.retrieval.collaborative.side_columns import SideColumns
from explorank.retrieval.collaborative.side_information import SideInformation
from explorank.retrieval.collaborative.time_columns import TimeColumns
from explorank.retrieval.errors import InvalidOption

CONTENT: Final = "content_similarity"
POPULAR: Final = "popular"
POPULAR_LATELY: Final = "popular_lately"
_USERS_AT_ONCE: Final = 256

Recipe = tuple[type[CollaborativeModel], Any]
"""A model and its options."""

MODELS: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        "ease": (EASE, EASEOptions()),
        "als": (ImplicitALS, ImplicitALSOptions()),
        "als_coarse": (ImplicitALS, ImplicitALSOptions(factors=12)),
        "item_knn": (ItemKNN, ItemKNNOptions()),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStageOptions:
    """What finds candidates, and how many."""

    models: Mapping[str, Recipe] = field(default_factory=lambda: MODELS)
    """The collaborative models by name; the score of each is a column of that name."""
    depth: int = 50
    """How many candidates each source adds for a user at most."""
    sources: tuple[str, ...] = ("ease", "als", POPULAR, POPULAR_LATELY, CONTENT)
    """Who adds candidates, among the models, `popular`, `popular_lately` (with times) and `content_similarity` (with
    content)."""

    def __post_init__(self) -> None:
        known = {*self.models, POPULAR, POPULAR_LATELY, CONTENT}
        unknown = [name for name in self.sources if name not in known]
        if unknown or not self.sources or self.depth < 1:
            raise InvalidOption(
                f"sources={self.sources}, depth={self.depth}: {', '.join(unknown) or 'this'} finds no candidate. "
                f"Choose among {', '.join(sorted(known))}, and a depth of 1 or more."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingRows:
    """Candidates one user after another, and what a ranker is told of them."""

    names: tuple[str, ...]
    """(d,) the columns."""
    features: NDArray[np.float32]
    """(r, d) NaN for missing."""
    users: NDArray[np.int64]
    """(r,) the row of each candidate's user, rising."""
    items: NDArray[np.int64]
    """(r,) the column of each candidate."""
    labels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(r,) 1 for what was held out and taken up, else 0; empty where nothing was held out."""

    @property
    def groups(self) -> NDArray[np.int64]:
        """How many consecutive rows each user has."""
        return np.unique(self.users, return_counts=True)[1]


class FirstStage:
    """Fitted models and columns; candidates are never what the user took up already."""

    def __init__(
        self,
        interactions: Interactions,
        models: Mapping[str, CollaborativeModel],
        options: FirstStageOptions,
        side: SideColumns,
        times: TimeColumns | None,
    ) -> None:
        """Take fitted parts; use `fit`."""
        self._interactions = interactions
        self._models = models
        self._options = options
        self._side = side
        self._times = times

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        side: SideInformation | None = None,
        options: FirstStageOptions | None = None,
        seed: int = 0,
        now: float | None = None,
    ) -> Self:
        """Fit each model to `interactions`.

        With `now`, the moment of asking in seconds since the Unix epoch, and times among the interactions, there are
        columns of age and of recent popularity too.
        """
        options = options or FirstStageOptions()
        side = side or SideInformation()
        side.check(interactions)
        models = {
            name: model.fit(interactions, options=own, seed=seed + number)
            for number, (name, (model, own)) in enumerate(options.models.items())
        }
        times = None if now is None or interactions.times is None else TimeColumns(interactions, now)
        return cls(interactions, models, options, SideColumns(interactions, side), times)

    def rows(self, users: Iterable[int], held_out: Interactions | None = None) -> RankingRows:
        """Return the candidates of `users`, rows of the interactions, and their features.

        With `held_out`, rows get labels, and users none of whose candidates was taken up are left out: nothing can be
        learnt from them.
        """
        parts = list(self._parts(np.unique(np.fromiter(users, np.int64)), held_out))
        names = parts[0].names if parts else ()
        return RankingRows(
            names=names,
            features=np.concatenate([part.features for part in parts] or [np.zeros((0, 0), np.float32)]),
            users=np.concatenate([part.users for part in parts] or [np.zeros(0, np.int64)]),
            items=np.concatenate([part.items for part in parts] or [np.zeros(0, np.int64)]),
            labels=np.concatenate([part.labels for part in parts] or [np.zeros(0)]),
        )

    def _parts(self, users: NDArray[np.int64], held_out: Interactions | None) -> Iterator[RankingRows]:
        for start in range(0, len(users), _USERS_AT_ONCE):
            chunk = users[start : start + _USERS_AT_ONCE]
            seen: NDArray[np.bool_] = np.asarray(self._interactions.matrix[chunk].toarray() > 0)
            scores = self._scores(chunk, seen)
            chosen = self._candidates(scores, seen)
            wanted: NDArray[np.bool_] | None = None
            if held_out is not None:
                wanted = np.asarray(held_out.matrix[chunk].toarray() > 0)
                chosen &= np.any(chosen & wanted, axis=1, keepdims=True)
            within, items = chosen.nonzero()
            columns: dict[str, NDArray[Any]] = {
                name: values[within, items] for name, values in scores.items()
            }
            columns |= self._side.of(chunk[within], items)
            if self._times is not None:
                columns |= self._times.of(chunk[within], items)
            yield RankingRows(
                names=tuple(columns),
                features=np.stack([np.asarray(column, np.float32) for column in columns.values()], axis=1),
                users=chunk[within],
                items=items,
                labels=np.zeros(0) if wanted is None else wanted[within, items].astype(np.float64),
            )

    def _scores(self, users: NDArray[np.int64], seen: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Return (m, n) scores by name, each user's standardised over what they have not taken up.

        Sums over long histories are greater than over short ones, and would not compare between users or with a fold's.
        """
        histories = self._interactions.matrix[users]
        found = {name: model.scores_of_many(histories) for name, model in self._models.items()}
        found |= self._side.content_scores(histories)
        return {name: _standardised(scores, seen) for name, scores in found.items()}

    def _candidates(
        self, scores: Mapping[str, NDArray[np.float32]], seen: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        orders = dict(scores)
        orders[POPULAR] = np.broadcast_to(self._interactions.popularity.astype(np.float32), seen.shape)
        if self._times is not None:
            orders[POPULAR_LATELY] = np.broadcast_to(self._times.recent_popularity, seen.shape)
        chosen = np.zeros(seen.shape, np.bool_)
        for name in self._options.sources:
            if name in orders:
                np.put_along_axis(chosen, _top(orders[name], seen, self._options.depth), True, axis=1)  # noqa: FBT003
        chosen &= ~seen
        return chosen


def training_rows(
    folds: Iterable[Fold],
    *,
    side: SideInformation | None = None,
    options: FirstStageOptions | None = None,
    seed: int = 0,
) -> Iterator[RankingRows]:
    """Yield for each fold the labelled candidates of its users, by a first stage fitted to what the fold may know."""
    for fold in folds:
        stage = FirstStage.fit(fold.known, side=side, options=options, seed=seed, now=fold.now)
        warm = np.intersect1d(fold.held_out.users, fold.known.users)
        yield stage.rows(warm, fold.held_out)


def _standardised(scores: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    count = np.maximum((~seen).sum(axis=1, keepdims=True), 1)
    mean = np.where(seen, 0.0, scores).sum(axis=1, keepdims=True) / count
    apart = scores - mean
    deviation = np.sqrt(np.where(seen, 0.0, apart**2).sum(axis=1, keepdims=True) / count)
    standardised: NDArray[np.float32] = (apart / np.where(deviation > 0, deviation, 1.0)).astype(np.float32)
    return standardised


def _top(scores: NDArray[np.float32], seen: NDArray[np.bool_], depth: int) -> NDArray[np.int64]:
    if depth >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    found: NDArray[np.int64] = np.argpartition(np.where(seen, np.inf, -scores), depth, axis=1)[:, :depth]
    return found
