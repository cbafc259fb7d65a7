"""What the arms earned: each live decision of the log counted once, whatever was explored in it.

Decisions are counted by the arm of their visitor, whether what was explored worked, was confirmed as displayed,
or was learnt from: to leave some out by what became of them would favour an arm. What no reward came for counts
as 0; `default_reward` is what a learner makes of silence and does not enter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, TypeAlias

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.limits.confidence import BoundedMean
from explorank.hooks.types import DecisionRecord, FloatArray, Reward

Group: TypeAlias = Literal["explored", "held_back", "baseline", "holdout"]
"""The explore arm's decisions are `explored`, or `held_back` where a limit gave them the baseline throughout."""

GROUPS: Final[tuple[Group, ...]] = ("explored", "held_back", "baseline", "holdout")


@dataclass(frozen=True, slots=True, kw_only=True)
class EarningRules:
    """What a decision is worth: the sum of its rewards within a time, clipped to known bounds."""

    weights: Mapping[str, float]
    """What one unit of each kind of reward is worth; kinds that are not named do not count."""
    window_s: float
    """How long after a decision its rewards count, in seconds; then it is settled."""
    minimum: float
    """A decision that earned less counts with this."""
    maximum: float
    """A decision that earned more counts with this."""

    def __post_init__(self) -> None:
        """Check that the numbers can be bounded."""
        if not self.weights:
            raise InvalidPolicy(
                "`weights` is empty, so that no decision would be worth anything. Name a kind."
            )
        for name, value in {
            **self.weights,
            "window_s": self.window_s,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }.items():
            if not math.isfinite(value):
                raise InvalidPolicy(f"`{name}` is {value!r}; bounds on what was earned need finite numbers.")
        if not self.minimum < self.maximum:
            raise InvalidPolicy(
                f"`minimum` is {self.minimum} and `maximum` {self.maximum}: every decision would be worth the "
                "same. Put `minimum` below `maximum`."
            )

    def worth(self, reward: Reward) -> float | None:
        """Return what a reward adds to its decision, or `None` where its kind does not count."""
        weight = self.weights.get(reward.kind)
        return None if weight is None else weight * reward.value


def group_of(record: DecisionRecord) -> Group | None:
    """Return the group of a decision, or `None` for one that was not live.

    Where in doubt it was explored: a limit may have held some slots back only, and a fallback says nothing of
    what it would have shown.
    """
    if record.mode != "live":
        return None
    if record.arm != "explore":
        return record.arm
    slate = record.slate
    baseline = "explore" not in slate.method and bool((slate.propensities == 1.0).all())
    return "held_back" if record.held_back and baseline else "explored"


@dataclass(frozen=True, slots=True)
class Account:
    """One group's decisions."""

    settled: BoundedMean
    open: int = 0
    """How many decisions are not settled yet."""

    @property
    def decisions(self) -> int:
        """How many there are, settled or not."""
        return self.settled.count + self.open


@dataclass(frozen=True, slots=True)
class Earnings:
    """What all groups earned since the log began; immutable."""

    accounts: Mapping[Group, Account]
    clipped: int = 0
    """Decisions that earned more or less than the bounds allow, and were clipped."""

    @classmethod
    def none(cls, minimum: float, maximum: float) -> Self:
        """Return the earnings of no decision."""
        return cls({group: Account(BoundedMean(minimum, maximum)) for group in GROUPS})

    def opened(self, decisions: Mapping[str, int]) -> Self:
        """Return the earnings with so many more open decisions, by group."""
        accounts = {
            group: replace(account, open=account.open + decisions.get(group, 0))
            for group, account in self.accounts.items()
        }
        return replace(self, accounts=accounts)

    def settled(self, values: Mapping[Group, FloatArray], clipped: int = 0) -> Self:
        """Return the earnings after open decisions earned `values`, within the bounds and in order."""
        accounts = {
            group: Account(account.settled.plus(values[group]), account.open - len(values[group]))
            if group in values
            else account
            for group, account in self.accounts.items()
        }
        return replace(self, accounts=accounts, clipped=self.clipped + clipped)

    @property
    def explore(self) -> BoundedMean:
        """What the explore arm earned, held back or not."""
        return self.accounts["explored"].settled.joined(self.accounts["held_back"].settled)

    @property
    def baseline(self) -> BoundedMean:
        """What those earned who never explore."""
        return self.accounts["baseline"].settled.joined(self.accounts["holdout"].settled)

    def packed(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "clipped": self.clipped,
            "accounts": {
                group: [account.open, *account.settled.packed()] for group, account in self.accounts.items()
            },
        }

    def unpacked(self, packed: Mapping[str, Any]) -> Self:
        """Return the earnings, of the same bounds, that `packed` holds; raise `CorruptState` for anything else."""
        try:
            accounts: dict[Group, Account] = {
                group: Account(
                    account.settled.unpacked(packed["accounts"][group][1:]), int(packed["accounts"][group][0])
                )
                for group, account in self.accounts.items()
            }
            return replace(self, accounts=accounts, clipped=int(packed["clipped"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CorruptState(
                f"Saved earnings lack a part ({error!r}), so that limits cannot be kept from them. The learner "
                "rebuilds its state from the log."
            ) from error
