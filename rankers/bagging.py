"""One ranker trained many times, on requests drawn with replacement: how far the copies differ is the uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._fits import Fits
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.explanation import Explanation
from explorank.rankers.fused import FusedRanker, row_sums, weighted
from explorank.rankers.members import Member, MemberOptions, Plan, checked_members


@dataclass(frozen=True, slots=True, kw_only=True)
class BaggingOptions:
    """Which ranker is trained many times, and how often."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    member: MemberOptions = field(default_factory=lambda: {"use": "lightgbm"})
    """The ranker, with `use`, its options, and `features` where it takes some columns only."""
    bags: int = 10
    """How many copies are trained; scoring takes as many times as long. 2 or more."""

    def __post_init__(self) -> None:
        checked_members([self.member], at_least=1)
        if self.bags < 2:
            raise InvalidTraining(
                f"bags={self.bags}: one copy differs from nobody. Set 2 or more; 10 is usual."
            )


class Bagging(FusedRanker):
    """The mean of copies of one ranker, each trained on requests drawn with replacement (Breiman 1996).

    Their standard deviation is the uncertainty that comes with a score: how much it depends on which requests happened
    to be logged, not how much a single user's taste varies. It is on the scale of the scores, which for `lambdarank` is
    the model's own; the probabilities of `binary` can be compared. Attributions are the means of the copies', and sum
    to the score.
    """

    name: ClassVar[str] = "bagging"
    Options: ClassVar = BaggingOptions

    @classmethod
    def _number_of_fits(cls, options: BaggingOptions) -> int:
        return options.bags

    @classmethod
    def _train(
        cls, fits: Fits, options: BaggingOptions
    ) -> tuple[list[Member], dict[str, Any], dict[str, float]]:
        plan, requests = Plan.of(options.member), fits.data.requests
        members = []
        for bag in range(options.bags):
            drawn = (
                fits.randomness(3, bag).integers(requests, size=requests)
                if requests
                else np.zeros(0, np.int64)
            )
            members.append(fits.fit(plan, fits.data.take(np.sort(drawn))))
        return members, {}, {}

    def score_with_uncertainty(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation (one degree of freedom less) of the copies' scores, (n,) each."""
        scores = self._member_scores(features)
        mean = self._combine(scores)
        spread = row_sums(np.square(scores - mean[:, None]))
        return mean, np.sqrt(spread / (len(self.members) - 1))

    @property
    def cheaper_way(self) -> str:
        """A single copy, which knows nearly what all of them do, and not how sure it is."""
        return f"the first of {len(self.members)} copies"

    def score_cheaply(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the scores of the first copy, (n,) float64, for features (n, d)."""
        return self._score_member(0, self._manifest.check_matrix(features))

    def _combine(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = row_sums(scores) / len(self.members)
        return mean

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return the mean of the copies' attributions of each score."""
        return weighted(self._explained(features), np.full(len(self.members), 1.0 / len(self.members)))
