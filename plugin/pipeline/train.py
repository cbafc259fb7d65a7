"""From past interactions to a ranker: queries, point-in-time features, lambdarank, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION, CATALOGUE, RANKER
from explorank.builtin.retrieval import SIMILARITY
from explorank.crosses import Crosses
from explorank.errors import CorruptState, DataError, RankerError
from explorank.hooks.exploration import Calibration
from explorank.hooks.types import Features
from explorank.pipeline.features import feature_access
from explorank.pipeline.metrics import ndcg_at
from explorank.pipeline.queries import QueryOptions, interest_vectors, labelled_rows, ranking_queries
from explorank.rankers import LightGBMOptions, LightGBMRanker, RankingData
from explorank.retrieval import Catalogue
from explorank.retrieval.features import FeatureAccess
from explorank.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How a ranker is trained."""

    queries: QueryOptions = field(default_factory=QueryOptions)
    max_queries: int = 2_000
    """At most this many past requests, the latest; they resemble most what will be asked."""
    negatives: int = 60
    """How many items are drawn for a query's positives to be told from."""
    validation_share: float = 0.2
    """The latest share of the queries, by time, on which training stops early."""
    params: Mapping[str, Any] = field(
        default_factory=lambda: {
            "learning_rate": 0.03,
            "num_leaves": 15,
            "min_data_in_leaf": 100,
            "feature_fraction": 0.5,
            "lambda_l2": 10.0,
        }
    )
    """LightGBM's own. Small and shrunken trees: counts drift with time, and deep ones learn their thresholds.
    On few rows `min_data_in_leaf` is lowered to 2 % of them.
    """
    rounds: int = 400
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What was trained on what."""

    version: str
    queries: int
    validation_queries: int
    rows: int
    features: tuple[str, ...]
    validation_ndcg_at_10: float
    """Over the sampled candidates of the validation queries, so it is no accuracy over the catalogue."""
    calibration: str | None = None
    """The map of the former ranker's scores to rewards, carried over to this one's by rank; `None` where there was
    none to carry over."""


def train_ranker(
    settings: Settings,
    interactions: pd.DataFrame,
    *,
    options: TrainOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LightGBMRanker, TrainReport]:
    """Return a published ranker, trained on what was known at the time of past requests.

    `interactions` is what `past_interactions` returns. Validation is the latest slice by time; features come
    from the feature store's point-in-time joins. Raises `DataError` where there is too little to learn from.
    """
    options = options or TrainOptions()
    store = ArtefactStore(settings.folder_path / "artefacts")
    current = store.current(CATALOGUE)
    if current is None:
        raise DataError(
            "No catalogue is built yet, and the ranker reads similarities from it. Run `explorank build`."
        )
    catalogue = Catalogue.load(current[1])
    former = store.current(RANKER)
    access = feature_access(settings)
    crosses = Crosses([] if settings.features is None else settings.features.crosses)
    crosses.check((*access.item_names, *access.user_names, SIMILARITY))
    queries, split = _past_requests(interactions, catalogue, options)
    vectors = interest_vectors(queries, catalogue, settings.retrieval.decay)
    rows = labelled_rows(queries, catalogue, negatives=options.negatives, seed=options.seed)
    labels = rows["label"].to_numpy()
    train = (rows["query"] < split).to_numpy()
    valid = ~train
    names, matrix = feature_matrix(access, catalogue, rows, vectors, crosses)
    times = queries["event_timestamp"]
    data = RankingData(
        features=matrix,
        feature_names=names,
        labels=labels,
        groups=_group_sizes(rows["query"]),
        window=(times.iloc[0].timestamp(), times.iloc[-1].timestamp()),
    )
    ranker = LightGBMRanker.fit(
        data.take(np.arange(split)),
        valid=replace(data.take(np.arange(split, len(queries))), called="validation"),
        options=LightGBMOptions(params=_fitting(options.params, int(train.sum())), rounds=options.rounds),
        seed=options.seed,
        progress=progress,
    )
    version = store.publish(RANKER, ranker.save)
    carried = _carry_over(store, None if former is None else former[1], ranker, names, matrix[valid])
    return ranker, TrainReport(
        calibration=carried,
        version=version,
        queries=split,
        validation_queries=len(queries) - split,
        rows=len(rows),
        features=names,
        validation_ndcg_at_10=_mean_ndcg(ranker.score(matrix[valid]), rows[valid]),
    )


def _carry_over(
    store: ArtefactStore,
    former: Path | None,
    ranker: LightGBMRanker,
    names: tuple[str, ...],
    rows: NDArray[np.float32],
) -> str | None:
    """Publish the former ranker's calibration for the new one's scores; return its version, if there was one.

    Without it nothing would explore by a warm start until rewards of the new ranker have come. Both score the later
    rows. What they are labelled with is no reward: it says who was liked among sampled items, not how often.
    """
    current = store.current(CALIBRATION)
    if former is None or current is None:
        return None
    try:
        old, calibration = LightGBMRanker.load(former), Calibration.load(current[1])
    except (RankerError, CorruptState, OSError):
        return None  # what is damaged is no map; the new ranker serves all the same
    known = old.manifest.feature_names
    if calibration.ranker != old.manifest.version or not set(known) <= set(names):
        return None
    columns = [names.index(name) for name in known]
    carried = calibration.carried_over(
        old.score(rows[:, columns]), ranker.score(rows), ranker=ranker.manifest.version
    )
    return store.publish(CALIBRATION, carried.save)


def _past_requests(
    interactions: pd.DataFrame, catalogue: Catalogue, options: TrainOptions
) -> tuple[pd.DataFrame, int]:
    """Return the queries that teach something, the latest, and how many of them come before validation."""
    queries = ranking_queries(interactions, options.queries, seed=options.seed)
    queries = queries[[bool(catalogue.item_known(taken).any()) for taken in queries["positives"]]]
    queries = queries.tail(options.max_queries).reset_index(drop=True)
    split = int(len(queries) * (1 - options.validation_share))
    if not 0 < split < len(queries):
        raise DataError(
            f"{len(queries)} past requests after which items of the catalogue were liked are too few to train on the "
            "earlier and to stop on the later ones. Bring more interactions, or build the catalogue of their items."
        )
    return queries, split


def feature_matrix(
    access: FeatureAccess,
    catalogue: Catalogue,
    rows: pd.DataFrame,
    vectors: NDArray[np.float32],
    crosses: Crosses | None = None,
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Return the ranker's columns for `rows`, (n, d) float32, as of each row's time: what serving would have seen.

    `rows` has `query`, `user_id`, `item_id` and `event_timestamp`; `vectors` (q, d) are the queries' interests.
    """
    known = access.training_frame(rows[["user_id", "item_id", "event_timestamp"]])
    names = (*access.item_names, *access.user_names)
    positions = catalogue.rows(rows["item_id"].tolist())
    norms = np.linalg.norm(vectors, axis=1)
    units = vectors / np.where(norms > 0, norms, 1.0)[:, None]
    query = rows["query"].to_numpy()
    cosines = np.einsum("nd,nd->n", catalogue.vectors[positions], units[query])
    cosines[(positions < 0) | (norms[query] == 0)] = np.nan
    matrix = np.column_stack([known[list(names)].to_numpy(np.float32), cosines.astype(np.float32)])
    features = (crosses or Crosses()).extend(Features((*names, SIMILARITY), matrix))
    return features.names, features.values


def _fitting(params: Mapping[str, Any], rows: int) -> dict[str, Any]:
    wanted = params.get("min_data_in_leaf")
    return {**params} if wanted is None else {**params, "min_data_in_leaf": min(wanted, max(1, rows // 50))}


def _group_sizes(query: pd.Series[int]) -> NDArray[np.int64]:
    """Return how many consecutive rows each query has."""
    return np.asarray(query.groupby(query, sort=False).size(), np.int64)


def _mean_ndcg(scores: NDArray[np.float64], rows: pd.DataFrame) -> float:
    ranked = rows.assign(score=scores).sort_values("score", ascending=False, kind="stable").groupby("query")
    values = [
        ndcg_at(group["item_id"].tolist(), set(group["item_id"][group["label"] > 0]), 10)
        for _, group in ranked
    ]
    return float(np.nanmean(values)) if values else float("nan")
