"""Who could be shown: each retriever finds candidates in one way; the stage unites what they find.

Scores are comparable between the built-in retrievers as far as that goes: 1 is the best there can be, and
items that a retriever has nothing to say for are not among its answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.catalogue import Catalogue
from explorank.retrieval.errors import (
    EmbeddingsUnknown,
    InvalidOption,
    NeighboursUnknown,
    RecentPopularityUnknown,
)
from explorank.retrieval.interest import interest_vector
from explorank.retrieval.user_features import UserFeatures

Found: TypeAlias = tuple[NDArray[Any], NDArray[np.float32]]
"""Item ids (m,) and their scores (m,), the best first."""

FoundRows: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows of the catalogue (m,), each once, and their scores (m,), the best first."""

_SECONDS_PER_DAY: Final = 86_400.0
_NO_ROWS: Final[FoundRows] = (np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalQuery:
    """Who asks, and what must not be answered."""

    time: float
    """When the request was made, in seconds since the Unix epoch."""
    user_vector: NDArray[np.float32] | None = None
    """(d,) the user's interest where it is at hand; otherwise it follows from `history`."""
    history: Sequence[str] = ()
    """The items the user took up, oldest first; unknown ones are passed over."""
    user_features: UserFeatures | None = None
    """What else is known of the user; `None` for nothing."""
    similar_to: str | None = None
    """Ask for items like this one, instead of items for the user's history."""
    exclude: frozenset[str] = frozenset()
    """Item ids that are never answered."""


class Retriever(Protocol):
    """Finds candidates. Built-in ones are frozen dataclasses; their fields are the YAML options."""

    name: ClassVar[str]
    """The name in YAML, and the source in the log."""

    def retrieve(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> Found:
        """Return up to `k` items and their scores, the best first, none of them in `query.exclude`."""


class RowRetriever(Retriever, Protocol):
    """A retriever that says in which rows of the catalogue its items stand, so that nobody looks their ids up."""

    def retrieve_rows(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> FoundRows | None:
        """Do what `retrieve` does; `None` where an item may have no row, so that `retrieve` must be asked."""


class _OfRows(ABC):
    """Finds rows of the catalogue, and items by them."""

    @abstractmethod
    def retrieve_rows(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> FoundRows:
        """Return the rows of up to `k` items and their scores, the best first."""

    def retrieve(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> Found:
        """Return up to `k` items and their scores, the best first."""
        rows, scores = self.retrieve_rows(catalogue, query, k)
        return catalogue.item_ids[rows], scores


@dataclass(frozen=True)
class SimilarToHistory:
    """The items nearest to the user's interest, or to `query.similar_to` where that is asked for.

    Scores are cosines. Nothing is found for a user of whom no known item is known, nor for items like one
    that is not in the catalogue.
    """

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    name: ClassVar[str] = "similar_to_history"

    decay: float = 0.9
    """The weight of an item relative to the next newer one, in (0, 1]; for queries without a user vector."""

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise InvalidOption(
                f"{self.name}: decay={self.decay} is not in (0, 1]; older items would weigh more than newer "
                "ones, or nothing at all. 0.9 halves the weight about every seven items."
            )

    def retrieve(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> Found:
        """Return up to `k` nearest items and their cosines."""
        vector = self._vector(catalogue, query)
        if vector is None:
            return _nothing(catalogue)
        return catalogue.index.search(vector, k, _unwanted(query))

    def retrieve_rows(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> FoundRows | None:
        """Return the rows of up to `k` nearest items and their cosines; `None` once the index was added to."""
        vector = self._vector(catalogue, query)
        if vector is None:
            return _NO_ROWS
        return catalogue.index.search_rows(vector, k, _unwanted(query))

    def _vector(self, catalogue: Catalogue, query: RetrievalQuery) -> NDArray[np.float32] | None:
        """Return what the items should be near to, (d,); `None` where nothing is known of it."""
        if query.similar_to is not None:
            row = int(catalogue.rows([query.similar_to])[0])
            return None if row < 0 else catalogue.vectors[row]
        vector = query.user_vector
        if vector is None:
            rows = catalogue.rows(query.history)
            vector = interest_vector(catalogue.vectors_at(rows[rows >= 0]), self.decay)
        return vector if vector.any() else None


@dataclass(frozen=True)
class SimilarByUse(_OfRows):
    """The items that have the same users as what the user took up, or as `query.similar_to` where that is asked for.

    Scores are mean weights of the catalogue's table of neighbours over the history. Nothing is found for a user of
    whom no known item is known, and items that nobody took up are never found. Raises `NeighboursUnknown` for a
    catalogue that was built without such a table.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    name: ClassVar[str] = "similar_by_use"

    history: int = 50
    """How many of the latest items of the history count, all alike; 1 or more."""

    def __post_init__(self) -> None:
        _check_history(self.name, self.history)

    def retrieve_rows(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> FoundRows:
        """Return the rows of up to `k` items of greatest mean weight, and those means."""
        if catalogue.by_use is None:
            raise NeighboursUnknown(
                f"{self.name} asks for items that have the same users, and catalogue {catalogue.version} was built "
                "without a table of them, so it finds nothing. Set `retrieval.by_use` and run `explorank build "
                f"--interactions FILE`.{catalogue.made.reason_for('by_use')}"
            )
        history = query.history[-self.history :] if query.similar_to is None else (query.similar_to,)
        return catalogue.by_use.best(catalogue.rows(history), k, catalogue.rows(query.exclude))


@dataclass(frozen=True)
class LearnedEmbeddings(_OfRows):
    """The items nearest to the user in a space learnt from interactions, or to `query.similar_to` if that is asked for.

    The user's vector is computed from the history in the request, so that what happened a moment ago counts. Scores
    are inner products: with `als` how likely an item is taken up, some 0 to 1, and cosines with the others. Nothing is
    found for a user of whom no known item is known, nor any of the `user_features` that the space was learnt with; what
    the user took up is not found again. Raises `EmbeddingsUnknown` for a catalogue that was built without.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    name: ClassVar[str] = "learned_embeddings"

    history: int = 100
    """How many of the latest items of the history make the user's vector; 1 or more. `sasrec` reads those of its own
    `history` at most, and the others count all alike."""

    def __post_init__(self) -> None:
        _check_history(self.name, self.history)

    def retrieve_rows(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> FoundRows:
        """Return the rows of up to `k` items of greatest product, and those products."""
        space = catalogue.embeddings
        if space is None:
            raise EmbeddingsUnknown(
                f"{self.name} asks for a space learnt from interactions, and catalogue {catalogue.version} was built "
                "without one, so it finds nothing. Set `retrieval.learned_embeddings` and run `explorank build "
                f"--interactions FILE`.{catalogue.made.reason_for('learned_embeddings')}"
            )
        exclude = catalogue.rows(query.exclude)
        if query.similar_to is not None:
            return space.like(int(catalogue.rows([query.similar_to])[0]), k, exclude)
        taken = catalogue.rows(query.history)
        return space.best(taken[-self.history :], k, np.concatenate([taken, exclude]), query.user_features)


@dataclass(frozen=True)
class Popular(_OfRows):
    """The most popular items. Scores are shares of the greatest popularity, in [0, 1].

    A request for items like a known one gets none of these: popular items are not like it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    name: ClassVar[str] = "popular"

    def retrieve_rows(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> FoundRows:
        """Return the rows of up to `k` items, the most popular first."""
        return _most_popular(catalogue, catalogue.popularity, catalogue.by_popularity, query, k)


@dataclass(frozen=True)
class Trending(_OfRows):
    """The items that are most popular lately. Scores are shares of the greatest such popularity, in (0, 1].

    What nobody took up lately is not found. A request for items like a known one gets none of these. Raises
    `RecentPopularityUnknown` for a catalogue that was built without.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    name: ClassVar[str] = "trending"

    def retrieve_rows(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> FoundRows:
        """Return the rows of up to `k` items, the most popular lately first."""
        recent = catalogue.recent_popularity
        if recent is None:
            raise RecentPopularityUnknown(
                f"{self.name} asks for what is popular lately, and catalogue {catalogue.version} was built without "
                "counting it, so it finds nothing. Set `retrieval.trending` and run `explorank build`."
            )
        return _most_popular(catalogue, recent, catalogue.by_recent_popularity, query, k)


@dataclass(frozen=True)
class NewItems(_OfRows):
    """The items that appeared last. Scores fall from 1 for one of this moment to 0 at `max_age_days`.

    Items whose first appearance is unknown or still to come are not found. A request for items like a known
    one gets none of these.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    name: ClassVar[str] = "new_items"

    max_age_days: float = 30.0
    """How many days after its first appearance an item counts as new; above 0."""

    def __post_init__(self) -> None:
        if not self.max_age_days > 0:
            raise InvalidOption(
                f"{self.name}: max_age_days={self.max_age_days} leaves no time in which an item is new, so "
                "nothing would be found. Set a number of days above 0."
            )

    def retrieve_rows(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> FoundRows:
        """Return the rows of up to `k` new items, the newest first."""
        if _asks_for_similar(catalogue, query):
            return _NO_ROWS
        span = self.max_age_days * _SECONDS_PER_DAY
        first = int(np.searchsorted(catalogue.known_first_seen, query.time - span, side="left"))
        last = int(np.searchsorted(catalogue.known_first_seen, query.time, side="right"))
        rows = _first_allowed(catalogue, catalogue.by_first_seen[first:last][::-1], query.exclude, k)
        ages = query.time - catalogue.first_seen[rows]
        return rows, (1.0 - ages / span).astype(np.float32)


def _asks_for_similar(catalogue: Catalogue, query: RetrievalQuery) -> bool:
    return query.similar_to is not None and bool(catalogue.item_known([query.similar_to])[0])


def _most_popular(
    catalogue: Catalogue,
    popularity: NDArray[np.float64],
    order: NDArray[np.int64],
    query: RetrievalQuery,
    k: int,
) -> FoundRows:
    """Return the first `k` allowed rows in `order`, of falling `popularity` (n,), and shares of the greatest one."""
    if _asks_for_similar(catalogue, query):
        return _NO_ROWS
    rows = _first_allowed(catalogue, order, query.exclude, k)
    greatest = popularity[order[:1]].max(initial=0.0) or 1.0
    return rows, (popularity[rows] / greatest).astype(np.float32)


def _first_allowed(
    catalogue: Catalogue, order: NDArray[np.int64], exclude: frozenset[str], k: int
) -> NDArray[np.int64]:
    """Return the first `k` of the rows in `order` whose item is not excluded."""
    rows = order[: k + len(exclude)]
    if exclude:
        rows = rows[~np.isin(rows, catalogue.rows(exclude))]
    return rows[:k]


def _unwanted(query: RetrievalQuery) -> frozenset[str]:
    """Return what must not be answered; an item is no answer to the question what else is like it."""
    return query.exclude if query.similar_to is None else query.exclude | {query.similar_to}


def _check_history(name: str, history: int) -> None:
    if history < 1:
        raise InvalidOption(
            f"{name}: history={history} leaves nothing of what the user took up, so nothing would be found. Set 1 or "
            "more."
        )


def _nothing(catalogue: Catalogue) -> Found:
    return np.empty(0, catalogue.item_ids.dtype), np.empty(0, np.float32)
