"""Conservative exploration: the explore arm as a whole keeps most of what the baseline would have earned.

After Wu, Shariff, Lattimore and Szepesvári, "Conservative Bandits" (ICML 2016), and Kazerouni, Ghavamzadeh,
Abbasi-Yadkori and Van Roy, "Conservative Contextual Linear Bandits" (NeurIPS 2017): explore only while the
total stays above its bound even if the next decision earned the worst there is.

**The bound.** Let the explore arm's decisions be i = 1, ..., n; m_i the mean of what decision i earns given what
was known when it was made; b the baseline's mean per decision; w the least a decision may earn. With probability
at least `confidence`, at all times simultaneously,

    m_1 + ... + m_n  >=  n (b - alpha |b|) - k (b - w),

so (1 - alpha) n b less the lag, where b is positive. k is the number of decisions that other processes explored
and the learner had not read yet: at most what they explore within one learning interval. A process counts its own
at once, so with one process k is 0.

**How.** Explored decisions that are settled count with a confidence bound below their total, open ones with w,
those held back with b, for they show the baseline. b lies in a confidence interval from the baseline and holdout
arms. Of the error 1 - confidence, a half goes to the explored total, a quarter to either side of b. All bounds
hold at all times at once, so asking before each request costs nothing. The realised total of the explored
decisions is above the bound on their means, so the same holds with what they really earned in place of m_i.

**What is assumed.** Decisions are worth as much under the baseline in one arm as in the others, at any time, and
whether a limit holds them back or not: the hash deals users to the arms blindly, but a mean that drifts while
exploration opens and closes, or a limit that holds back the most valuable users, bends the comparison. What a
decision still earns does not depend on what earlier ones still will earn.

**What it is not.** A budget that grows with traffic is not spent for ever: whoever is held back earns the
baseline, of which alpha is left for later. A policy as good as the baseline is slowed down by the width of the
bounds only, which shrinks; one that is worse by a share d > alpha explores about alpha / d of its traffic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.limits.earnings import Earnings
from explorank.hooks.types import FloatArray, RankingRequest

_STEPS_BEHIND: Final = 2
"""A process may see a step's earnings when the next step is reading already; the one after that has read all."""


def affordable(
    *,
    earned: ArrayLike,
    still_open: ArrayLike,
    explored: ArrayLike,
    held_back: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    minimum: float,
    alpha: float,
) -> FloatArray:
    """Return how many more decisions may be explored before the first of them is settled; arrays broadcast.

    `earned` is what the settled ones earned at least, so no less than `minimum` for each; `explored` counts settled
    and `still_open` ones. The baseline's mean lies between `low` and `high`. Whole numbers, `inf` where nothing
    could go wrong.
    """
    explored = np.asarray(explored, np.float64)
    total = explored + np.asarray(held_back, np.float64)
    have = np.asarray(earned, np.float64) + np.asarray(still_open, np.float64) * minimum
    limit: FloatArray = np.asarray(np.inf)
    for b in _worst_means(low, high):
        wanted = explored * b - alpha * np.abs(b) * total
        price = b - alpha * np.abs(b) - minimum
        spare = have - wanted
        with np.errstate(divide="ignore", invalid="ignore"):
            # Rounding must not turn an exact 3 into a 2, nor a 2.999 into a 3 that is not paid for.
            afforded = np.where(price > 0, np.floor(spare / price + 1e-9), np.inf)
        limit = np.minimum(limit, np.where(spare < 0, 0.0, afforded))
    enough: FloatArray = np.maximum(limit, 0.0)
    return enough


def _worst_means(low: ArrayLike, high: ArrayLike) -> tuple[FloatArray, ...]:
    """Return the means among which the worst is: what is missing is linear in the mean on either side of 0."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return low, high, np.clip(0.0, low, high)


@dataclass(frozen=True, slots=True)
class Headroom:
    """What may be explored until the log is read again, and from what it follows."""

    decisions: float
    """How many decisions; `inf` where nothing could go wrong."""
    earned: float
    """What all explored decisions earned at least, those that are open at their worst."""
    required: float
    """What they must have earned, at the worst baseline within its bounds."""
    low: float
    """The baseline's mean per decision is at least this,"""
    high: float
    """and at most this."""
    baseline: int
    """How many of the baseline's decisions that stands on."""


class ConservativeExploration:
    """A gate that lets a request explore while the bound above holds whatever comes of it."""

    name: Final = "conservative"

    def __init__(self, earnings: Earnings, *, alpha: float, confidence: float) -> None:
        """Begin with `earnings`; `update` brings newer ones. Raises `InvalidPolicy` for shares outside (0, 1)."""
        for name, value in (("alpha", alpha), ("confidence", confidence)):
            if not 0.0 < value < 1.0:
                raise InvalidPolicy(
                    f"`{name}` is {value!r}; it is a share and must lie between 0 and 1. Write 5 % as 0.05."
                )
        self.alpha = alpha
        self.confidence = confidence
        self.refused = 0
        """Requests of this process that were held back."""
        self.headroom = self.headroom_of(earnings)
        self._lock = Lock()
        self._step = -1
        self._passed = 0
        self._passed_before: deque[int] = deque(maxlen=_STEPS_BEHIND)

    @property
    def open(self) -> bool:
        """Whether one more decision may be explored."""
        return sum(self._passed_before) + self._passed < self.headroom.decisions

    def headroom_of(self, earnings: Earnings) -> Headroom:
        """Return what `earnings` leave to explore."""
        explored = earnings.accounts["explored"]
        held_back = earnings.accounts["held_back"].decisions
        baseline = earnings.baseline
        error = 1.0 - self.confidence
        low, high = baseline.lower(error / 4), baseline.upper(error / 4)
        earned = explored.settled.lower_total(error / 2)
        decisions = affordable(
            earned=earned,
            still_open=explored.open,
            explored=explored.decisions,
            held_back=held_back,
            low=low,
            high=high,
            minimum=baseline.minimum,
            alpha=self.alpha,
        )
        total = explored.decisions + held_back
        required = max(
            float(explored.decisions * b - self.alpha * total * abs(b)) for b in _worst_means(low, high)
        )
        earned += explored.open * baseline.minimum
        return Headroom(float(decisions), earned, required, low, high, baseline.count)

    def update(self, earnings: Earnings, step: int) -> None:
        """Take newer earnings, from the learner's step number `step`.

        What this process let pass is counted on top until it is surely among the decisions that were read.
        """
        headroom = self.headroom_of(earnings)
        with self._lock:
            if step != self._step:
                self._passed_before.append(self._passed)
                self._passed, self._step = 0, step
            self.headroom = headroom

    def refusal(self, request: RankingRequest) -> str | None:  # noqa: ARG002 - all requests share one budget
        """Return why no more may be explored at the moment, or `None`."""
        with self._lock:
            if self.open:
                self._passed += 1
                return None
            self.refused += 1
            headroom = self.headroom
        return (
            f"conservative: one more explored decision could take the explore arm below {1 - self.alpha:.4g} of "
            f"the baseline's earnings (earned at least {headroom.earned:.6g} by what was explored, needed "
            f"{headroom.required:.6g}; baseline {headroom.low:.4g} to {headroom.high:.4g} per "
            f"decision, from {headroom.baseline})"
        )
