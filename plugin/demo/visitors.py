"""Who comes to the simulation, and what the policies see of the items they rated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.demo.data import DemoData
from explorank.exploration_features import ExplorationFeatures
from explorank.hooks.types import Features, Scores
from explorank.pipeline.past_data import feature_matrix
from explorank.pipeline.queries import interest_vectors
from explorank.rankers import Ranker
from explorank.retrieval import Catalogue
from explorank.retrieval.features import FeatureAccess

MIN_RATED = 10
"""Items that a user must have rated from the split on to come at all."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """One user's rated items: what the policies see and what each would earn."""

    item_ids: NDArray[np.str_]  # (n,)
    scores: NDArray[np.float64]  # (n,)
    features: NDArray[np.float32]  # (n, d)
    rewards: NDArray[np.float64]  # (n,)


def visitors_of(
    data: DemoData,
    queries: pd.DataFrame,
    access: FeatureAccess,
    catalogue: Catalogue,
    ranker: Ranker,
    features: ExplorationFeatures,
    *,
    decay: float,
) -> list[Visitor]:
    """Return the users of `queries` who rated enough, with features and scores as of when they were asked about."""
    rows = _rated_later(data, queries, catalogue)
    if rows.empty:
        return []
    names, matrix = feature_matrix(access, catalogue, rows, interest_vectors(queries, catalogue, decay))
    scores = ranker.score(matrix)
    visitors = []
    for _, group in rows.groupby("query", sort=True):
        at = group.index.to_numpy()
        seen = features.matrix(Features(names, matrix[at]), Scores(scores[at]), ranker.manifest.scale)
        assert seen is not None  # noqa: S101 - the demo configures columns
        visitors.append(
            Visitor(
                item_ids=group["item_id"].to_numpy(dtype=np.str_),
                scores=scores[at],
                features=seen,
                rewards=(group["value"].to_numpy() >= data.positive_from).astype(np.float64),
            )
        )
    return visitors


def _rated_later(data: DemoData, queries: pd.DataFrame, catalogue: Catalogue) -> pd.DataFrame:
    """Return one row for each user and item rated from the query on, with the query's position and time."""
    asked = queries[["user_id", "event_timestamp"]].assign(query=np.arange(len(queries)))
    rated = data.interactions.merge(asked, on="user_id")
    rated = rated[rated["timestamp"] >= rated["event_timestamp"]].drop_duplicates(["query", "item_id"])
    rated = rated[catalogue.item_known(rated["item_id"].tolist())]
    enough = rated.groupby("query")["item_id"].transform("size") >= MIN_RATED
    return rated[enough].reset_index(drop=True)
