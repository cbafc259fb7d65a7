"""Examination: how probable it is that a slot was looked at, so that learning can tell "no" from "not seen".

A click takes two things: the slot is examined, and what stands there appeals.

    P(click) = P(examined) · appeal

What nobody looked at says nothing about the item. Both models give the column `examination` of a
`RewardBatch`, by which learning weighs each row, so that an explored item low in the slate is not punished
for its place. Clicks are 0 or 1.

Weights alone make the appeal unbiased only if they are the probabilities *given the click or its absence*: a
click proves an examination, its absence makes one less likely. Under the cascade they are 0 and 1. Under the
position-based model they depend on the appeal itself (an EM step, for rewards that must stay in [0, 1]), or
the rewards are divided by the probability instead (`PositionBased.unbiased`, for any other policy).

Source: Craswell, Zoeter, Taylor and Ramsey, *An Experimental Comparison of Click Position-Bias Models* (2008),
section 3, where the first is the examination hypothesis and the second the cascade.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration.policy import Policy
from explorank.hooks.exploration.rewards import required_column
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RewardBatch


@dataclass(frozen=True)
class PositionBased:
    """A slot is examined with a probability of its own, whatever stands there and elsewhere.

    P(examined | click) = 1
    P(examined | no click) = θ_s · (1 - appeal) / (1 - θ_s · appeal)
    """

    probabilities: tuple[float, ...]
    """θ of each slot from the top, above 0 and at most 1; slots further down have the last one."""

    def __post_init__(self) -> None:
        """Check the probabilities."""
        if not self.probabilities or not all(0.0 < each <= 1.0 for each in self.probabilities):
            raise InvalidPolicy(
                f"`probabilities` of a position-based model is {list(self.probabilities)!r}; it holds one for "
                "each slot, above 0 and at most 1: a slot that nobody examines teaches nothing. Try "
                "[1.0, 0.6, 0.4]."
            )

    def examination(self, slots: ArrayLike) -> FloatArray:
        """Return θ of each of `slots` (m,), what is known before anybody could click."""
        at = np.minimum(_slots(slots), len(self.probabilities) - 1)
        return np.array(self.probabilities)[at]

    def examination_given(self, slots: ArrayLike, clicks: ArrayLike, appeal: ArrayLike) -> FloatArray:
        """Return the probability that each of `slots` was examined, given `clicks`, all (m,).

        `appeal` is the probability of a click on the item where it is examined, (m,) or one for all. With the
        policy's own expectation of it, to learn is a step of expectation-maximisation, whose fixed point is
        the appeal of greatest likelihood; with 0, an appeal is learnt as appeal / (1 + appeal · (1 - θ)),
        which is close where clicks are rare.

        Raises `InvalidBatch` for clicks other than 0 and 1, and for an appeal outside [0, 1].
        """
        before, clicked = self.examination(slots), _clicks(clicks)
        expected = np.broadcast_to(np.asarray(appeal, dtype=np.float64), before.shape)
        if not ((expected >= 0.0) & (expected <= 1.0)).all():
            raise InvalidBatch(
                "An `appeal` lies outside [0, 1]; it is the probability of a click on what was examined. Pass "
                "the mean that the policy expects, or 0 for rare clicks."
            )
        missed = 1.0 - before * expected
        # An examined item of certain appeal is clicked: without a click, nobody looked.
        unclicked = np.divide(
            before * (1.0 - expected), missed, out=np.zeros_like(before), where=missed > 0.0
        )
        return np.where(clicked, 1.0, unclicked)

    def unbiased(self, rewards: RewardBatch) -> RewardBatch:
        """Return `rewards` divided by θ of their slots, with θ as the examination that weighs them.

        The expectation of reward / θ is the appeal, in every slot, and its variance rises with 1 / θ. For
        policies that take rewards on any scale: those with a normal posterior, and linear ones. Inverse
        propensity weighting by position: Joachims, Swaminathan and Schnabel, *Unbiased Learning-to-Rank with
        Biased Feedback* (2017).

        Raises `InvalidBatch` without slots, and for rewards with offsets: divide first, then add offsets that
        say what is expected of an examined item.
        """
        if rewards.offsets is not None and rewards.offsets.any():
            raise InvalidBatch(
                "Rewards with offsets cannot be divided by their examination: nothing says whether the offset "
                "is what was expected in that slot or of an examined item. Divide first, then add offsets of "
                "the latter kind."
            )
        examined = self.examination(required_column("A position-based model", rewards, "slots"))
        return replace(rewards, values=rewards.values / examined, examination=examined)


@dataclass(frozen=True)
class Cascade:
    """A visitor looks from the top down and goes with the first click, or at the end.

        P(examined) = 1 for the slots down to the first click of the slate, 0 for those below

    A slate without a click was examined to its end. What is below a click says nothing, and the click
    frequency of what was examined is the appeal, without a bias.
    """

    def examination(self, decision_ids: ArrayLike, slots: ArrayLike, clicks: ArrayLike) -> FloatArray:
        """Return 1 or 0 for each row, given the clicks of its slate, all (m,).

        All rows of a slate must be there, in any order. Raises `InvalidBatch` for clicks other than 0 and 1.
        """
        at, clicked = _slots(slots), _clicks(clicks)
        slates, slate = np.unique(np.asarray(decision_ids), return_inverse=True)
        if not len(at) == len(clicked) == len(slate):
            raise InvalidBatch(
                f"{len(slate)} decision ids, {len(at)} slots and {len(clicked)} clicks; the cascade follows "
                "each slate row by row and needs all three of each row."
            )
        first = np.full(len(slates), np.iinfo(np.int64).max)
        np.minimum.at(first, slate[clicked], at[clicked])
        examined: FloatArray = (at <= first[slate]).astype(np.float64)
        return examined


Examination: TypeAlias = PositionBased | Cascade


def allowing_for(
    model: PositionBased,
    policy: Policy[Any],
    state: Any,
    rewards: RewardBatch,
    rewarded: BoolArray,
    default_reward: float = 0.0,
) -> RewardBatch:
    """Return `rewards` as `policy` learns from them without a bias by slot; `rewarded` (m,) proves a look.

    By the policy's form of reward. A `value` on any scale, less `default_reward`, is divided by θ and weighed by
    it. A `gain` is divided by θ. For the `share` of a success, weights are P(examined | rewarded or not), with
    what `state` expects of the row as its appeal, or 0 where the policy cannot say: give one row at a time, each
    with the state that the last one led to, or what is learnt depends on how rewards are cut into batches.

    Offsets stay as they are: they say what is expected of an examined item.
    """
    if policy.reward_form == "value":
        above = replace(rewards, values=rewards.values - default_reward, offsets=None)
        unbiased = model.unbiased(above)
        return replace(unbiased, values=unbiased.values + default_reward, offsets=rewards.offsets)
    slots = required_column("A position-based model", rewards, "slots")
    if policy.reward_form == "gain":
        weights = np.ones(len(rewards)) if rewards.weights is None else rewards.weights
        return replace(rewards, weights=weights / model.examination(slots))
    expected = policy.expected(state, rewards)
    appeal = 0.0 if expected is None else np.clip(expected, 0.0, 1.0)
    return replace(rewards, examination=model.examination_given(slots, rewarded, appeal))


def _slots(slots: ArrayLike) -> IndexArray:
    at = np.asarray(slots, dtype=np.int64)
    if (at < 0).any():
        raise InvalidBatch(f"`slots` holds {int(at.min())}; slots count from 0 at the top.")
    return at


def _clicks(clicks: ArrayLike) -> NDArray[np.bool_]:
    values: NDArray[Any] = np.asarray(clicks)
    if not ((values == 0) | (values == 1)).all():
        raise InvalidBatch(
            "`clicks` holds other numbers than 0 and 1; only a click, yes or no, shows that a slot was "
            "examined. Pass clicks, and leave the reward's value to the batch."
        )
    return values.astype(np.bool_)
