"""Reciprocal rank fusion: rankers whose scores cannot be compared are joined by the ranks they give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._fits import Fits
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.explanation import Explanation
from explorank.rankers.fused import FusedRanker, weighted
from explorank.rankers.members import Member, MemberOptions, Plan, checked_members


@dataclass(frozen=True, slots=True, kw_only=True)
class ReciprocalRankOptions:
    """Which rankers are joined by rank."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    members: tuple[MemberOptions, ...] = (
        {"use": "lightgbm"},
        {"use": "lightgbm", "objective": "regression"},
    )
    """Two rankers or more, each with `use`, its options, and `features` where it takes some columns only."""
    k: float = 60.0
    """The larger, the less the first ranks stand out; 0 or more. 60 is the value of the paper."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", checked_members(self.members, at_least=2))
        if not 0 <= self.k < np.inf:
            raise InvalidTraining(
                f"k={self.k} would turn ranks around or hide them all. Set 0 or more; 60 is usual."
            )


class ReciprocalRank(FusedRanker):
    """The sum over members of 1 / (k + rank), ranks counted from 1 among the rows scored together.

    Listwise: a row's score depends on the rows beside it. Equal scores share the best of their ranks, so the order of
    rows does not matter. Cormack, Clarke and Büttcher (2009), Reciprocal Rank Fusion. A member's attributions are
    rescaled to 1 / (k + rank), its base standing where a row of that score would.
    """

    name: ClassVar[str] = "reciprocal_rank"
    Options: ClassVar = ReciprocalRankOptions

    @property
    def listwise(self) -> bool:
        """True: ranks are among the rows scored together."""
        return True

    @classmethod
    def _number_of_fits(cls, options: ReciprocalRankOptions) -> int:
        return len(options.members)

    @classmethod
    def _train(
        cls, fits: Fits, options: ReciprocalRankOptions
    ) -> tuple[list[Member], dict[str, Any], dict[str, float]]:
        return [fits.fit(Plan.of(member)) for member in options.members], {"k": options.k}, {}

    def _combine(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(len(scores))
        for column in scores.T:
            total += self._reciprocal(column, column)
        return total

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return what each feature adds to the sum of reciprocal ranks, among these rows."""
        scores = self._member_scores(features)
        ranked = [
            part.on_score_scale().through(partial(self._reciprocal, among), self._reciprocal(among, among))
            for part, among in zip(self._explained(features), scores.T, strict=True)
        ]
        return weighted(ranked, np.ones(len(ranked)))

    def _reciprocal(self, among: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 1 / (k + rank) of values where they would stand among other scores."""
        better = len(among) - np.searchsorted(np.sort(among), values, side="right")
        reciprocal: NDArray[np.float64] = 1.0 / (self._learnt["k"] + 1.0 + better)
        return reciprocal
