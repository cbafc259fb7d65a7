"""The automatic stop: exploration ends when the explore arm surely earns less than the baseline.

**The rule.** Let e be the explore arm's mean per decision, whatever was shown in it, and b the mean of the
baseline and holdout arms together. Exploration stops when both of these are so:

1. upper bound of e  <  lower bound of b  -  drop |lower bound of b|, which is (1 - drop) times the bound where it is
   positive. Each bound is one of `confidence`, that holds at all times at once, with half of the error.
2. The visitors' buckets agree, by the test of `visitors` for the same fall.

**Two comparisons** run side by side. One covers everything since the last release of the kill switch, and finds
small lasting falls. The other covers a stretch of `recent` settled decisions, then the next stretch, and finds a
late fall, which a long good past would hide from the first. Of `false_alarm`, one half is the first comparison's,
and stretch s = 1, 2, ... has `false_alarm` / (2 s (s + 1)), which add up to the other half. A comparison is looked
at when it has grown by a tenth since the last look, and of its error, look k = 1, 2, ... spends 1 / (k (k + 1)) on
the test of the buckets; the bounds hold at all looks at once.

**False-alarm rate.** The probability that exploration is ever stopped without such a fall is at most `false_alarm`,
over an unlimited time, if either of two things is so, since both have to be fooled:

- of the bounds, exactly and for any number of decisions: e and b are the running averages of what each decision
  earns in the mean given all before it, and without an effect they are alike. So it is where each visitor comes
  seldom and the world does not change much faster than both arms see it;
- of the buckets, however often visitors come again and whatever changes with time: the hash deals visitors to arms
  and buckets blindly, and a bucket's total is near normal, which dozens of visitors in each make it.

A release starts afresh, with the same rate again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.limits.confidence import BoundedMean
from explorank.hooks.limits.visitors import Buckets
from explorank.hooks.types import FloatArray, IndexArray, RankingRequest

_FIRST_LOOK: Final = 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """What both sides earned over the same time."""

    explore: BoundedMean
    baseline: BoundedMean
    buckets: Buckets
    looks: int = 0
    """How often it was looked at."""
    looked_at: int = 0
    """How many decisions it covered then."""

    @classmethod
    def of_nothing(cls, minimum: float, maximum: float) -> Self:
        """Return the comparison before any decision, for values within the bounds."""
        return cls(BoundedMean(minimum, maximum), BoundedMean(minimum, maximum), Buckets())

    @property
    def count(self) -> int:
        """How many decisions it covers."""
        return self.explore.count + self.baseline.count

    @property
    def due(self) -> bool:
        """Whether it has grown enough for another look. That depends on counts only, never on what was earned."""
        return self.count >= _FIRST_LOOK and 10 * self.count >= 11 * self.looked_at

    def looked(self) -> Self:
        """Return the comparison with one more look."""
        return replace(self, looks=self.looks + 1, looked_at=self.count)

    def plus(self, values: FloatArray, explore: NDArray[np.bool_], buckets: IndexArray) -> Self:
        """Return the comparison after `values` (m,), each of an arm and of a visitor's bucket."""
        return replace(
            self,
            explore=self.explore.plus(values[explore]),
            baseline=self.baseline.plus(values[~explore]),
            buckets=self.buckets.plus(values, explore, buckets),
        )

    def packed(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "explore": self.explore.packed(),
            "baseline": self.baseline.packed(),
            "buckets": self.buckets.packed(),
            "looks": [self.looks, self.looked_at],
        }

    def unpacked(self, packed: Mapping[str, Any]) -> Self:
        """Return the comparison, of the same bounds, that `packed` holds."""
        looks, looked_at = packed["looks"]
        return replace(
            self,
            explore=self.explore.unpacked(packed["explore"]),
            baseline=self.baseline.unpacked(packed["baseline"]),
            buckets=Buckets.unpacked(packed["buckets"]),
            looks=int(looks),
            looked_at=int(looked_at),
        )

    def bounds(self, error: float) -> tuple[float, float]:
        """Return the explore arm's upper and the baseline's lower bound, both right with 1 - `error`."""
        return self.explore.upper(error / 2), self.baseline.lower(error / 2)


@dataclass(frozen=True, slots=True)
class Watch:
    """How far the rule has come; immutable."""

    since: float | None
    """Decisions from this time on count: the last release. `None` where there was none."""
    whole: Comparison
    """Everything since then."""
    recent: Comparison
    """The current stretch."""
    stretch: int = 1
    """Its number, from 1."""
    reason: str | None = None
    """Why exploration was stopped, or `None` where it was not."""

    @classmethod
    def from_(cls, since: float | None, minimum: float, maximum: float) -> Self:
        """Return the watch that begins at `since`, for values within the bounds."""
        nothing = Comparison.of_nothing(minimum, maximum)
        return cls(since, nothing, nothing)

    def packed(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "since": self.since,
            "stretch": self.stretch,
            "reason": self.reason,
            "whole": self.whole.packed(),
            "recent": self.recent.packed(),
        }

    def unpacked(self, packed: Mapping[str, Any]) -> Self:
        """Return the watch, of the same bounds, that `packed` holds; raise `CorruptState` for anything else."""
        try:
            return replace(
                self,
                since=packed["since"],
                whole=self.whole.unpacked(packed["whole"]),
                recent=self.recent.unpacked(packed["recent"]),
                stretch=int(packed["stretch"]),
                reason=packed["reason"],
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, CorruptState):
                raise
            raise CorruptState(
                f"The saved state of the automatic stop lacks a part ({error!r}), so that it cannot go on. The "
                "learner rebuilds its state from the log."
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """When exploration stops by itself; see the module for the rule and its false-alarm rate."""

    drop: float
    """The tolerated fall, as a share of the baseline's mean."""
    false_alarm: float
    """The probability of ever stopping without such a fall, at most."""
    recent: int = 20_000
    """How many settled decisions a stretch covers."""
    metric: str = "reward"
    """What is compared, for the reason that people read."""

    def __post_init__(self) -> None:
        """Check the shares."""
        if not 0.0 <= self.drop < 1.0:
            raise InvalidPolicy(
                f"`drop` is {self.drop!r}; a tolerated fall is a share in [0, 1). Write 5 % as 0.05."
            )
        if not 0.0 < self.false_alarm < 1.0:
            raise InvalidPolicy(
                f"`false_alarm` is {self.false_alarm!r}; a probability between 0 and 1 is needed. Write 1 % as 0.01."
            )
        if self.recent < 1:
            raise InvalidPolicy(f"`recent` is {self.recent!r}; a stretch covers at least one decision.")

    def observe(
        self, watch: Watch, values: FloatArray, explore: NDArray[np.bool_], buckets: IndexArray
    ) -> Watch:
        """Return the watch after `values` (m,) settled, of the explore arm where `explore` says so.

        `buckets` (m,) are those of the visitors. Once stopped it stays as it is.
        """
        at = 0
        while watch.reason is None and at < len(values):
            # A look at the end of each stretch, and at the end of what is new.
            end = min(len(values), at + max(self.recent - watch.recent.count, 1))
            new = values[at:end], explore[at:end], buckets[at:end]
            watch = self._looked(replace(watch, whole=watch.whole.plus(*new), recent=watch.recent.plus(*new)))
            if watch.reason is None and watch.recent.count >= self.recent:
                nothing = Comparison.of_nothing(watch.recent.explore.minimum, watch.recent.explore.maximum)
                watch = replace(watch, recent=nothing, stretch=watch.stretch + 1)
            at = end
        return watch

    def errors(self, watch: Watch) -> tuple[float, float]:
        """Return the error of the whole comparison and that of the current stretch."""
        return self.false_alarm / 2, self.false_alarm / (2 * watch.stretch * (watch.stretch + 1))

    def _looked(self, watch: Watch) -> Watch:
        """Return the watch after looks at the comparisons that have grown enough, stopped where one says so."""
        of_all, of_stretch = self.errors(watch)
        if watch.whole.due:
            watch = replace(watch, whole=watch.whole.looked())
            covered = "so far" if watch.since is None else "since the last release"
            watch = replace(watch, reason=self.alarm(watch.whole, of_all, covered))
        if watch.recent.due and watch.reason is None:
            watch = replace(watch, recent=watch.recent.looked())
            watch = replace(watch, reason=self.alarm(watch.recent, of_stretch, f"in stretch {watch.stretch}"))
        return watch

    def alarm(self, comparison: Comparison, error: float, covered: str) -> str | None:
        """Return why exploration has to stop, or `None`; `comparison` was just looked at."""
        explore, baseline = comparison.explore, comparison.baseline
        if explore.mean is None or baseline.mean is None or not self.fallen(explore.mean, baseline.mean):
            return None  # the bounds lie still further apart
        upper, lower = comparison.bounds(error)
        of_look = error / (comparison.looks * (comparison.looks + 1))
        if not self.fallen(upper, lower) or not comparison.buckets.fallen(self.drop, of_look):
            return None
        return (
            f"Automatic stop: the mean {self.metric} per decision of the explore arm is at most {upper:.6g} "
            f"(measured {explore.mean:.6g} over {explore.count} decisions {covered}), more than {self.drop:.4g} "
            f"below the baseline's, which is at least {lower:.6g} (measured {baseline.mean:.6g} over "
            f"{baseline.count}). Such an alarm comes without cause with a probability of at most "
            f"{self.false_alarm:.4g}. `explorank kill-switch release` lets it go on and begins the comparison anew."
        )

    def fallen(self, upper: float, lower: float) -> bool:
        """Return whether the explore arm, at most `upper`, has fallen too far below a baseline of `lower`."""
        return upper < lower - self.drop * abs(lower)


class AutomaticStop:
    """A gate that stays shut while the rule has stopped exploration, even if the kill switch could not be set."""

    name: Final = "stop"

    def __init__(self, watch: Callable[[], Watch]) -> None:
        self._watch = watch
        self.refused = 0
        """Requests of this process that were held back, about: threads may miss one another's."""

    def refusal(self, request: RankingRequest) -> str | None:  # noqa: ARG002 - it is the same for all requests
        """Return why exploration was stopped, or `None`."""
        reason = self._watch().reason
        if reason is None:
            return None
        self.refused += 1
        return f"stop: {reason}"
