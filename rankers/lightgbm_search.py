"""A search for LightGBM's options under a budget of time: tree-structured Parzen estimators, by optuna."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining, MissingDependency
from explorank.rankers.lightgbm_ranker import LightGBMOptions, LightGBMRanker
from explorank.rankers.ranker import Progress

if TYPE_CHECKING:
    from types import ModuleType

    import optuna

_RANGES: Final[Mapping[str, tuple[float, float, bool]]] = {
    "learning_rate": (0.01, 0.3, True),
    "num_leaves": (4, 255, True),
    "min_data_in_leaf": (1, 200, True),
    "feature_fraction": (0.3, 1.0, False),
    "lambda_l2": (0.0, 50.0, False),
}
"""From, to, and whether steps are ratios."""
_BY_METRIC: Final[Mapping[str, tuple[str, bool]]] = {
    "lambdarank": ("ndcg@10", True),
    "binary": ("binary_logloss", False),
    "regression": ("l2", False),
    "poisson": ("poisson", False),
    "tweedie": ("tweedie", False),
}
"""The metric of each objective on the later slice, and whether more of it is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One ranker of a search."""

    params: Mapping[str, Any]
    """LightGBM's own parameters it was trained with, beside those of the options that were passed."""
    value: float
    """The metric on the later slice; NaN where these parameters grew no tree."""
    seconds: float
    """How long it took to train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search found; the first trial is the options as they were passed, so `options` are never worse."""

    options: LightGBMOptions
    """The best options, to fit with."""
    metric: str
    """What was compared: `ndcg@10`, where more is better, or a loss, where less is."""
    value: float
    """The best metric on the later slice. It was chosen, so on other data expect a little less."""
    trials: tuple[Trial, ...]
    """In the order of their training."""


def search_lightgbm(
    data: RankingData,
    valid: RankingData,
    *,
    options: LightGBMOptions | None = None,
    seconds: float = 60.0,
    trials: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Search:
    """Return the best options for `data` by the metric on `valid`, a later slice, on which each trial stops early.

    `options` are the first trial; learning rate, leaves, rows per leaf, share of features and shrinkage are searched,
    the rest is left as it is. No trial begins after `seconds`; the first one is always finished. `trials` trials
    within the time are the same for a seed. `progress` hears of trials. Raises `MissingDependency` without optuna, and
    `InvalidTraining` as `LightGBMRanker.fit` does for the first trial.
    """
    optuna = _optuna()
    options = options or LightGBMOptions()
    name, more_is_better = _BY_METRIC[options.objective]
    study = optuna.create_study(
        direction="maximize" if more_is_better else "minimize", sampler=optuna.samplers.TPESampler(seed=seed)
    )
    study.enqueue_trial(
        {key: type(low)(np.clip(_of(options, key), low, high)) for key, (low, high, _) in _RANGES.items()}
    )
    began = time.monotonic()
    found: list[Trial] = []
    for number in range(max(trials, 1)):
        if found and time.monotonic() - began >= seconds:
            break
        asked = study.ask()
        trial = _train(data, valid, options, _suggested(asked), name, seed, first=number == 0)
        if math.isnan(trial.value):
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, trial.value)
        found.append(trial)
        if progress is not None:
            progress(number + 1, max(trials, 1))
    known = [trial for trial in found if not math.isnan(trial.value)]
    best = (max if more_is_better else min)(known, key=lambda trial: trial.value)
    chosen = options if best is found[0] else replace(options, params={**options.params, **best.params})
    return Search(options=chosen, metric=name, value=best.value, trials=tuple(found))


def _of(options: LightGBMOptions, name: str) -> float:
    """Return what the options say of a parameter; rows per leaf that follow from the data count as 100."""
    value: float | None = options.params.get(name, getattr(options, name))
    return 100 if value is None else value


def _suggested(trial: optuna.Trial) -> dict[str, Any]:
    return {
        name: trial.suggest_int(name, low, int(high), log=by_ratio)
        if isinstance(low, int)
        else trial.suggest_float(name, low, high, log=by_ratio)
        for name, (low, high, by_ratio) in _RANGES.items()
    }


def _train(
    data: RankingData,
    valid: RankingData,
    options: LightGBMOptions,
    params: Mapping[str, Any],
    metric: str,
    seed: int,
    *,
    first: bool,
) -> Trial:
    began = time.monotonic()
    tried = options if first else replace(options, params={**options.params, **params})
    try:
        value = LightGBMRanker.fit(data, valid=valid, options=tried, seed=seed).manifest.metrics[metric]
    except InvalidTraining:
        if first:
            raise
        value = float("nan")  # so many rows per leaf that nothing can be split
    return Trial(params={} if first else dict(params), value=float(value), seconds=time.monotonic() - began)


def _optuna() -> ModuleType:
    try:
        import optuna  # noqa: PLC0415 - a second to import, and an extra
    except ImportError as error:
        raise MissingDependency(
            "optuna is not installed, which searches for options; training with given ones works without it. "
            "Install it with `pip install 'explorank[tune]'`."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
