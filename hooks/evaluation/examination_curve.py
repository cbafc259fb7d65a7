"""How likely each slot is looked at, from decisions whose propensities are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.types import DecisionRecord, FloatArray, IndexArray

_COLUMNS: Final = 4
"""Of a pair: weight of the upper slot, the same where it was taken up, and both for the lower one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminationCurve:
    """The probability that each slot is looked at, relative to the likeliest, from the top slot on."""

    probabilities: FloatArray  # (k,)
    low: FloatArray  # (k,)
    """The 2.5 % quantile of resampled visitors, relative to the top slot's 1 where that is the likeliest."""
    high: FloatArray  # (k,)
    """The 97.5 % quantile."""
    decisions: IndexArray  # (k - 1,)
    """How many decisions tell of each slot and the next."""
    effective: FloatArray  # (k - 1,)
    """How many of equal weight say as much: (Σ w)² / Σ w² of the lower slot (Kish)."""
    left_out: int
    """Pairs of slots of which the lower one could not have held what the upper one could, by a guard or a cap."""


class AdjacentSlots:
    """Learns from each two slots, one below the other, that both explored.

    Clicks follow the position-based model (Richardson et al. 2007): P(click on i at slot s) = θ_s · r(i). An item low
    in a slate is a worse one, as a rule, so that the clicks by slot tell of items and slots alike. Weighing takes the
    items out. Given the slate above slot s, let C be the m items that could have been drawn there, p_s and p_{s+1} the
    logged propensities of what was drawn. Under weights

        w = 1 / (m · p_s)   and   v = w · 1[item at s + 1 is in C] / ((m - 1) · p_{s+1})

    the item at either slot is an even draw from C, so that E[w · click_s] = θ_s · mean of r over C and
    E[v · click_{s+1}] = θ_{s+1} · the same mean, whatever the policy liked. The ratio of their sums over all decisions,
    each divided by its sum of weights, estimates θ_{s+1} / θ_s, and products of ratios the curve.

    This is the swap intervention of Joachims, Swaminathan and Schnabel (2017), harvested from a policy that was run
    anyway, as in the adjacent chain of Agarwal et al. (2019), section 4; it departs from them in that propensities are
    known and not counted. It needs θ to be the same for all requests, and no slot's clicks to depend on the items
    around it: in a cascade that is not so. The less evenly the policy draws, the more decisions it takes: `effective`
    says how many are left.
    """

    def __init__(self) -> None:
        self._rows: dict[int, list[tuple[int, float, float, float, float]]] = {}
        self._visitors: dict[str, int] = {}
        self._left_out = 0

    def add(self, record: DecisionRecord, earned: Mapping[int, float]) -> None:
        """Learn from a decision; `earned` says what each displayed slot earned, 0 or more: 1 for a click, say.

        Decisions whose propensities are unknown, and slots that did not explore, teach nothing.
        """
        if not record.propensity_known:
            return
        slate, request = record.slate, record.request
        visitor = self._visitors.setdefault(request.user_id or record.decision_id, len(self._visitors))
        for upper in range(len(slate) - 1):
            lower = upper + 1
            if not {upper, lower} <= earned.keys() or {slate.method[upper], slate.method[lower]} != {
                "explore"
            }:
                continue
            rest = slate.support[upper].copy()
            choices = int(rest.sum())
            rest[slate.order[upper]] = False
            if choices < 2:
                continue
            if (rest & ~slate.support[lower]).any():
                self._left_out += 1
                continue
            above = 1.0 / (choices * float(slate.propensities[upper]))
            below = above / ((choices - 1) * float(slate.propensities[lower]))
            below *= bool(rest[slate.order[lower]])
            row = (visitor, above, above * earned[upper], below, below * earned[lower])
            self._rows.setdefault(upper, []).append(row)

    def curve(self, *, resamples: int = 200, seed: int = 0) -> ExaminationCurve:
        """Return the curve as far down as there are clicks, with intervals over visitors.

        Raises `InvalidBatch` where not even the first two slots can be compared.
        """
        sums: list[NDArray[np.float64]] = []
        decisions, effective = [], []
        while rows := self._rows.get(len(sums)):
            table = np.array(rows)
            if (table[:, 1:].sum(axis=0) <= 0).any():
                break
            visitors = table[:, 0].astype(np.int64)
            sums.append(
                np.stack(
                    [
                        np.bincount(visitors, table[:, 1 + column], len(self._visitors))
                        for column in range(_COLUMNS)
                    ],
                    axis=1,
                )
            )
            decisions.append(len(table))
            effective.append(float(table[:, 3].sum() ** 2 / (table[:, 3] @ table[:, 3])))
        if not sums:
            found = len(self._rows.get(0, ()))
            raise InvalidBatch(
                f"Nothing tells how much less the second slot is looked at than the first: {found:,} decisions "
                f"explored both ({self._left_out:,} pairs of slots were left out), and one of the two was never "
                "clicked. Let `exploration.slots` hold 0 and 1, and collect more."
            )
        by_visitor = np.stack(sums)  # (pairs, visitors, columns)
        generator = np.random.default_rng(seed)
        drawn = []
        for _ in range(resamples):
            times = np.asarray(generator.poisson(1.0, size=by_visitor.shape[1]), np.float64)
            drawn.append(_curve(np.tensordot(times, by_visitor, axes=(0, 1))))
        low, high = np.nanquantile(np.array(drawn), [0.025, 0.975], axis=0)
        return ExaminationCurve(
            probabilities=_curve(by_visitor.sum(axis=1)),
            low=low,
            high=np.minimum(high, 1.0),
            decisions=np.array(decisions, np.int64),
            effective=np.array(effective),
            left_out=self._left_out,
        )


def _curve(sums: NDArray[np.float64]) -> FloatArray:
    """Return the curve (k,) from the sums of each pair (k - 1, columns); NaN from where a resample has no click."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (sums[:, 3] / sums[:, 2]) / (sums[:, 1] / sums[:, 0])
        curve = np.concatenate([[1.0], np.cumprod(ratios)])
        curve[~np.isfinite(curve)] = np.nan
        relative: FloatArray = curve / np.nanmax(curve)
    return relative
