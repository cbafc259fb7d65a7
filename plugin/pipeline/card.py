"""Writes down what a ranker was trained on and how well it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from explorank.errors import USER_ERRORS
from explorank.hooks.exploration import Calibration
from explorank.hooks.exploration.calibration import reliability
from explorank.model_card import (
    Comparison,
    DataSlice,
    ModelCard,
    ProbabilityCheck,
    ReliabilityBin,
    Sampling,
    Segment,
    Teaching,
    moment,
)
from explorank.pipeline.libraries import library_versions
from explorank.pipeline.metrics import bootstrap
from explorank.pipeline.results import estimate
from explorank.rankers import Ranker, RankingData
from explorank.settings import ByUseSettings

_SAMPLED = (
    "Candidates are the liked items and drawn others, so that metrics compare rankers and are no accuracy over the "
    "catalogue."
)
_DISPLAYED = (
    "Candidates are what was displayed, so that metrics compare rankers on what was thought worth showing and are no "
    "accuracy over the catalogue."
)
_UNIT = np.array([0.0, 1.0])
_LEARNT = (
    "The vectors of `similarity` were learnt from likes until {until}, and {who} ask before that. What they liked next "
    "may be what the vectors have learnt, so that the column tells more of these requests than of those to come. "
    "`explorank adapt --until` with `explorank train --since` keeps them apart."
)
_STOPPED = "Training stopped on the later slice, which favours the ranker a little in every number here."


def model_card(
    name: str,
    ranker: Ranker,
    *,
    options: Any,
    seed: int,
    data: RankingData,
    later: RankingData,
    users: tuple[NDArray[Any], NDArray[Any]],
    scores: NDArray[np.float64],
    metrics: dict[str, NDArray[np.float64]],
    encoder_fingerprint: str,
    learnt_until: float | None,
    by_use: ByUseSettings | None,
    sampling: Sampling,
    segments: tuple[Segment, ...],
    comparison: Comparison | None,
    teaching: Teaching | None = None,
    notes: tuple[str, ...] = (),
) -> ModelCard:
    """Return the card of `ranker`, trained as `name` on `data` and judged on `later`.

    `users` are whose the requests of both are, (g,) and (h,); `scores` (n,) those of the later rows; `metrics` the
    values of each later request, (h,). `learnt_until` is the last moment of the likes that the vectors of similarities
    were learnt from, in seconds since the Unix epoch; None where they were learnt from none.
    """
    manifest = ranker.manifest
    return ModelCard(
        ranker=name,
        version=manifest.version,
        objective=manifest.objective,
        created=manifest.created,
        model_sha256=manifest.model_sha256,
        feature_hash=manifest.feature_hash,
        features=manifest.feature_names,
        encoder_fingerprint=encoder_fingerprint,
        by_use=None if by_use is None else by_use.model_dump(mode="json"),
        sampling=sampling,
        teaching=teaching,
        options=options_as_json(options),
        seed=seed,
        training=_slice(data, users[0]),
        validation=_slice(later, users[1]),
        metrics={
            one: estimate(bootstrap(values, seed=seed, users=users[1])) for one, values in metrics.items()
        },
        comparison=comparison,
        probabilities=_probability_check(ranker, scores, later),
        segments=segments,
        libraries=library_versions(),
        notes=(
            _DISPLAYED if sampling.rows == "log" else _SAMPLED,
            _STOPPED,
            *_seen_by_vectors(learnt_until, data, later),
            *notes,
        ),
    )


def _seen_by_vectors(learnt_until: float | None, data: RankingData, later: RankingData) -> Iterator[str]:
    """Yield a note where the vectors of similarities have seen what users of these requests liked next."""
    firsts = [None if one.window is None else one.window[0] for one in (data, later)]
    seen = [first is not None and learnt_until is not None and first <= learnt_until for first in firsts]
    if learnt_until is not None and any(seen):
        who = "requests of both slices" if all(seen) else "requests that it was trained on"
        yield _LEARNT.format(until=moment(learnt_until), who=who)


def options_as_json(options: Any) -> dict[str, Any]:
    """Return a ranker's options, JSON-ready, by name."""
    if not dataclasses.is_dataclass(options) or isinstance(options, type):
        return {}
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    plain: dict[str, Any] = to_jsonable_python(values, fallback=repr, inf_nan_mode="strings")
    return plain


def _slice(data: RankingData, users: NDArray[Any]) -> DataSlice:
    first, last = data.window or (0.0, 0.0)
    return DataSlice(
        requests=data.requests,
        users=len(np.unique(users)),
        rows=len(data),
        positives=int((data.labels > 0).sum()),
        first=moment(first),
        last=moment(last),
    )


def _probability_check(
    ranker: Ranker, scores: NDArray[np.float64], later: RankingData
) -> ProbabilityCheck | None:
    """Return how true the scores are where the ranker says that they are probabilities."""
    if not _gives_probabilities(ranker, scores):
        return None
    found = reliability(Calibration(_UNIT, _UNIT), scores, (later.labels > 0).astype(np.float64))
    return ProbabilityCheck(
        error=found.error,
        squared_error=found.squared_error,
        bins=tuple(
            ReliabilityBin(
                lowest_score=one.lowest_score,
                highest_score=one.highest_score,
                rows=one.count,
                expected=one.expected,
                observed=one.observed,
            )
            for one in found.bins
        ),
    )


def _gives_probabilities(ranker: Ranker, scores: NDArray[np.float64]) -> bool:
    """Say whether the scores come out of a logistic function, as the ranker's own explanation has it."""
    explain = getattr(ranker, "explain", None)
    if explain is None or scores.min() < 0.0 or scores.max() > 1.0:
        return False
    try:
        one = np.zeros((1, len(ranker.manifest.feature_names)), np.float32)
        return bool(explain(one).link == "logistic")
    except (*USER_ERRORS, ImportError, NotImplementedError):
        return False
