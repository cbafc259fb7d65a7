"""The retrievers behind the hooks: who could be shown, and how close each is to the user's interest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from explorank.artefacts import Watched
from explorank.builtin.interest import LiveInterest
from explorank.fallbacks import note_fallback
from explorank.hooks import hookimpl
from explorank.hooks.registry import Registry
from explorank.hooks.types import Candidates, Fallback, FeatureArray, Features, RankingRequest, Reward
from explorank.retrieval import (
    Catalogue,
    NewItems,
    Popular,
    RetrievalQuery,
    Retriever,
    SimilarByUse,
    SimilarToHistory,
)
from explorank.services import Services
from explorank.settings import ByUseSettings, Settings, resolve_component

SIMILARITY: Final = "similarity"
"""The column with the cosine between the user's interest vector and the item's; NaN where one is unknown."""

SIMILARITY_BY_USE: Final = "similarity_by_use"
"""The column with how much each item has the same users as what the user took up; where `retrieval.by_use` is set."""


class RetrievalPlugin:
    """Holds the newest catalogue, the configured retrievers and the users' live interest."""

    def __init__(self) -> None:
        self._catalogue: Watched[Catalogue] | None = None
        self._retrievers: tuple[tuple[Retriever, int], ...] = ()
        self._interest = LiveInterest(decay=0.9)
        self._by_use: ByUseSettings | None = None

    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        """Add the built-in retrievers."""
        registry.retriever("similar_to_history", SimilarToHistory)
        registry.retriever("similar_by_use", SimilarByUse)
        registry.retriever("popular", Popular)
        registry.retriever("new_items", NewItems)

    @hookimpl
    def ranking_startup(self, settings: Settings, services: Services) -> None:
        """Watch the catalogue and build the retrievers."""
        self._interest = LiveInterest(settings.retrieval.decay)
        self._by_use = settings.retrieval.by_use
        self._retrievers = tuple(
            (resolve_component("retriever", component, services.registry), component.k)
            for component in settings.retrieval.retrievers
        )
        self._catalogue = services.catalogue

    @hookimpl
    def ranking_enrich_request(self, request: RankingRequest) -> Mapping[str, Any] | None:
        """Add what the user did since their features were materialised."""
        if request.user_id is None:
            return None
        return {"recent": self._interest.recent.of(request.user_id)}

    @hookimpl
    def ranking_retrieve(self, request: RankingRequest, k: int) -> Candidates | None:
        """Return the union of what the configured retrievers find, at most `k` from each."""
        catalogue = self._newest()
        if catalogue is None:
            return None
        query = RetrievalQuery(
            user_vector=self._user_vector(request, catalogue),
            history=history_of(request),
            similar_to=request.similar_to,
            exclude=request.exclude,
            time=request.time,
        )
        found = (_found(retriever, catalogue, query, min(k, own_k)) for retriever, own_k in self._retrievers)
        return Candidates.union(found)

    @hookimpl
    def ranking_enrich(self, request: RankingRequest, candidates: Candidates) -> Features | None:
        """Return how similar each candidate is to what the user took up, or to the item asked for.

        That is the cosine of its text with the user's interest and, where settings ask for it, the mean weight by use.
        """
        catalogue = self._newest()
        if catalogue is None:
            return None
        anchor = self._anchor(request, catalogue)
        if anchor is None:
            cosines = np.full(len(candidates), np.nan, np.float32)
        else:
            cosines = catalogue.cosines(anchor, candidates.id_list)
        if self._by_use is None:
            return Features((SIMILARITY,), cosines[:, None])
        history = history_of(request)[-self._by_use.history :]
        known = history if request.similar_to is None else (request.similar_to,)
        means = catalogue.means_by_use(known, candidates.id_list)
        return Features((SIMILARITY, SIMILARITY_BY_USE), np.column_stack([cosines, means]))

    @hookimpl
    def ranking_observe_rewards(self, rewards: Sequence[Reward]) -> None:
        """Let the user's interest follow what they rewarded."""
        catalogue = self._newest()
        for reward in rewards:
            if catalogue is not None and reward.user_id is not None and reward.value > 0:
                self._interest.observe(reward.user_id, reward.item_id, catalogue)

    def _newest(self) -> Catalogue | None:
        return None if self._catalogue is None else self._catalogue.get()

    def _user_vector(self, request: RankingRequest, catalogue: Catalogue) -> FeatureArray | None:
        return self._interest.vector(request.user_id, liked_items(request), catalogue)

    def _anchor(self, request: RankingRequest, catalogue: Catalogue) -> FeatureArray | None:
        if request.similar_to is None:
            return self._user_vector(request, catalogue)
        row = int(catalogue.rows([request.similar_to])[0])
        return None if row < 0 else catalogue.vectors[row]


def _found(retriever: Retriever, catalogue: Catalogue, query: RetrievalQuery, k: int) -> Candidates:
    """Return what one retriever finds; one that fails finds nothing and costs the others nothing."""
    try:
        ids, scores = retriever.retrieve(catalogue, query, k)
        return Candidates.of(ids, retriever.name, scores)
    except Exception as error:  # whatever a retriever raises, the others answer
        note_fallback(Fallback("retrieve", retriever.name, f"{type(error).__name__}: {error}", "skipped"))
        return Candidates.of((), retriever.name)


def liked_items(request: RankingRequest) -> Sequence[str]:
    """Return what the visitor liked by what is stored and brought along, oldest first."""
    liked: Sequence[str] = request.context.get("liked", request.context.get("history", ()))
    return liked


def history_of(request: RankingRequest) -> tuple[str, ...]:
    """Return what the visitor took up, oldest first: what is stored, their session, and what came in since then.

    What is stored of the latest events already, and what was taken up once more, stands where it was last taken up.
    """
    stored = map(str, liked_items(request))
    since = tuple(request.context.get("recent", ()))
    if not since:
        return tuple(stored)
    latest = frozenset(since)
    return (*(item for item in stored if item not in latest), *since)
