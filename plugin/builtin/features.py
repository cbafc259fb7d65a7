"""Feast behind the hooks: what is known of the user and of each candidate."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from typing import Any

import numpy as np

from explorank.builtin.request_context import USER, user_of
from explorank.fallbacks import note_fallback
from explorank.hooks import hookimpl
from explorank.hooks.types import Candidates, Fallback, Features, RankingRequest
from explorank.pipeline.features import feature_access
from explorank.retrieval.features import FeatureAccess
from explorank.settings import Settings

NAME = "explorank-features"


class FeaturesPlugin:
    """Asks Feast once for the user and once for all candidates."""

    def __init__(self) -> None:
        self._access: FeatureAccess | None = None
        self._positive_from = 1.0

    @hookimpl
    def ranking_startup(self, settings: Settings) -> None:
        """Open the Feast repository, where settings name one."""
        if settings.features is None:
            return
        self._access = feature_access(settings)
        self._positive_from = settings.features.positive_from
        self._access.warm_up()

    @hookimpl
    def ranking_enrich_request(self, request: RankingRequest) -> Mapping[str, Any] | None:
        """Add the user's row, their history and what they liked, oldest first; nothing for an anonymous visitor.

        A session that the host brings as `history` stays as it is, and counts as liked after the stored one.
        """
        if self._access is None or request.user_id is None:
            return None
        user = self._access.user(request.user_id, at=_time_of(request))
        _note_failed(user.failed_views)
        liked: tuple[str, ...] = user.history
        if len(user.history_values) == len(user.history):
            liked = tuple(compress(user.history, user.history_values >= self._positive_from))
        session = tuple(map(str, request.context.get("history", ())))
        return {
            USER: user,
            "stored_history": user.history,
            "history": user.history,
            "liked": (*liked, *session),
        }

    @hookimpl
    def ranking_enrich(self, request: RankingRequest, candidates: Candidates) -> Features | None:
        """Return item columns and, repeated in each row, the user's."""
        if self._access is None:
            return None
        n = len(candidates)
        places = candidates.places
        at = _time_of(request)
        items = (
            self._access.items(candidates.id_list, at=at)
            if places is None
            else self._access.items_at(places.table.item_ids, places.rows, at=at)
        )
        _note_failed(items.failed_views)
        user = user_of(request)
        names = self._access.user_names
        row = np.full(len(names), np.nan, np.float32) if user is None else user.values
        return Features(
            (*items.names, *names), np.hstack([items.values, np.broadcast_to(row, (n, len(names)))])
        )


def _time_of(request: RankingRequest) -> float | None:
    """Return when the request was made, so that one which is explained later has the ages that it had then.

    None where a host did not say.
    """
    return request.time if request.time > 0.0 else None


def _note_failed(views: tuple[str, ...]) -> None:
    for view in views:
        note_fallback(Fallback("enrich", NAME, f"feature view {view} could not be read", "missing values"))
