"""From past interactions to a ranker: queries, point-in-time features, training, evidence, publication."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION, CATALOGUE, RANKER, clock_of, collect_components
from explorank.builtin.retrieval import configured_retrievers
from explorank.errors import CorruptState, DataError, SettingsError
from explorank.exploration_features import ExplorationFeatures
from explorank.hooks.exploration import Calibration
from explorank.hooks.registry import Registry
from explorank.item_texts import item_texts
from explorank.model_card import Comparison, Segment, Teaching
from explorank.pipeline.card import model_card, options_as_json
from explorank.pipeline.checkpoints import checkpoint_folder, fingerprint, is_resumed
from explorank.pipeline.evidence import Verdict, accuracy, judge
from explorank.pipeline.features import feature_access
from explorank.pipeline.former import Former
from explorank.pipeline.logged_data import logged_data
from explorank.pipeline.metrics import Interval, bootstrap
from explorank.pipeline.models import Models
from explorank.pipeline.past_data import PastData, past_data
from explorank.pipeline.segments import by_popularity, by_segment, user_groups
from explorank.pipeline.teaching import Lessons, Teacher
from explorank.pipeline.tracking import Monitor, Run, require_installed, tracking
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import (
    AdaptableRanker,
    CorruptRanker,
    Ranker,
    RankingData,
    TrainableRanker,
    score_data,
)
from explorank.retrieval import Catalogue
from explorank.retrieval.features import FeatureAccess
from explorank.settings import RankerComponent, Settings, resolve_ranker


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
    start: str | None = None
    """The ranker that it began as, by the version that decisions name; `None` where it began from scratch."""
    teaching: Teaching | None = None
    """Who taught it beside what came of the rows; `None` where nobody did."""
    calibration: str | None = None
    """The map of the former ranker's scores to rewards, carried over to this one's by rank; `None` where there was
    none to carry over."""


def train_ranker(
    settings: Settings,
    interactions: pd.DataFrame | None,
    *,
    component: RankerComponent | None = None,
    options: TrainOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
    begins: Callable[[str], None] | None = None,
    plugins: Sequence[object] = (),
) -> tuple[TrainableRanker, TrainReport]:
    """Return a published ranker, trained on what was known at the time of past requests.

    `interactions` is what `past_interactions` returns; `None` where `options.rows` is `log`. `component` names the
    ranker and its options; by default the configured one. Validation is the latest slice by time; features come from
    the feature store's point-in-time joins. It becomes current by `options.promote`, judged on that slice beside the
    current one. A run that was cut off goes on when it is run again, as far as the ranker saves checkpoints. With
    `options.start` it begins as that ranker. Where `component` names a teacher, the training rows are scored by some
    that were trained without their users, and the ranker learns from those scores too. `begins` is told what begins
    where there are several things to train. `plugins` join the installed ones.

    Raises `DataError` where there is too little to learn from, `SettingsError` for options that do not fit, and
    `InvalidTraining` where the ranker refuses the data.
    """
    options = options or TrainOptions()
    trainee = _Trainee.of(settings, component or settings.ranker, plugins)
    start = None if options.start is None else trainee.loaded(settings, options.start)
    require_installed(options.trackers)
    store = ArtefactStore(settings.folder_path / "artefacts")
    current = store.current(CATALOGUE)
    if current is None:
        raise DataError(
            "No catalogue is built yet, and the ranker reads similarities from it. Run `explorank build`."
        )
    access = feature_access(settings)
    catalogue = Catalogue.load(current[1])
    past = _past(settings, interactions, catalogue, access, options, trainee)
    past = past.with_texts(item_texts(settings, past.items))
    run_name = f"{trainee.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    run = Run(
        project=settings.project,
        name=run_name,
        folder=(options.log_folder or settings.folder_path / "runs") / run_name,
        options={
            **options_as_json(trainee.options),
            "seed": options.seed,
            **({} if trainee.teacher is None else {"taught_by": trainee.teacher.plan.use}),
        },
    )
    started = None if start is None else start.manifest.version
    identity = fingerprint(
        trainee.name, (past.training, past.later), (trainee.options, started, trainee.teacher), options.seed
    )
    with (
        checkpoint_folder(settings.folder_path / "training", f"{trainee.name}-{identity}") as folder,
        tracking(options.trackers, run) as trackers,
    ):
        resumed = is_resumed(folder)
        lessons, checkpoint = Lessons(past.training), folder
        if trainee.teacher is not None:
            tell = begins or (lambda _: None)
            tell("training the teacher")
            lessons = trainee.teacher.taught(past, options.seed, progress, folder / "teacher")
            tell("training")
            checkpoint = folder / "student"
        monitor = Monitor(progress, trackers)
        ranker = trainee.fitted(lessons.data, past.later, options.seed, monitor, checkpoint, start)
        scores = score_data(ranker, past.later)
        metrics = accuracy(scores, past.later)
        monitor.end({name: float(np.nanmean(values)) for name, values in metrics.items()})
        former = Former.of(settings, trainee.registry, store, past, metrics["ndcg@10"], options.seed)
        verdict = judge(options.promote, former.difference, former.why_not)
        if verdict.promoted and options.promote != "always":
            verdict = _unless_none_would_start(settings, ranker, verdict)
        card = model_card(
            trainee.name,
            ranker,
            options=trainee.options,
            seed=options.seed,
            data=past.training,
            later=past.later,
            users=(past.training_users, past.later_users),
            scores=scores,
            metrics=metrics,
            encoder_fingerprint=catalogue.encoder_fingerprint,
            learnt_until=catalogue.made.learnt_until,
            by_use=settings.retrieval.by_use,
            sampling=past.sampling,
            segments=tuple(_segments(access, past, scores, metrics["ndcg@10"], options.seed)),
            comparison=former.comparison,
            teaching=lessons.teaching,
            notes=() if started is None else (f"It began as the ranker {started}, and was adapted.",),
        )

        def write(folder: Path) -> None:
            ranker.save(folder)
            card.write(folder)

        version = store.publish(RANKER, write, promote=verdict.promoted)
    carried = _carry_over(store, former, ranker, scores, promote=verdict.promoted)
    return ranker, TrainReport(
        calibration=carried,
        version=version,
        ranker=trainee.name,
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
        start=started,
        teaching=lessons.teaching,
    )


def _past(
    settings: Settings,
    interactions: pd.DataFrame | None,
    catalogue: Catalogue,
    access: FeatureAccess,
    options: TrainOptions,
    trainee: _Trainee,
) -> PastData:
    """Return the past requests, from where the options say."""
    pseudo_labels = 0 if trainee.teacher is None else trainee.teacher.pseudo_labels
    if options.rows == "log":
        if pseudo_labels:
            raise DataError(
                f"taught_by.pseudo_labels is {pseudo_labels}, and rows of the log are what was displayed, no others "
                "that a teacher could speak of. Set it to 0 (`-o taught_by.pseudo_labels=0`), or train from "
                "interactions."
            )
        now = clock_of(settings)() if options.until is None else options.until
        return logged_data(settings, catalogue, access, options, now=now)
    if interactions is None:
        raise DataError(
            "There are no interactions to learn from. Name their table, or train from what the log says was displayed: "
            "`explorank train --from-log`."
        )
    retrievers = configured_retrievers(settings, trainee.registry)
    return past_data(
        settings, interactions, catalogue, access, options, retrievers, pseudo_labels=pseudo_labels
    )


@dataclass(frozen=True, slots=True)
class _Trainee:
    """What is to be trained."""

    name: str
    ranker_class: Any
    options: Any
    registry: Registry
    teacher: Teacher | None

    @classmethod
    def of(cls, settings: Settings, component: RankerComponent | None, plugins: Sequence[object]) -> _Trainee:
        """Look the ranker up; raise `DataError` where there is none, or none that can be trained."""
        if component is None:
            raise DataError(
                f"{settings.source} says `ranker: null`, so there is nothing to train. Name one: `explorank train "
                "--ranker lightgbm`."
            )
        _, registry = collect_components(settings, plugins)
        ranker_class, options = resolve_ranker(component, registry)
        if not hasattr(ranker_class, "fit"):
            raise DataError(
                f"The ranker {component.use!r} cannot be trained here: its class has no `fit`. Publish it with "
                "`ArtefactStore.publish`, or name another one."
            )
        return cls(component.use, ranker_class, options, registry, Teacher.of(component, registry))

    def loaded(self, settings: Settings, given: str) -> AdaptableRanker:
        """Return the ranker to begin as, from a folder or by its version.

        Raises `DataError` where this kind of ranker cannot begin as another, `UnknownArtefact` for a version that
        there is not, and `CorruptRanker` for one that is damaged or of another kind.
        """
        if not hasattr(self.ranker_class, "adapt"):
            raise DataError(
                f"The ranker {self.name!r} always begins from scratch: its class has no `adapt`. Leave `--from` out, "
                "or train one that can go on from another, such as `dcn` or `sequence`."
            )
        folder = Path(given)
        if not folder.is_dir():
            store = ArtefactStore(settings.folder_path / "artefacts")
            folder = store.verify(RANKER, Models(settings).resolve(given))
        start: AdaptableRanker = self.ranker_class.load(folder)
        return start

    def fitted(
        self,
        data: RankingData,
        later: RankingData,
        seed: int,
        monitor: Monitor,
        checkpoint: Path,
        start: AdaptableRanker | None,
    ) -> TrainableRanker:
        """Train it, from where an earlier run was cut off if one was."""
        resumed = is_resumed(checkpoint)
        fit = self.ranker_class.fit if start is None else start.adapt
        try:
            ranker: TrainableRanker = fit(
                data,
                valid=later,
                options=self.options,
                seed=seed,
                progress=monitor,
                checkpoint=checkpoint,
            )
        except CorruptRanker as error:
            if not resumed:
                raise
            raise DataError(
                f"A run that was cut off cannot go on, because what it saved is damaged: {error} What serves is as it "
                f"was. Delete {checkpoint}, and the run starts anew."
            ) from error
        return ranker


def _unless_none_would_start(settings: Settings, ranker: Ranker, verdict: Verdict) -> Verdict:
    """Return the verdict, turned where exploration asks for a last layer that the ranker does not have."""
    try:
        ExplorationFeatures.of(settings, lambda: ranker)
    except SettingsError as error:
        return Verdict(promoted=False, reason=f"no server would start with it: {error}")
    return verdict


def _segments(
    access: FeatureAccess,
    past: PastData,
    scores: NDArray[np.float64],
    ndcg: NDArray[np.float64],
    seed: int,
) -> Iterator[Segment]:
    """Yield how well the later requests of each segment of the users, and those for each third of the items, went."""
    later = past.later
    assert later.groups is not None  # noqa: S101 - `past_data` gave them
    first_rows = np.cumsum(later.groups) - later.groups
    columns: Mapping[str, NDArray[np.float32]] = {
        name: later.features[first_rows, place]
        for place, name in enumerate(later.feature_names)
        if name in access.user_names
    }
    yield from by_segment(user_groups(access, columns, past.activity), ndcg, past.later_users, seed=seed)
    yield from by_popularity(later, scores, past.popularity, past.later_users, seed=seed)


def _carry_over(
    store: ArtefactStore, former: Former, ranker: Ranker, scores: NDArray[np.float64], *, promote: bool
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
