"""Two steps: a ranker that is quick scores all candidates, and one that is not orders the best of them anew."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._fits import Fits
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.explanation import Explanation
from explorank.rankers.fused import FusedRanker
from explorank.rankers.members import Member, MemberOptions, Plan, checked_members

_APART: Final = 4.0
"""How many times the spacing of floating-point numbers equal places are moved apart: more than rounding takes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """Which ranker scores all, which one orders the best anew, and how many those are."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    first: MemberOptions = field(default_factory=lambda: {"use": "lightgbm"})
    """The ranker that scores all candidates, with `use`, its options, and `features` where it takes some columns
    only."""
    then: MemberOptions = field(default_factory=lambda: {"use": "lightgbm", "objective": "binary"})
    """The ranker that orders the best of them, named alike: `{use: cross_encoder}`, say."""
    top: int = 20
    """How many of the best are ordered anew, at most; 2 or more."""

    def __post_init__(self) -> None:
        checked_members([self.first, self.then], at_least=2)
        if self.top < 2:
            raise InvalidTraining(
                f"top={self.top} leaves nothing to order: the second ranker would never be asked. Set 2 or more; 20 is "
                "usual."
            )


class Rerank(FusedRanker):
    """The first ranker's scores, the `top` best of which are dealt out again in the second ranker's order.

    A cascade (Wang, Lin and Metzler 2011). The best row by the second ranker gets the greatest of the first one's
    scores, and so on, so that scores stay on the first one's scale, and all rows of the top above all others. Listwise:
    a row's score depends on the rows beside it. Rows that the second ranker finds equal get the same score; rows
    that the first one finds equal are ordered together or, where not all are within the top, not at all, so that
    the order of rows does not matter. A row of the top is explained by the second ranker, its attributions rescaled to
    the score that its place has; any other by the first.

    In haste the first one's scores stand as they are.
    """

    name: ClassVar[str] = "rerank"
    Options: ClassVar = RerankOptions

    @property
    def listwise(self) -> bool:
        """True: a place in the top is one among the rows scored together."""
        return True

    @property
    def top(self) -> int:
        """How many rows are ordered anew, at most."""
        return int(self._learnt["top"])

    @property
    def cheaper_way(self) -> str:
        """The first ranker, whose scores need no others."""
        return f"{self.members[0].ranker.manifest.name} alone, without {self.members[1].ranker.manifest.name}"

    def score_cheaply(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the first ranker's scores, (n,) float64, for features (n, d)."""
        return self._score_member(0, self._manifest.check_matrix(features))

    @classmethod
    def _number_of_fits(cls, options: RerankOptions) -> int:  # noqa: ARG003 - others have some to count
        return 2

    @classmethod
    def _train(
        cls, fits: Fits, options: RerankOptions
    ) -> tuple[list[Member], dict[str, Any], dict[str, float]]:
        members = [fits.fit(Plan.of(member)) for member in (options.first, options.then)]
        return members, {"top": options.top}, {"top": float(options.top)}

    def _member_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the scores (n, 2) of both, the second one's NaN where it was not asked."""
        features = self._manifest.check_matrix(features)
        scores = np.full((len(features), 2), np.nan, order="F")
        scores[:, 0] = self._score_member(0, features)
        rows = self._best(scores[:, 0])
        if len(rows):
            scores[rows, 1] = self._score_member(1, features[rows])
        return scores

    def _best(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return which rows are ordered anew: `top` at most, none that is not surely among them."""
        if len(scores) <= self.top:
            return np.arange(len(scores))
        best_left_out = np.partition(scores, len(scores) - self.top - 1)[len(scores) - self.top - 1]
        return np.flatnonzero(scores > best_left_out)

    def _combine(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        asked = ~np.isnan(scores[:, 1])
        combined = scores[:, 0].copy()
        if asked.any():
            combined[asked] = _dealt(scores[asked, 0], scores[asked, 1], scores[asked, 1])
        return combined

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return what each feature adds to the score: by the second ranker in the top of these rows, else by the first.

        The base of a row of the top stands where a row of that score would.
        """
        features = self._manifest.check_matrix(features)
        scores = self._member_scores(features)
        first, then = (member.ranker for member in self.members)
        whole = self._spread(first.explain(features[:, self._places[0]]), self._places[0]).on_score_scale()
        rows = np.flatnonzero(~np.isnan(scores[:, 1]))
        if not len(rows):
            return whole
        of_top = self._spread(then.explain(features[rows][:, self._places[1]]), self._places[1])
        placed = of_top.on_score_scale().through(
            partial(_dealt, scores[rows, 0], scores[rows, 1]), self._combine(scores)[rows]
        )
        attributions, base = whole.attributions.copy(), whole.base.copy()
        attributions[rows], base[rows] = placed.attributions, placed.base
        methods = dict.fromkeys([whole.method, placed.method])
        return replace(whole, attributions=attributions, base=base, method=" and ".join(methods))


def _dealt(
    places: NDArray[np.float64], order: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return which of `places` (m,) values get that stand among `order` (m,): the greatest gets the greatest.

    Equal values get the same one, and lower ones than all get the lowest.
    """
    apart = _APART * np.spacing(np.abs(places).max())
    falling = (np.sort(places) + apart * np.arange(len(places)))[::-1]
    better = len(order) - np.searchsorted(np.sort(order), values, side="right")
    dealt: NDArray[np.float64] = falling[np.minimum(better, len(places) - 1)]
    return dealt
