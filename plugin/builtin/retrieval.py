"""The retrievers behind the hooks: who could be shown, and how close each is to the user's interest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from explorank.artefacts import Watched
from explorank.builtin.interest import LiveInterest
from explorank.builtin.request_context import user_of
from explorank.fallbacks import note_fallback
from explorank.hooks import hookimpl
from explorank.hooks.errors import InvalidBatch
from explorank.hooks.registry import Registry
from explorank.hooks.types import (
    BoolArray,
    Candidates,
    Fallback,
    FeatureArray,
    Features,
    IndexArray,
    Places,
    RankingRequest,
    Reward,
)
from explorank.liking import Liking
from explorank.retrieval import (
    Catalogue,
    FoundRows,
    LearnedEmbeddings,
    NewItems,
    Popular,
    RetrievalQuery,
    Retriever,
    SimilarByUse,
    SimilarToHistory,
    Trending,
    UserFeatures,
    unite,
)
from explorank.services import Services
from explorank.settings import ByUseSettings, LearnedEmbeddingsSettings, Settings, resolve_component

SIMILARITY: Final = "similarity"
"""The column with the cosine between the user's interest vector and the item's; NaN where one is unknown."""

SIMILARITY_BY_USE: Final = "similarity_by_use"
"""The column with how much each item has the same users as what the user took up; where `retrieval.by_use` is set."""

SIMILARITY_LEARNED: Final = "similarity_learned"
"""The column with the product of user and item in the learnt space; where `learned_embeddings.column` asks for it."""


class RetrievalPlugin:
    """Holds the newest catalogue, the configured retrievers and the users' live interest."""

    def __init__(self) -> None:
        self._catalogue: Watched[Catalogue] | None = None
        self._retrievers: tuple[tuple[Retriever, int], ...] = ()
        self._interest = LiveInterest(decay=0.9)
        self._by_use: ByUseSettings | None = None
        self._liking = Liking({})
        self._learned: LearnedEmbeddingsSettings | None = None

    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        """Add the built-in retrievers."""
        registry.retriever("similar_to_history", SimilarToHistory)
        registry.retriever("similar_by_use", SimilarByUse)
        registry.retriever("learned_embeddings", LearnedEmbeddings)
        registry.retriever("popular", Popular)
        registry.retriever("trending", Trending)
        registry.retriever("new_items", NewItems)

    @hookimpl
    def ranking_startup(self, settings: Settings, services: Services) -> None:
        """Watch the catalogue and build the retrievers."""
        self._interest = LiveInterest(settings.retrieval.decay)
        self._by_use = settings.retrieval.by_use
        self._liking = Liking.of(settings)
        learned = settings.retrieval.learned_embeddings
        self._learned = learned if learned is not None and learned.column else None
        self._retrievers = configured_retrievers(settings, services.registry)
        self._catalogue = services.catalogue
        services.rewards_elsewhere.subscribe(self._follow)

    @hookimpl
    def ranking_enrich_request(self, request: RankingRequest) -> Mapping[str, Any] | None:
        """Add what the user did since their features were materialised."""
        if request.user_id is None:
            return None
        recent = self._interest.recent.of(request.user_id)
        return {"recent": recent.liked, "recent_disliked": recent.disliked}

    @hookimpl
    def ranking_retrieve(self, request: RankingRequest, k: int) -> Candidates | None:
        """Return the union of what the configured retrievers find, at most `k` from each."""
        catalogue = self._newest()
        if catalogue is None:
            return None
        if request.similar_to is not None and self._anchor(request, catalogue) is None:
            reason = (
                f"the catalogue has no item {request.similar_to!r}, so that nothing is known to be like it"
            )
            note_fallback(Fallback("retrieve", "explorank", reason, "items found without it"))
        query = RetrievalQuery(
            user_vector=self._user_vector(request, catalogue),
            history=history_of(request),
            similar_to=request.similar_to,
            user_features=self._user_features(request, catalogue),
            exclude=request.exclude,
            time=request.time,
        )
        return united(self._retrievers, catalogue, query, k)

    @hookimpl
    def ranking_enrich(self, request: RankingRequest, candidates: Candidates) -> Features | None:
        """Return how similar each candidate is to what the user took up, or to the item asked for.

        That is the cosine of its text with the user's interest and, where settings ask for them, the mean weight by use
        and the product in the learnt space.
        """
        catalogue = self._newest()
        if catalogue is None:
            return None
        rows = _rows_of(candidates, catalogue)
        columns = {SIMILARITY: self._cosines(request, candidates, catalogue, rows)}
        if self._by_use is not None or self._learned is not None:
            known = history_of(request) if request.similar_to is None else (request.similar_to,)
            if self._by_use is not None:
                columns[SIMILARITY_BY_USE] = catalogue.means_by_use_at(known[-self._by_use.history :], rows)
            if self._learned is not None:
                user = None if request.similar_to is not None else user_features_of(request)
                columns[SIMILARITY_LEARNED] = catalogue.learned_products_at(
                    known[-self._learned.history :], rows, user
                )
        return Features(tuple(columns), np.column_stack(list(columns.values())))

    @hookimpl
    def ranking_observe_rewards(self, rewards: Sequence[Reward]) -> None:
        """Let the user's interest follow what they rewarded."""
        self._follow(rewards)

    def _follow(self, rewards: Sequence[Reward]) -> None:
        catalogue = self._newest()
        for reward in rewards:
            worth = self._liking.worth(reward)
            if reward.user_id is not None and worth != 0.0:
                self._interest.observe(reward.user_id, reward.item_id, worth, catalogue)

    def _newest(self) -> Catalogue | None:
        return None if self._catalogue is None else self._catalogue.get()

    def _user_features(self, request: RankingRequest, catalogue: Catalogue) -> UserFeatures | None:
        """Return what is known of the user besides their history; note what the learnt space misses of it."""
        user = user_features_of(request)
        if user is not None and catalogue.embeddings is not None:
            absent = [name for name in catalogue.embeddings.model.user_features if name not in user.names]
            if absent:
                reason = (
                    f"the user features {absent} of the learnt space are not served; run `explorank check`"
                )
                note_fallback(Fallback("retrieve", LearnedEmbeddings.name, reason, "missing values"))
        return user

    def _user_vector(self, request: RankingRequest, catalogue: Catalogue) -> FeatureArray | None:
        return self._interest.vector(request.user_id, liked_items(request), catalogue)

    def _cosines(
        self, request: RankingRequest, candidates: Candidates, catalogue: Catalogue, rows: IndexArray
    ) -> FeatureArray:
        """Return the cosine of each item in `rows` (m,) with what the request is about, NaN where one is unknown."""
        anchor = self._anchor(request, catalogue)
        if anchor is None:
            return np.full(len(rows), np.nan, np.float32)
        if not catalogue.index.compares_again or candidates.places is None:
            return catalogue.cosines_at(anchor, rows)
        # What the search of a moment ago compared need not be read from memory once more.
        told = _found_alone(candidates, SimilarToHistory.name)
        if told.all():
            return candidates.retrieval_scores
        cosines = catalogue.cosines_at(anchor, np.where(told, -1, rows))
        cosines[told] = candidates.retrieval_scores[told]
        return cosines

    def _anchor(self, request: RankingRequest, catalogue: Catalogue) -> FeatureArray | None:
        if request.similar_to is None:
            return self._user_vector(request, catalogue)
        row = int(catalogue.rows([request.similar_to])[0])
        return None if row < 0 else catalogue.vectors[row]


def similarity_columns(settings: Settings) -> tuple[str, ...]:
    """Return the columns that compare each item with what the user took up."""
    retrieval = settings.retrieval
    columns = [SIMILARITY]
    if retrieval.by_use is not None:
        columns.append(SIMILARITY_BY_USE)
    if retrieval.learned_embeddings is not None and retrieval.learned_embeddings.column:
        columns.append(SIMILARITY_LEARNED)
    return tuple(columns)


def configured_retrievers(settings: Settings, registry: Registry) -> tuple[tuple[Retriever, int], ...]:
    """Return each configured retriever with how many items it is asked for.

    Raises `SettingsError` for one that no plugin registers, and for options that do not fit.
    """
    return tuple(
        (resolve_component("retriever", component, registry), component.k)
        for component in settings.retrieval.retrievers
    )


def united(
    retrievers: Sequence[tuple[Retriever, int]], catalogue: Catalogue, query: RetrievalQuery, k: int
) -> Candidates:
    """Return the union of what `retrievers` find, at most `k` from each, in order of first appearance.

    One that fails finds nothing, and a fallback is noted.
    """
    return _union(
        catalogue,
        [retriever.name for retriever, _ in retrievers],
        [_found(retriever, catalogue, query, min(k, own_k)) for retriever, own_k in retrievers],
    )


def _rows_of(candidates: Candidates, catalogue: Catalogue) -> IndexArray:
    """Return where the candidates stand in the catalogue, -1 for others."""
    places = candidates.places
    if places is not None and places.table is catalogue:
        return places.rows
    return catalogue.rows(candidates.id_list)


def _found_alone(candidates: Candidates, retriever: str) -> BoolArray:
    """Return whom `retriever` found and no other, (n,), whose retrieval scores are therefore its own."""
    if retriever not in candidates.source_names:
        return np.zeros(len(candidates), np.bool_)
    alone: BoolArray = candidates.source_bits == np.uint64(1 << candidates.source_names.index(retriever))
    return alone


def _found(
    retriever: Retriever, catalogue: Catalogue, query: RetrievalQuery, k: int
) -> FoundRows | Candidates:
    """Return what one retriever finds; one that fails finds nothing and costs the others nothing."""
    try:
        by_rows = getattr(retriever, "retrieve_rows", None)
        found: FoundRows | None = by_rows and by_rows(catalogue, query, k)
        if found is not None:
            return _checked(retriever.name, *found, len(catalogue))
        ids, scores = retriever.retrieve(catalogue, query, k)
        return Candidates.of(ids, retriever.name, scores)
    except Exception as error:  # whatever a retriever raises, the others answer
        note_fallback(Fallback("retrieve", retriever.name, f"{type(error).__name__}: {error}", "skipped"))
        return Candidates.of((), retriever.name)


def _checked(name: str, rows: IndexArray, scores: FeatureArray, n: int) -> FoundRows:
    if rows.ndim != 1 or rows.shape != scores.shape:
        raise InvalidBatch(
            f"{name!r} returned {scores.shape} scores for {rows.shape} rows; both must be (m,)"
        )
    if len(rows) and not 0 <= rows.min() <= rows.max() < n:
        raise InvalidBatch(f"{name!r} returned rows outside the catalogue's {n} items")
    return rows.astype(np.int64, copy=False), scores.astype(np.float32, copy=False)


def _union(catalogue: Catalogue, names: Sequence[str], found: Sequence[FoundRows | Candidates]) -> Candidates:
    """Return every item once, in order of first appearance; by their rows where all retrievers told them."""
    told = [each for each in found if not isinstance(each, Candidates)]
    if len(told) < len(found) or len(set(names)) < len(names):
        return Candidates.union(
            each
            if isinstance(each, Candidates)
            else Candidates.of(catalogue.item_ids[each[0]], name, each[1])
            for name, each in zip(names, found, strict=True)
        )
    united = unite(told)
    return Candidates(
        catalogue.item_ids[united.rows],
        tuple(names),
        united.sources,
        united.scores,
        Places(catalogue, united.rows),
    )


def liked_items(request: RankingRequest) -> Sequence[str]:
    """Return what the visitor liked by what is stored and brought along, oldest first."""
    liked: Sequence[str] = request.context.get("liked", request.context.get("history", ()))
    return liked


def user_features_of(request: RankingRequest) -> UserFeatures | None:
    """Return what is known of the visitor besides their history; None for an anonymous one, and without Feast."""
    user = user_of(request)
    return None if user is None else UserFeatures(user.names, user.values)


def history_of(request: RankingRequest) -> tuple[str, ...]:
    """Return what the visitor took up, oldest first: what is stored, their session, and what came in since then.

    What is stored of the latest events already, and what was taken up once more, stands where it was last taken up.
    What was disliked since it was stored is left out.
    """
    stored = map(str, liked_items(request))
    since = tuple(request.context.get("recent", ()))
    disliked = request.context.get("recent_disliked", ())
    if not since and not disliked:
        return tuple(stored)
    latest = frozenset((*since, *disliked))
    return (*(item for item in stored if item not in latest), *since)
