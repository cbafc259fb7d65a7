"""From past interactions to a ranker: queries, point-in-time features, training, evidence, publication."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION, CATALOGUE, RANKER, collect_components, load_ranker
from explorank.builtin.retrieval import SIMILARITY
from explorank.crosses import Crosses
from explorank.errors import USER_ERRORS, CorruptState, DataError
from explorank.hooks.exploration import Calibration
from explorank.hooks.registry import Registry
from explorank.hooks.types import Features
from explorank.model_card import Comparison, Estimate
from explorank.pipeline.card import model_card, options_as_json
from explorank.pipeline.checkpoints import checkpoint_folder, fingerprint, is_resumed
from explorank.pipeline.evidence import PromotionRule, Verdict, accuracy, compared, judge
from explorank.pipeline.features import feature_access
from explorank.pipeline.metrics import Interval, bootstrap
from explorank.pipeline.queries import QueryOptions, interest_vectors, labelled_rows, ranking_queries
from explorank.pipeline.results import estimate
from explorank.pipeline.segments import by_segment, user_groups
from explorank.pipeline.tracking import Monitor, Run, TrackerName, tracking
from explorank.rankers import Ranker, RankingData, TrainableRanker, score_data
from explorank.retrieval import Catalogue
from explorank.retrieval.features import FeatureAccess
from explorank.settings import RankerComponent, Settings, resolve_ranker


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How the data is made, and what becomes of the ranker; what it is trained with is the ranker's own."""

    queries: QueryOptions = field(default_factory=QueryOptions)
    max_queries: int = 2_000
    """At most this many past requests, the latest; they resemble most what will be asked."""
    negatives: int = 60
    """How many items are drawn for a query's positives to be told from."""
    validation_share: float = 0.2
    """The latest share of the queries, by time, on which training stops early."""
    seed: int = 0
    promote: PromotionRule = "unless-worse"
    """When the new ranker becomes current; the first one always does, but by `never`."""
    trackers: tuple[TrackerName, ...] = ()
    """Where per-round metrics go, beside `progress`."""
    log_folder: Path | None = None
    """Where trackers may write files; `runs` in the installation's folder by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What was trained on what."""

    version: str
    """Of the artefact."""
    ranker: str
    """The name that it was trained by."""
    queries: int
    validation_queries: int
    rows: int
    features: tuple[str, ...]
    validation_ndcg_at_10: float
    """Over the sampled candidates of the validation queries, so it is no accuracy over the catalogue."""
    ndcg_at_10: Interval
    """The same with its interval over users."""
    verdict: Verdict
    comparison: Comparison | None
    """With the ranker that was current; `None` where there was none that could be scored."""
    resumed: bool
    """Whether a run that was cut off before has left something to go on from."""
    log_folder: Path | None
    """Where event files of this run lie; `None` without trackers."""
    calibration: str | None = None
    """The map of the former ranker's scores to rewards, carried over to this one's by rank; `None` where there was
    none to carry over."""


@dataclass(frozen=True, slots=True)
class _PastData:
    """Past requests, the earlier to train on and the later to stop and judge on."""

    training: RankingData
    later: RankingData
    training_users: NDArray[Any]  # (g,)
    later_users: NDArray[Any]  # (h,)
    activity: NDArray[np.int64]  # (h,) how many events the user of each later request had before


def train_ranker(
    settings: Settings,
    interactions: pd.DataFrame,
    *,
    component: RankerComponent | None = None,
    options: TrainOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
    plugins: Sequence[object] = (),
) -> tuple[TrainableRanker, TrainReport]:
    """Return a published ranker, trained on what was known at the time of past requests.

    `interactions` is what `past_interactions` returns. `component` names the ranker and its options; by default the
    configured one. Validation is the latest slice by time; features come from the feature store's point-in-time
    joins. It becomes current by `options.promote`, judged on that slice beside the current one. A run that was cut
    off goes on when it is run again, as far as the ranker saves checkpoints. `plugins` join the installed ones.

    Raises `DataError` where there is too little to learn from, `SettingsError` for options that do not fit, and
    `InvalidTraining` where the ranker refuses the data.
    """
    options = options or TrainOptions()
    component = component or settings.ranker
    if component is None:
        raise DataError(
            f"{settings.source} says `ranker: null`, so there is nothing to train. Name one: `explorank train --ranker "
            "lightgbm`."
        )
    _, registry = collect_components(settings, plugins)
    ranker_class, ranker_options = resolve_ranker(component, registry)
    if not hasattr(ranker_class, "fit"):
        raise DataError(
            f"The ranker {component.use!r} cannot be trained here: its class has no `fit`. Publish it with "
            "`ArtefactStore.publish`, or name another one."
        )
    store = ArtefactStore(settings.folder_path / "artefacts")
    current = store.current(CATALOGUE)
    if current is None:
        raise DataError(
            "No catalogue is built yet, and the ranker reads similarities from it. Run `explorank build`."
        )
    catalogue = Catalogue.load(current[1])
    access = feature_access(settings)
    past = _past_data(settings, interactions, catalogue, access, options)
    name = component.use
    run = Run(
        project=settings.project,
        name=f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}",
        folder=(options.log_folder or settings.folder_path / "runs")
        / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}",
        options={**options_as_json(ranker_options), "seed": options.seed},
    )
    identity = f"{name}-{fingerprint(name, (past.training, past.later), ranker_options, options.seed)}"
    with (
        checkpoint_folder(settings.folder_path / "training", identity) as checkpoint,
        tracking(options.trackers, run) as trackers,
    ):
        resumed = is_resumed(checkpoint)
        monitor = Monitor(progress, trackers)
        ranker: TrainableRanker = ranker_class.fit(
            past.training,
            valid=past.later,
            options=ranker_options,
            seed=options.seed,
            progress=monitor,
            checkpoint=checkpoint,
        )
        scores = score_data(ranker, past.later)
        metrics = accuracy(scores, past.later)
        for tracker in trackers:
            tracker.log(
                monitor.steps, {f"final/{one}": float(np.nanmean(values)) for one, values in metrics.items()}
            )
        former = _Former.of(settings, registry, store, past, metrics["ndcg@10"], options.seed)
        first = store.current(RANKER) is None
        verdict = judge(
            options.promote,
            former.difference,
            "the first one" if first else f"not compared: {former.why_not}",
        )
        card = model_card(
            name,
            ranker,
            options=ranker_options,
            seed=options.seed,
            data=past.training,
            later=past.later,
            users=(past.training_users, past.later_users),
            scores=scores,
            metrics=metrics,
            segments=tuple(_segments(access, past, metrics["ndcg@10"], options.seed)),
            comparison=former.comparison,
        )

        def write(folder: Path) -> None:
            ranker.save(folder)
            card.write(folder)

        version = store.publish(RANKER, write, promote=verdict.promoted)
    carried = _carry_over(store, former, ranker, scores, promote=verdict.promoted)
    return ranker, TrainReport(
        calibration=carried,
        version=version,
        ranker=name,
        queries=past.training.requests,
        validation_queries=past.later.requests,
        rows=len(past.training) + len(past.later),
        features=ranker.manifest.feature_names,
        validation_ndcg_at_10=float(np.nanmean(metrics["ndcg@10"])),
        ndcg_at_10=bootstrap(metrics["ndcg@10"], seed=options.seed, users=past.later_users),
        verdict=verdict,
        comparison=former.comparison,
        resumed=resumed,
        log_folder=run.folder if trackers else None,
    )


def _past_data(
    settings: Settings,
    interactions: pd.DataFrame,
    catalogue: Catalogue,
    access: FeatureAccess,
    options: TrainOptions,
) -> _PastData:
    crosses = Crosses([] if settings.features is None else settings.features.crosses)
    crosses.check((*access.item_names, *access.user_names, SIMILARITY))
    queries, split = _past_requests(interactions, catalogue, options)
    vectors = interest_vectors(queries, catalogue, settings.retrieval.decay)
    rows = labelled_rows(queries, catalogue, negatives=options.negatives, seed=options.seed)
    names, matrix = feature_matrix(access, catalogue, rows, vectors, crosses)
    times = [moment.timestamp() for moment in queries["event_timestamp"]]
    data = RankingData(
        features=matrix,
        feature_names=names,
        labels=rows["label"].to_numpy(),
        groups=_group_sizes(rows["query"]),
        item_ids=rows["item_id"].to_numpy(),
        histories=tuple(queries["liked"]),
    )
    users = queries["user_id"].to_numpy().astype(str)
    return _PastData(
        replace(data.take(np.arange(split)), window=(times[0], times[split - 1])),
        replace(
            data.take(np.arange(split, len(queries))), window=(times[split], times[-1]), called="validation"
        ),
        users[:split],
        users[split:],
        np.array([len(seen) for seen in queries["seen"][split:]], np.int64),
    )


@dataclass(frozen=True, slots=True)
class _Former:
    """The ranker that was current, on the new one's later slice."""

    ranker: Ranker | None = None
    scores: NDArray[np.float64] | None = None
    comparison: Comparison | None = None
    difference: Interval | None = None
    why_not: str = ""

    @classmethod
    def of(
        cls,
        settings: Settings,
        registry: Registry,
        store: ArtefactStore,
        past: _PastData,
        ndcg: NDArray[np.float64],
        seed: int,
    ) -> _Former:
        """Score the later slice with the current ranker; whatever keeps it from that is a reason, no error."""
        try:
            current = store.current(RANKER)
            if current is None:
                return cls(why_not="there was none")
            version, folder = current[0], store.verify(RANKER, current[0])
            ranker = load_ranker(settings, registry)(folder)
            scores = score_data(ranker, past.later)
        except (*USER_ERRORS, OSError) as error:
            return cls(why_not=str(error))
        own = accuracy(scores, past.later)["ndcg@10"]
        difference = compared(ndcg, own, past.later_users, seed=seed)
        seen = ranker.manifest.training_window
        first = (past.later.window or (0.0, 0.0))[0]
        note = (
            "It was trained on requests of this slice, which favours it." if seen and seen[1] >= first else ""
        )
        comparison = Comparison(
            former=version,
            former_ndcg_at_10=_estimated(own, past.later_users, seed),
            difference=estimate(difference),
            note=note,
        )
        return cls(ranker, scores, comparison, difference)


def _estimated(values: NDArray[np.float64], users: NDArray[Any], seed: int) -> Estimate:
    return estimate(bootstrap(values, seed=seed, users=users))


def _segments(access: FeatureAccess, past: _PastData, ndcg: NDArray[np.float64], seed: int) -> Any:
    """Return how well the later requests of each segment of the users were answered."""
    later = past.later
    assert later.groups is not None  # noqa: S101 - `_past_data` gave them
    first_rows = np.cumsum(later.groups) - later.groups
    columns: Mapping[str, NDArray[np.float32]] = {
        name: later.features[first_rows, place]
        for place, name in enumerate(later.feature_names)
        if name in access.user_names
    }
    return by_segment(user_groups(access, columns, past.activity), ndcg, past.later_users, seed=seed)


def _carry_over(
    store: ArtefactStore, former: _Former, ranker: Ranker, scores: NDArray[np.float64], *, promote: bool
) -> str | None:
    """Publish the former ranker's calibration for the new one's scores; return its version, if there was one.

    Without it nothing would explore by a warm start until rewards of the new ranker have come. Both score the later
    rows. What they are labelled with is no reward: it says who was liked among sampled items, not how often. It waits
    where the new ranker does, and is made current with it.
    """
    current = store.current(CALIBRATION)
    if former.ranker is None or former.scores is None or current is None:
        return None
    try:
        calibration = Calibration.load(current[1])
    except (CorruptState, OSError):
        return None  # what is damaged is no map; the new ranker serves all the same
    if calibration.ranker != former.ranker.manifest.version:
        return None
    carried = calibration.carried_over(former.scores, scores, ranker=ranker.manifest.version)
    return store.publish(CALIBRATION, carried.save, promote=promote)


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


def _group_sizes(query: pd.Series[int]) -> NDArray[np.int64]:
    """Return how many consecutive rows each query has."""
    return np.asarray(query.groupby(query, sort=False).size(), np.int64)
