"""From interactions to features that Feast serves."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd

from explorank.builtin.retrieval import similarity_columns
from explorank.crosses import Crosses
from explorank.errors import DataError
from explorank.retrieval.features import BuildReport, FeatureAccess, build_features
from explorank.settings import Settings


def feature_access(settings: Settings) -> FeatureAccess:
    """Return the access to the configured Feast repository; raise `DataError` where none is configured."""
    if settings.features is None:
        raise DataError(
            f"{settings.source} has no `features` section, so there is no Feast repository to read from or write "
            "to. Add one; `explorank init` shows how."
        )
    configured = settings.features
    return FeatureAccess(
        settings.path(configured.repository),
        user_service=configured.user_service,
        item_service=configured.item_service,
        history_service=configured.history_service,
        as_of=None if configured.as_of is None else configured.as_of.timestamp(),
    )


def served_columns(settings: Settings, access: FeatureAccess | None = None) -> frozenset[str]:
    """Return the columns that the stage serves to a ranker; raise `DataError` for crosses that cannot be made.

    `access` spares opening the configured Feast repository once more.
    """
    served = {*similarity_columns(settings)}
    if settings.features is not None:
        access = access or feature_access(settings)
        served |= {*access.item_names, *access.user_names}
        crosses = Crosses.of(settings)
        crosses.check(sorted(served))
        served |= {*crosses.names}
    return frozenset(served)


def prepare_features(
    settings: Settings,
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    users: pd.DataFrame | None,
    *,
    until: datetime | None = None,
) -> BuildReport:
    """Write point-in-time rows, apply the repository and load the newest rows into the online store.

    `until` bounds what is written; the online store then knows what was known at that time.
    """
    access = feature_access(settings)
    configured = settings.features
    assert configured is not None  # noqa: S101 - `feature_access` raised otherwise
    report = build_features(
        interactions, items, users, access.repository, positive_from=configured.positive_from, until=until
    )
    if until is not None:
        access.reset()  # or rows of later times, loaded before, would stay and be served
    access.apply()
    access.materialize(until or datetime.now(UTC))
    return report
