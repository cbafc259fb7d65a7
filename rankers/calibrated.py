"""Any ranker's scores, turned into probabilities that come true."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._fits import Fits
from explorank.rankers._logistic import logistic, logistic_regression
from explorank.rankers._training import check_labels
from explorank.rankers.applying import features_for, score_data
from explorank.rankers.calibration import expected_calibration_error
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.explanation import Explanation, Link
from explorank.rankers.fused import FusedRanker, check_folds
from explorank.rankers.members import Member, MemberOptions, Plan, checked_members
from explorank.rankers.ranker import TrainableRanker

Method: TypeAlias = Literal["isotonic", "platt"]

_CERTAIN: Final = 1e-12
"""Probabilities nearer to 0 or 1 count as this near, so that log-odds are finite."""
_LEAST: Final = 100
"""Rows below which a map of scores to probabilities is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedOptions:
    """Which ranker's scores become probabilities, and how."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    member: MemberOptions = field(default_factory=lambda: {"use": "lightgbm", "objective": "binary"})
    """The ranker, with `use`, its options, and `features` where it takes some columns only."""
    method: Method = "isotonic"
    """`isotonic` follows any rising curve and needs some thousand rows; `platt` fits a logistic curve, which some
    hundred rows suffice for."""
    folds: int = 5
    """Into how many parts users, or else requests, are cut; each part is scored by a ranker trained on the others. 2 or
    more."""

    def __post_init__(self) -> None:
        checked_members([self.member], at_least=1)
        check_folds(self.folds)
        if self.method not in get_args(Method):
            raise InvalidTraining(
                f"method={self.method!r} is none of {', '.join(get_args(Method))}. Name one of them."
            )


class Calibrated(FusedRanker):
    """A ranker whose scores are mapped to the probability of a label of 1, in the same order.

    The map is learnt from out-of-fold scores, since those on its own training rows are too good; the ranker itself is
    trained on all rows. `isotonic`: the rising step function nearest to the labels (Zadrozny and Elkan 2002), straight
    between the means of its steps. `platt`: a logistic function of the raw score (Platt 1999), the log-odds where the
    score is a probability already.

    Attributions sum to the probability with `isotonic`, by the rescale rule, and to its log-odds with `platt`, exactly.
    """

    name: ClassVar[str] = "calibrated"
    Options: ClassVar = CalibratedOptions

    @classmethod
    def of(
        cls,
        ranker: TrainableRanker,
        data: RankingData,
        *,
        method: Method = "isotonic",
        use: str | None = None,
    ) -> Self:
        """Return a trained ranker, calibrated on `data` that it was not trained on; `use` is its registered name.

        Raises `InvalidTraining` for labels other than 0 and 1, and for too few rows.
        """
        check_labels(data, "binary")
        member = Member(use or ranker.manifest.name, ranker)
        learnt, metrics = _map_of(member, score_data(ranker, data), data, method)
        return cls._assembled([member], learnt, data, metrics)

    @classmethod
    def _number_of_fits(cls, options: CalibratedOptions) -> int:
        return 1 + options.folds

    @classmethod
    def _train(
        cls, fits: Fits, options: CalibratedOptions
    ) -> tuple[list[Member], dict[str, Any], dict[str, float]]:
        check_labels(fits.data, "binary")
        plan = Plan.of(options.member)
        scores = fits.out_of_fold([plan], options.folds)[:, 0]
        member = fits.fit(plan)
        learnt, metrics = _map_of(member, scores, fits.data, options.method)
        return [member], learnt, metrics

    def _combine(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return _applied(self._learnt | self._arrays, scores[:, 0])

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return the attributions of each probability, or with `platt` of its log-odds."""
        (part,) = self._explained(features)
        if self._learnt["method"] == "isotonic":
            return part.on_score_scale().through(lambda scores: _applied(self._learnt | self._arrays, scores))
        slope, intercept = self._learnt["slope"], self._learnt["intercept"]
        raw = part if part.link == "logistic" else part.on_score_scale()
        return replace(
            raw, attributions=slope * raw.attributions, base=slope * raw.base + intercept, link="logistic"
        )


def _map_of(
    member: Member, scores: NDArray[np.float64], data: RankingData, method: Method
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the map of scores (n,) to probabilities, as JSON can hold it, and its metrics."""
    if len(scores) < _LEAST:
        raise InvalidTraining(
            f"{len(scores)} {data.called} rows are too few to tell probabilities from chance; {_LEAST} are the least. "
            "Bring more."
        )
    link = member.ranker.explain(features_for(member.ranker, data.take([0]))).link
    learnt = _fitted(scores, data.labels, data.weights, method, link)
    if learnt["rise"] <= 0:
        raise InvalidTraining(
            f"The scores of {member.use!r} do not rise with the labels on requests that it has not seen, so every row "
            "would get the same probability. Bring more data or better features."
        )
    metrics = {"calibration_error": _cross_fitted_error(scores, data, method, link)}
    if link == "logistic":
        metrics["member_calibration_error"] = expected_calibration_error(scores, data.labels)
    return {name: value for name, value in learnt.items() if name != "rise"}, metrics


def _cross_fitted_error(scores: NDArray[np.float64], data: RankingData, method: Method, link: Link) -> float:
    """Return the calibration error of maps learnt on the other half of the requests: the one to expect."""
    half = data.request_of % 2 == 0
    probabilities = np.empty(len(scores))
    for part in (half, ~half):
        weights = None if data.weights is None else data.weights[~part]
        learnt = _fitted(scores[~part], data.labels[~part], weights, method, link)
        probabilities[part] = _applied(learnt, scores[part])
    return expected_calibration_error(probabilities, data.labels)


def _fitted(
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    method: Method,
    link: Link,
) -> dict[str, Any]:
    """Return a map, and by how much it rises."""
    if method == "platt":
        raw = _raw(scores, link)
        mean, deviation = raw.mean(), raw.std() or 1.0
        slopes, intercept = logistic_regression(
            ((raw - mean) / deviation)[:, None], labels, weights, penalty=1e-3
        )
        slope = float(slopes[0] / deviation)
        return {
            "method": method,
            "link": link,
            "slope": slope,
            "intercept": intercept - slope * float(mean),
            "rise": slope,
        }
    from scipy.optimize import isotonic_regression  # noqa: PLC0415 - a sixth of a second, for training only

    weigh = np.ones(len(scores)) if weights is None else weights
    known, place = np.unique(scores, return_inverse=True)
    mass = np.bincount(place, weigh)
    fit = isotonic_regression(np.bincount(place, weigh * labels) / mass, weights=mass)
    centres = np.add.reduceat(known * mass, fit.blocks[:-1]) / np.add.reduceat(mass, fit.blocks[:-1])
    steps = fit.x[fit.blocks[:-1]]
    return {
        "method": method,
        "scores": centres.tolist(),
        "probabilities": steps.tolist(),
        "rise": float(steps[-1] - steps[0]),
    }


def _applied(learnt: dict[str, Any], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if learnt["method"] == "platt":
        return logistic(learnt["slope"] * _raw(scores, learnt["link"]) + learnt["intercept"])
    probabilities: NDArray[np.float64] = np.interp(scores, learnt["scores"], learnt["probabilities"])
    return probabilities


def _raw(scores: NDArray[np.float64], link: Link) -> NDArray[np.float64]:
    """Return log-odds of what are probabilities, other scores as they are."""
    if link != "logistic":
        return scores
    chances = np.clip(scores, _CERTAIN, 1.0 - _CERTAIN)
    raw: NDArray[np.float64] = np.log(chances / (1.0 - chances))
    return raw
