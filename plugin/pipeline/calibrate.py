"""From the decision log to a map of scores to rewards: read, fit, judge on the latest, publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from explorank.artefacts import ArtefactStore
from explorank.assembly import (
    CALIBRATION,
    RANKER,
    clock_of,
    collect_components,
    load_ranker,
)
from explorank.errors import DataError
from explorank.hooks.exploration import Calibration, PositionBased
from explorank.hooks.exploration.calibration import (
    METHODS,
    Method,
    Reliability,
    effective_number,
    reliability,
)
from explorank.hooks.feedback import RewardRules
from explorank.hooks.feedback.outcomes import Outcome
from explorank.hooks.types import DecisionRecord, FloatArray
from explorank.pipeline.logged_outcomes import reward_rules, settled_outcomes
from explorank.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """How a map is fitted."""

    method: Method | None = None
    """`None` takes the one that misses the later rewards by least."""
    minimum: float = 500.0
    """How many rewards of equal weight there must be; explored ones of a small propensity say less than one."""
    most_weight: float = 20.0
    """What an explored slot counts at most. The floor's rare picks would else outweigh all others together; beyond
    this they stand for less than they should, and the map leans towards what policies liked to show."""
    later_share: float = 0.2
    """The latest share of the rewards, on which the map is judged before it is fitted to all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateReport:
    """What was fitted to what."""

    version: str
    """Of the published artefact; decisions name the map itself, `map_version`."""
    map_version: str
    ranker: str
    method: Method
    decisions: int
    rewards: int
    effective: float
    """How many rewards of equal weight say as much."""
    mean_reward: float
    later: Reliability
    """Of the map that was fitted to the earlier rewards, on the later ones."""


@dataclass(frozen=True, slots=True)
class _Observed:
    """What was earned at which score, in the order of time, (m,) each."""

    scores: FloatArray
    rewards: FloatArray
    weights: FloatArray
    decisions: int


def calibrate(
    settings: Settings,
    *,
    options: CalibrateOptions | None = None,
    now: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Calibration, CalibrateReport]:
    """Return a published map from the current ranker's score to the reward, in the unit that policies learn.

    It is fitted to all shown slots of the log whose horizon has passed and whose scores are this ranker's, in any
    mode. A slot that explored counts 1 / propensity (`most_weight` at most), for all that could have stood there;
    others count once.
    Where an examination model is configured, the map says what a slot earns that is looked at.

    Raises `DataError` where there is too little.
    """
    options = options or CalibrateOptions()
    ranker = _current_ranker(settings)
    at = clock_of(settings)() if now is None else now
    observed = _observations(settings, ranker, at, options.most_weight, progress)
    effective = effective_number(observed.weights)
    if effective < options.minimum:
        raise DataError(
            f"The log holds {len(observed.rewards):,} rewards of {observed.decisions:,} decisions by ranker "
            f"{ranker or 'of the host'!r}, which say as much as {effective:,.0f} of equal weight; a map from fewer "
            f"than {options.minimum:,.0f} would mistake chance for knowledge. Serve on in `shadow` or `live` mode "
            "until more have come and `feedback.horizon_s` has passed."
        )
    split = round(len(observed.rewards) * (1.0 - options.later_share))
    later = {
        method: _judged(observed, split, method)
        for method in ([options.method] if options.method else _possible(observed))
    }
    method = min(later, key=lambda one: later[one].squared_error)
    calibration = Calibration.fit(
        observed.scores, observed.rewards, observed.weights, method=method, ranker=ranker
    )
    version = ArtefactStore(settings.folder_path / "artefacts").publish(CALIBRATION, calibration.save)
    return calibration, CalibrateReport(
        version=version,
        map_version=calibration.version,
        ranker=ranker,
        method=method,
        decisions=observed.decisions,
        rewards=len(observed.rewards),
        effective=effective,
        mean_reward=float(np.average(observed.rewards, weights=observed.weights)),
        later=later[method],
    )


def _current_ranker(settings: Settings) -> str:
    if settings.ranker is None:
        return ""
    current = ArtefactStore(settings.folder_path / "artefacts").current(RANKER)
    if current is None:
        raise DataError("No ranker is trained yet, so there is no score to map. Run `explorank train`.")
    _, registry = collect_components(settings)
    return load_ranker(settings, registry)(current[1]).manifest.version


def _possible(observed: _Observed) -> list[Method]:
    probabilities = bool(((observed.rewards >= 0.0) & (observed.rewards <= 1.0)).all())
    return [method for method in METHODS if method != "logistic" or probabilities]


def _judged(observed: _Observed, split: int, method: Method) -> Reliability:
    """Return how a map that was fitted to the earlier rewards fares on the later ones."""
    earlier, later = (
        (observed.scores[rows], observed.rewards[rows], observed.weights[rows])
        for rows in (slice(split), slice(split, None))
    )
    return reliability(Calibration.fit(*earlier, method=method), *later)


def _observations(
    settings: Settings,
    ranker: str,
    now: float,
    most_weight: float,
    progress: Callable[[int, int], None] | None,
) -> _Observed:
    rules = reward_rules(settings)
    rows: list[tuple[float, float, float, float]] = []
    decisions = 0
    for record, outcomes, _ in settled_outcomes(
        settings,
        now,
        wanted=lambda record: record.versions.get("ranker") == ranker and record.propensity_known,
        progress=progress,
    ):
        decisions += 1
        rows.extend(_of_decision(record, outcomes, rules, most_weight))
    rows.sort()
    columns = np.array(rows).reshape(-1, 4)
    return _Observed(columns[:, 1], columns[:, 2], columns[:, 3], decisions)


def _of_decision(
    record: DecisionRecord, outcomes: Sequence[Outcome], rules: RewardRules, most_weight: float
) -> Iterator[tuple[float, float, float, float]]:
    """Yield time, score, reward and weight of each slot that was shown and looked at."""
    slate = record.slate
    for outcome in outcomes:
        value, weight = outcome.value, 1.0
        if slate.method[outcome.slot] == "explore":
            weight = min(1.0 / outcome.propensity, most_weight)
        if isinstance(rules.examination, PositionBased):
            theta = float(rules.examination.examination([outcome.slot])[0])
            value = rules.default_reward + (value - rules.default_reward) / theta
            weight *= theta
        yield outcome.time, float(record.scores[slate.order[outcome.slot]]), value, weight
