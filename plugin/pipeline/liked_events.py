"""What users liked, by interactions and by the decision log: what retrieval learns from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import pandas as pd

from explorank.errors import DataError
from explorank.hooks.feedback import read_log
from explorank.liking import Liking
from explorank.pipeline.quarantine import UsableTables, usable_tables
from explorank.pipeline.tables import past_interactions, read_table
from explorank.settings import Settings

Learner: TypeAlias = Literal["by_use", "learned_embeddings"]
"""The section of `retrieval` whose `log` says whether the decision log counts."""

_TELLS: Final[dict[Learner, str]] = {
    "by_use": "which tell what has the same users",
    "learned_embeddings": "which a space of items and users is learnt from",
}


def usable_interactions(settings: Settings, given: Path | None = None) -> UsableTables | None:
    """Return the checked table of interactions at `given`, or else the one that `retrieval` names.

    None where neither names one. Raises `DataError` for a table that cannot be read.
    """
    path = given
    if path is None and settings.retrieval.interactions is not None:
        path = settings.path(settings.retrieval.interactions)
    return None if path is None else usable_tables(settings, interactions=read_table(path))


def events_of_learners(
    settings: Settings, interactions: pd.DataFrame | None, until: datetime | None
) -> dict[Learner, pd.DataFrame]:
    """Return the liked events for each configured learner, by `interactions` or else by what settings name.

    `until` leaves out what came later. Raises `DataError` where a learner is configured and nothing names interactions,
    and the other way round.
    """
    retrieval = settings.retrieval
    learners: list[Learner] = []
    if retrieval.by_use is not None:
        learners.append("by_use")
    if retrieval.learned_embeddings is not None:
        learners.append("learned_embeddings")
    if interactions is not None and not learners:
        raise DataError(
            "Interactions tell which items have the same users, or where items and users lie in a learnt space, and "
            "`retrieval` asks for neither, so they would be read for nothing. Set `retrieval: {by_use: {}}` or "
            "`retrieval: {learned_embeddings: {}}`, or build without them."
        )
    if interactions is None and learners:
        interactions = _named(settings)
    events = {learner: _known(settings, learner, interactions) for learner in learners}
    if until is None:
        return events
    return {learner: liked[liked["timestamp"] <= until] for learner, liked in events.items()}


def known_events(settings: Settings, learner: Learner) -> pd.DataFrame:
    """Return what `liked_events` does, by the sources that settings name; raise `DataError` where they name none."""
    return _known(settings, learner, _named(settings))


def _known(settings: Settings, learner: Learner, interactions: pd.DataFrame | None) -> pd.DataFrame:
    if interactions is None and not _reads_log(settings, learner):
        raise DataError(
            f"`retrieval.{learner}` asks for interactions, {_TELLS[learner]}, and nothing names any. Pass "
            f"`--interactions FILE`, or set `retrieval.{learner}.interactions: FILE` or "
            f"`retrieval.{learner}.log: true`."
        )
    return liked_events(settings, learner, interactions)


def _named(settings: Settings) -> pd.DataFrame | None:
    tables = usable_interactions(settings)
    return None if tables is None or tables.interactions is None else past_interactions(tables.interactions)


def liked_events(settings: Settings, learner: Learner, interactions: pd.DataFrame | None) -> pd.DataFrame:
    """Return `user_id`, `item_id` and UTC `timestamp` of what users liked, by interactions and by the decision log.

    The log counts where the learner's `log` is set: each item that the rewards of a decision add up to liking.
    """
    features = settings.features
    columns = ["user_id", "item_id", "timestamp"]
    parts = []
    if interactions is not None:
        positive_from = 1.0 if features is None else features.positive_from
        parts.append(interactions.loc[interactions["value"] >= positive_from, columns])
    if _reads_log(settings, learner):
        rows = list(_liked_in_log(settings))
        logged = pd.DataFrame(rows, columns=columns)
        logged["timestamp"] = pd.to_datetime(logged["timestamp"], unit="s", utc=True)
        parts.append(logged.astype({"timestamp": "datetime64[us, UTC]"}))
    return pd.concat(parts, ignore_index=True)


def _reads_log(settings: Settings, learner: Learner) -> bool:
    section = getattr(settings.retrieval, learner)
    return section is not None and bool(section.log)


def _liked_in_log(settings: Settings) -> Iterator[tuple[str, str, float]]:
    liking = Liking.of(settings)
    for entry in read_log(settings.folder_path / "log"):
        user = entry.record.request.user_id
        if user is not None:
            for item, time in liking.liked(entry.rewards).items():
                yield user, item, time
