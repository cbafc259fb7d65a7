"""The automatic stop: exploration ends when the explore arm surely earns less than the baseline.

**The rule.** Let e be the explore arm's mean per decision, whatever was shown in it, and b the mean of the
baseline and holdout arms together. Exploration stops when

    upper bound of e  <  lower bound of b  -  drop |lower bound of b|,

which is (1 - drop) times the bound where it is positive. Each bound is one of `confidence` that holds at all
times at once, with half of the comparison's error.

**Two comparisons** run side by side. One covers everything since the last release of the kill switch, and finds
small lasting falls. The other covers a stretch of `recent` settled decisions, then the next stretch, and finds a
late fall, which a long good past would hide from the first.

**False-alarm rate.** While e is at least b less the tolerated drop, the probability that the rule ever stops
exploration is at most `false_alarm`, over an unlimited time and however often one looks: half of it is the first
comparison's, and stretch k = 1, 2, ... has `false_alarm` / (2 k (k + 1)), which add up to the other half. Both
means are running averages of what each decision earns in the mean given what was known when it was made. A
release starts afresh, with the same rate again.

**What is assumed.** Without an effect of exploration, a decision in one arm is worth as much as in the other: the
hash deals users blindly. With few users of very different worth, or few very active ones, chance in the deal
itself is a difference between the arms, which no look at decisions can tell from an effect; `drop` must then be
larger than it. What a decision still earns does not depend on what earlier ones still will earn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.limits.confidence import BoundedMean
from explorank.hooks.types import FloatArray, RankingRequest


@dataclass(frozen=True, slots=True)
class Comparison:
    """What both sides earned over the same time."""

    explore: BoundedMean
    baseline: BoundedMean

    @property
    def count(self) -> int:
        """How many decisions it covers."""
        return self.explore.count + self.baseline.count

    def plus(self, values: FloatArray, explore: NDArray[np.bool_]) -> Self:
        """Return the comparison after `values` (m,), of the explore arm where `explore` says so."""
        return replace(
            self, explore=self.explore.plus(values[explore]), baseline=self.baseline.plus(values[~explore])
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
        nothing = BoundedMean(minimum, maximum)
        return cls(since, Comparison(nothing, nothing), Comparison(nothing, nothing))

    def packed(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "since": self.since,
            "stretch": self.stretch,
            "reason": self.reason,
            "means": [mean.packed() for mean in self._means()],
        }

    def unpacked(self, packed: Mapping[str, Any]) -> Self:
        """Return the watch, of the same bounds, that `packed` holds; raise `CorruptState` for anything else."""
        try:
            means = [mean.unpacked(saved) for mean, saved in zip(self._means(), packed["means"], strict=True)]
            return replace(
                self,
                since=packed["since"],
                whole=Comparison(means[0], means[1]),
                recent=Comparison(means[2], means[3]),
                stretch=int(packed["stretch"]),
                reason=packed["reason"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptState(
                f"The saved state of the automatic stop lacks a part ({error!r}), so that it cannot go on. The "
                "learner rebuilds its state from the log."
            ) from error

    def _means(self) -> tuple[BoundedMean, ...]:
        return self.whole.explore, self.whole.baseline, self.recent.explore, self.recent.baseline


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

    def observe(self, watch: Watch, values: FloatArray, explore: NDArray[np.bool_]) -> Watch:
        """Return the watch after `values` (m,) settled, of the explore arm where `explore` says so.

        Once stopped it stays as it is.
        """
        at = 0
        while watch.reason is None and at < len(values):
            # A look at the end of each stretch, and at the end of what is new.
            end = min(len(values), at + max(self.recent - watch.recent.count, 1))
            new, whose = values[at:end], explore[at:end]
            watch = replace(watch, whole=watch.whole.plus(new, whose), recent=watch.recent.plus(new, whose))
            watch = replace(watch, reason=self.alarm(watch))
            if watch.reason is None and watch.recent.count >= self.recent:
                nothing = replace(watch.recent.explore, count=0, total=0.0, squares=0.0)
                watch = replace(watch, recent=Comparison(nothing, nothing), stretch=watch.stretch + 1)
            at = end
        return watch

    def errors(self, watch: Watch) -> tuple[float, float]:
        """Return the error of the whole comparison and that of the current stretch."""
        return self.false_alarm / 2, self.false_alarm / (2 * watch.stretch * (watch.stretch + 1))

    def alarm(self, watch: Watch) -> str | None:
        """Return why exploration has to stop, or `None`."""
        of_all, of_stretch = self.errors(watch)
        for comparison, error, covered in (
            (watch.whole, of_all, "since the last release" if watch.since is not None else "so far"),
            (watch.recent, of_stretch, f"in stretch {watch.stretch}"),
        ):
            explore, baseline = comparison.explore, comparison.baseline
            if explore.mean is None or baseline.mean is None or not self.fallen(explore.mean, baseline.mean):
                continue  # the bounds lie still further apart
            upper, lower = comparison.bounds(error)
            if self.fallen(upper, lower):
                return (
                    f"Automatic stop: the mean {self.metric} per decision of the explore arm is at most "
                    f"{upper:.6g} (measured {explore.mean:.6g} over {explore.count} "
                    f"decisions {covered}), more than {self.drop:.4g} below the baseline's, which is at least "
                    f"{lower:.6g} (measured {baseline.mean:.6g} over {baseline.count}). "
                    f"Such an alarm comes without cause with a probability of at most {self.false_alarm:.4g}."
                )
        return None

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
