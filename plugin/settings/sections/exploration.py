"""What is explored, for whom, how, and what it may cost."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from explorank.settings.sections.component import PolicyComponent
from explorank.settings.sections.section import Fraction, Name, Positive, Section, Share, Slot
from explorank.settings.validation import rule_broken


class ConservativeSettings(Section):
    """How much of what the baseline would have earned the exploring users' decisions keep, as a whole."""

    alpha: Fraction = 0.1
    """The share of the baseline's earnings that exploration may cost."""
    confidence: Fraction = 0.95
    """The probability with which that holds, at all times at once."""


class StopSettings(Section):
    """When exploration stops by itself: where exploring users surely earn less than the others."""

    drop: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The tolerated fall, as a share of the mean of those who do not explore."""
    false_alarm: Fraction = 0.01
    """The probability of ever stopping without such a fall, however long exploration runs."""
    recent: Positive = 20_000
    """Beside all decisions since the last release of the kill switch, stretches of this many are compared, so
    that a good past does not hide a late fall."""


class SafetySettings(Section):
    """What exploration may cost. Both limits compare explored decisions with those of users who never explore.

    `docs/safety.md` has their rules, bounds and false-alarm rates.
    """

    conservative: ConservativeSettings | None = None
    """Explore only as long as the exploring users' total stays above (1 - `alpha`) of the baseline's. `null` is
    no such limit."""
    stop: StopSettings | None = None
    """Engage the kill switch when the metric falls. `null` is no such limit."""
    metric: Name | None = None
    """The kind of reward that is guarded, in its own units; `null` is the weighted sum of all kinds."""
    minimum: float | None = None
    """A decision that earned less counts with this; `null` is the least that one slot may earn, 0 at most."""
    maximum: float | None = None
    """A decision that earned more counts with this; `null` is the most that one slot may earn. The nearer it is to
    what decisions really earn, the sooner the limits know."""
    window_s: Annotated[float, Field(gt=0)] | None = None
    """How long after a decision its rewards count for the limits, in seconds; `null` is `feedback.horizon_s`. No
    decision counts before, so a shorter one lets the limits act sooner."""

    @property
    def active(self) -> bool:
        """Whether any limit is set."""
        return self.conservative is not None or self.stop is not None


class CandidateRule(Section):
    """What makes a candidate worth exploring. All keys of one rule must hold; a missing value fulfils none."""

    words: ClassVar[str] = "a rule such as `{impressions_below: 1000}`"
    """How messages and the reference describe it."""

    new_within_days: Annotated[float, Field(gt=0)] | None = None
    """The item is at most so many days old, by `age_column`. One without an age had no event yet, so it is new."""
    uncertainty_from: Annotated[float, Field(ge=0)] | None = None
    """The ranker's uncertainty is at least this; for rankers that give one."""
    impressions_below: Positive | None = None
    """The item stood in fewer answered slates than this, as counted since the key was first set."""
    column: Name | None = None
    """Any column of numbers that guards and policies can read; `at_least` and `below` refer to it."""
    at_least: float | None = None
    """The column's value is this or more."""
    below: float | None = None
    """The column's value is less than this."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        bounded = self.at_least is not None or self.below is not None
        if self.column is not None and not bounded:
            raise rule_broken(
                "has no bound, so that the rule says nothing. Add `at_least`, `below` or both.", "column"
            )
        if self.column is None and bounded:
            raise rule_broken(
                "bounds no column. Name the `column` that it is about.",
                "below" if self.at_least is None else "at_least",
            )
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise rule_broken("is empty, so that every candidate could be explored. Remove it, or add a key.")
        return self


class BudgetSettings(Section):
    """How much is explored for one visitor, and with which items."""

    per_user_per_day: Positive | None = None
    """At most so many explored slots for one user, or one session (`context["session_id"]`) of an anonymous
    visitor, on one UTC day; a request with neither does not explore then. `null` is no cap."""
    candidates: tuple[CandidateRule, ...] | None = None
    """Any of these rules makes a candidate explorable; the others are shown by score only. Empty or `null`: all
    are."""
    age_column: Name = "item_first_event"
    """The column that holds the age of each item, in days; a time that Feast serves arrives as one."""


class StabilitySettings(Section):
    """What a visitor who comes back sees of what was explored."""

    keep_s: Annotated[float, Field(gt=0)] | None = None
    """How long a visitor gets the same explored decision again, for the same question on the same surface, in
    seconds. `null`: each request is a decision of its own."""
    ignore_context: tuple[Name, ...] = ("history", "seen", "session_id")
    """The keys of `context` that do not make it another question; what plugins add never does."""
    rejections: tuple[Name, ...] = ()
    """The kinds of reward that mean "not for me": each hides its item from the visitor. They stand in
    `feedback.rewards` too."""
    rejected_s: Annotated[float, Field(gt=0)] = 604_800.0
    """How long a rejected item is hidden, on every surface and slot, baseline included, in seconds."""
    rest_s: Annotated[float, Field(gt=0)] | None = None
    """How long an item that was explored and earned nothing is not explored anew for that visitor, in seconds.
    `null`: at any time."""


class ForgettingSettings(Section):
    """A window over the latest rewards, for a world that changes by steps."""

    window: Annotated[int, Field(ge=2)] = 50_000
    """How many of the latest rewards the policy knows at most; a multiple of `blocks`."""
    blocks: Annotated[int, Field(ge=2)] = 10
    """Rewards are forgotten a block at a time, so that at least the latest (1 - 1 / blocks) of the window are
    known."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window % self.blocks:
            raise rule_broken(
                f"{self.window} is no multiple of `blocks` ({self.blocks}), which are all of one size. Write "
                f"{max(self.window // self.blocks, 1) * self.blocks}.",
                "window",
            )
        return self


class ExplorationSettings(Section):
    """What is explored, for whom, and how."""

    mode: Literal["off", "shadow", "apprentice", "live"] = "shadow"
    """`off`: the baseline only. `shadow`: exploration is computed and logged, the baseline is shown.
    `apprentice`: the same, and the policy learns from the baseline's rewards. `live`: what is explored is
    shown."""
    policy: PolicyComponent = PolicyComponent(use="epsilon_greedy")
    """The policy that fills the explored slots."""
    features: Literal["*"] | tuple[Name, ...] = ()
    """The columns that the policy sees, standardised; `"*"` is all of them. `score` is the ranker's score,
    `representation` all columns of a neural ranker's last hidden layer. A constant column is always added."""
    slots: Literal["all"] | tuple[Slot, ...] = "all"
    """The slots that explore, counted from 0. The others hold the best eligible item."""
    surfaces: Literal["all"] | tuple[Name, ...] = "all"
    """The surfaces of the host (`home`, `search`, …) on which exploration takes place."""
    share: Share = 1.0
    """The share of the users outside the holdout who get exploration, by a stable hash of the user."""
    holdout: Share = 0.05
    """The share of the users who never get exploration: what the others are compared with."""
    salt: Name = "explorank"
    """Part of the hash that puts users into groups; changing it reshuffles who is in which."""
    forgetting: ForgettingSettings | None = None
    """Lets the policy know the latest rewards only; `null` forgets nothing, unless the policy has a `half_life`.
    The policy's state must be a sum over rewards."""
    warm_start: bool = False
    """`true` begins from what the ranker knows: the policy learns what is earned beyond what the ranker's score
    stands for, by the map that `explorank calibrate` fits. Until there is one for the ranker that serves, nothing
    explores. The policy must be one that learns residuals."""
    safety: SafetySettings = SafetySettings()
    """What exploration may cost, and when it stops by itself."""
    budget: BudgetSettings = BudgetSettings()
    """How much is explored for one visitor, and with which items."""
    stability: StabilitySettings = StabilitySettings()
    """What a visitor who comes back sees of what was explored."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "live" and self.share == 1 and self.holdout == 0 and self.safety.active:
            limit = "stop" if self.safety.conservative is None else "conservative"
            raise rule_broken(
                "cannot work: `holdout` is 0 and `share` 1, so that every user explores and nothing tells what the "
                "baseline earns. Set `holdout: 0.05` or more, or lower `share`.",
                "safety",
                limit,
            )
        if self.slots != "all" and len(set(self.slots)) < len(self.slots):
            raise rule_broken("names a slot twice; name each slot once.", "slots")
        if self.holdout == 1 and self.mode == "live":
            raise rule_broken(
                "1 holds all users back, so that nothing is explored though `mode` is `live`. Lower it, or "
                "set `mode: shadow`.",
                "holdout",
            )
        return self
