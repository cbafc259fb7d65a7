"""A learner on top of several rankers' scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._fits import Fits
from explorank.rankers._logistic import logistic, logistic_regression
from explorank.rankers._training import check_labels
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.explanation import Explanation
from explorank.rankers.fused import FusedRanker, check_folds, row_sums, scales_of, weighted
from explorank.rankers.members import Member, MemberOptions, Plan, checked_members

Meta: TypeAlias = Literal["ridge", "logistic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """Which rankers a learner is put on, and which learner."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    members: tuple[MemberOptions, ...] = (
        {"use": "lightgbm"},
        {"use": "lightgbm", "objective": "regression"},
    )
    """Two rankers or more, each with `use`, its options, and `features` where it takes some columns only."""
    meta: Meta = "ridge"
    """What learns from their scores: `ridge` foresees the label, `logistic` the probability of a label of 1."""
    penalty: float = 1.0
    """How much squared slopes cost, on standardised scores and the summed loss; above 0."""
    folds: int = 5
    """Into how many parts users, or else requests, are cut; each part is scored by members trained on the others. 2 or
    more."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", checked_members(self.members, at_least=2))
        check_folds(self.folds)
        if self.meta not in get_args(Meta):
            raise InvalidTraining(
                f"meta={self.meta!r} is none of {', '.join(get_args(Meta))}. Name one of them."
            )
        if not 0 < self.penalty < np.inf:
            raise InvalidTraining(
                f"penalty={self.penalty} leaves the slopes of members that agree undetermined. Set a number above 0."
            )


class Stack(FusedRanker):
    """A meta-learner on its members' scores (Wolpert 1992, Stacked Generalization).

    It learns from out-of-fold scores: folds are whole users, where `user_ids` are known, else whole requests, and
    nobody scores one they were trained on. The members are trained on all data afterwards. With `logistic` a score is a
    probability. Attributions are exact: of the score with `ridge`, of its log-odds with `logistic`.
    """

    name: ClassVar[str] = "stack"
    Options: ClassVar = StackOptions

    @property
    def slopes(self) -> tuple[float, ...]:
        """(members,) what one unit of each member's score adds to the score or its log-odds."""
        return tuple(self._learnt["slopes"])

    @classmethod
    def _number_of_fits(cls, options: StackOptions) -> int:
        return len(options.members) * (1 + options.folds)

    @classmethod
    def _train(
        cls, fits: Fits, options: StackOptions
    ) -> tuple[list[Member], dict[str, Any], dict[str, float]]:
        if options.meta == "logistic":
            check_labels(fits.data, "binary")
        plans = [Plan.of(member) for member in options.members]
        scores = fits.out_of_fold(plans, options.folds)
        slopes, intercept = _meta(scores, fits.data, options)
        members = [fits.fit(plan) for plan in plans]
        learnt = {"meta": options.meta, "slopes": slopes.tolist(), "intercept": intercept}
        return members, learnt, {f"slope_{number}": float(one) for number, one in enumerate(slopes)}

    def _combine(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        raw: NDArray[np.float64] = row_sums(scores * self._arrays["slopes"]) + self._learnt["intercept"]
        return logistic(raw) if self._learnt["meta"] == "logistic" else raw

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return the weighted sum of the members' attributions of each score, or of its log-odds."""
        raw = weighted(self._explained(features), self._arrays["slopes"], self._learnt["intercept"])
        return replace(raw, link="logistic") if self._learnt["meta"] == "logistic" else raw


def _meta(
    scores: NDArray[np.float64], data: RankingData, options: StackOptions
) -> tuple[NDArray[np.float64], float]:
    """Return slopes (members,) and intercept on scores as they are."""
    mean, deviation = scales_of(scores)
    columns = (scores - mean) / deviation
    if options.meta == "logistic":
        slopes, intercept = logistic_regression(columns, data.labels, data.weights, penalty=options.penalty)
    else:
        weights = np.ones(len(data)) if data.weights is None else data.weights
        design = np.column_stack([columns, np.ones(len(data))])
        ridge = np.diag(np.append(np.full(columns.shape[1], options.penalty), 0.0))
        theta = np.linalg.solve(
            design.T @ (weights[:, None] * design) + ridge, design.T @ (weights * data.labels)
        )
        slopes, intercept = np.asarray(theta[:-1], np.float64), float(theta[-1])
    unscaled: NDArray[np.float64] = slopes / deviation
    return unscaled, intercept - float(unscaled @ mean)
