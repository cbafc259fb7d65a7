"""A weighted sum of several rankers' scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._fits import Fits
from explorank.rankers.applying import score_data
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.explanation import Explanation
from explorank.rankers.fused import FusedRanker, check_folds, row_sums, scales_of, weighted
from explorank.rankers.members import Member, MemberOptions, Plan, checked_members


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendOptions:
    """Which rankers are summed, and with what weights."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    members: tuple[MemberOptions, ...] = (
        {"use": "lightgbm"},
        {"use": "lightgbm", "objective": "regression"},
    )
    """Two rankers or more, each with `use`, its options, and `features` where it takes some columns only."""
    weights: tuple[float, ...] = ()
    """One for each member, 0 or more; they are made to sum to 1. Empty: learnt by regression on out-of-fold scores."""
    folds: int = 5
    """Into how many parts users, or else requests, are cut to learn the weights; 2 or more."""

    def __post_init__(self) -> None:
        members, weights = checked_members(self.members, at_least=2), tuple(self.weights)
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "weights", weights)
        check_folds(self.folds)
        wrong = not np.isfinite(weights).all() or any(weight < 0 for weight in weights)
        if weights and (len(weights) != len(members) or wrong or not sum(weights)):
            raise InvalidTraining(
                f"`weights` are {list(weights)} for {len(members)} members; each needs one, 0 or more, and not all can "
                "be 0. Leave them out to have them learnt."
            )


class Blend(FusedRanker):
    """The weighted sum of its members' scores, each less its training mean and in its training deviations.

    Weights that are learnt are those of the non-negative regression of the labels on out-of-fold scores, within
    requests where there are any, made to sum to 1 (Breiman 1996, Stacked Regressions). Attributions are the weighted
    sums of the members' and sum to the score; where a member's score has a link, by the rescale rule.
    """

    name: ClassVar[str] = "blend"
    Options: ClassVar = BlendOptions

    @property
    def weights(self) -> tuple[float, ...]:
        """(members,) of the standardised scores; they sum to 1."""
        return tuple(self._learnt["weights"])

    @classmethod
    def _number_of_fits(cls, options: BlendOptions) -> int:
        return len(options.members) * (1 if options.weights else 1 + options.folds)

    @classmethod
    def _train(
        cls, fits: Fits, options: BlendOptions
    ) -> tuple[list[Member], dict[str, Any], dict[str, float]]:
        plans = [Plan.of(member) for member in options.members]
        weights = np.array(options.weights)
        if not options.weights:
            weights = _learnt_weights(fits.out_of_fold(plans, options.folds), fits.data)
        weights = weights / weights.sum()
        members = [fits.fit(plan) for plan in plans]
        scores = np.column_stack([score_data(member.ranker, fits.data) for member in members])
        mean, deviation = scales_of(scores)
        learnt = {"weights": weights.tolist(), "mean": mean.tolist(), "deviation": deviation.tolist()}
        return members, learnt, {f"weight_{number}": float(one) for number, one in enumerate(weights)}

    def _combine(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        slopes, offset = self._line()
        combined: NDArray[np.float64] = row_sums(scores * slopes) + offset
        return combined

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return the weighted sum of the members' attributions of each score."""
        slopes, offset = self._line()
        return weighted(self._explained(features), slopes, offset)

    def _line(self) -> tuple[NDArray[np.float64], float]:
        slopes = self._arrays["weights"] / self._arrays["deviation"]
        return slopes, -float(slopes @ self._arrays["mean"])


def _learnt_weights(scores: NDArray[np.float64], data: RankingData) -> NDArray[np.float64]:
    """Return the non-negative weights (members,) with which standardised scores foresee labels best."""
    from scipy.optimize import nnls  # noqa: PLC0415 - a sixth of a second, for training only

    mean, deviation = scales_of(scores)
    columns = np.column_stack([(scores - mean) / deviation, data.labels])
    if data.groups is not None:
        starts = np.cumsum(data.groups) - data.groups
        means = np.add.reduceat(columns, starts, axis=0) / data.groups[:, None]
        columns -= means[data.request_of]
    else:
        columns -= columns.mean(axis=0)
    if data.weights is not None:
        columns *= np.sqrt(data.weights)[:, None]
    weights: NDArray[np.float64] = nnls(columns[:, :-1], columns[:, -1])[0]
    if not weights.any():
        raise InvalidTraining(
            "On requests that they have not seen, no member's scores rise with the labels, so no weights are better "
            "than none. Bring more data or better features, or set `weights`."
        )
    return weights
