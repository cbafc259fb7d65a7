"""What the shown slots of a decision earned, and when that is settled.

A slot closes as soon as every configured kind of reward has come for it, else when the horizon has passed.
It is known to have been shown if the host's impression names its item, or if any reward came for it. A shown
slot that nothing came for earns the default reward; a slot of which nothing is known earns nothing and is
not learnt from.

Where a cascade says who was looked at, a slate is one: its slots close together, since a reward above tells of
the slots below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState, InvalidFeedback
from explorank.hooks.exploration.examination import Cascade, Examination
from explorank.hooks.types import (
    OFFSETS,
    REPRESENTATION,
    DecisionRecord,
    FeatureArray,
    FloatArray,
    Impression,
    Reward,
)

Reception: TypeAlias = Literal["accepted", "late", "duplicate", "refused"]
"""What became of a reward: `late` came after its slot had closed or happened after the horizon, `refused`
names an item that the decision did not show or a kind without a weight."""

_LEARNT_MODES: Final = frozenset({"live", "apprentice"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRules:
    """How rewards of several kinds become one number per slot, and how long to wait for them."""

    weights: Mapping[str, float]
    """The weight of each kind of reward; a slot earns the weighted sum of what came."""
    horizon_s: float
    """How long after its decision a slot may earn, in seconds."""
    default_reward: float = 0.0
    """What a shown slot earns when the horizon passes with nothing."""
    examination: Examination | None = None
    """Which slots were looked at; `None` takes all that were shown for examined."""

    def __post_init__(self) -> None:
        """Check that the numbers can be learnt from."""
        if not self.weights:
            raise InvalidFeedback(
                "`reward_weights` is empty, so no reward would count. Name at least one kind, such as "
                "{'click': 1.0}."
            )
        for name, value in {**self.weights, "default_reward": self.default_reward}.items():
            if not math.isfinite(value):
                raise InvalidFeedback(f"The reward weight of {name!r} is {value!r}; it must be finite.")
        if not self.horizon_s >= 0.0:
            raise InvalidFeedback(f"`horizon_s` is {self.horizon_s!r}; a waiting time is 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one shown slot earned in the end."""

    decision_id: str
    slot: int
    item_id: Any
    value: float
    propensity: float
    features: FeatureArray | None
    """As served, (d,); `None` where the record holds none for the item."""
    time: float
    """When the decision was made."""
    closed_at: float
    """When the last reward came, or the horizon."""
    strategy: str = ""
    """Which strategy chose the item; empty where none did."""
    offset: float | None = None
    """What was expected of the item when it was shown; `None` where the record holds nothing of it."""
    rewarded: bool = False
    """Whether a reward other than 0 came, which proves that somebody looked."""
    representation: str = ""
    """The version of the network whose last layer `features` hold; empty where they hold none."""
    examined: bool = True
    """False where a cascade says that nobody can have looked; then nothing is learnt from it."""


def dump_outcome(outcome: Outcome) -> bytes:
    """Return the outcome as bytes."""
    meta = {
        name: getattr(outcome, name)
        for name in Outcome.__dataclass_fields__
        if name not in {"item_id", "features"}
    }
    features = np.zeros(0, np.float32) if outcome.features is None else outcome.features
    named = {"item_id": np.array([outcome.item_id]), "features": features}
    return arrays.dumps({**meta, "featured": outcome.features is not None}, named)


def load_outcome(data: bytes) -> Outcome:
    """Return what `dump_outcome` wrote; raise `CorruptState` for anything else."""
    meta, named = arrays.loads(data)
    try:
        features = named["features"] if meta.pop("featured") else None
        return Outcome(**meta, item_id=named["item_id"][0], features=features)
    except (KeyError, TypeError) as error:
        raise CorruptState(
            f"A closed slot in the learner's state lacks its fields ({error}); what it earned is lost. The "
            "learner rebuilds its state from the log."
        ) from error


@dataclass(slots=True)
class OpenDecision:
    """A decision that waits for rewards: its slate, and what has come so far."""

    decision_id: str
    time: float
    item_ids: NDArray[Any]  # (k,)
    propensities: FloatArray  # (k,)
    features: FeatureArray  # (k, d)
    featured: NDArray[np.bool_]  # (k,) whether the row of `features` was served
    strategies: tuple[str, ...] = ()  # (k,), or () where the policy has none
    offsets: FloatArray | None = None  # (k,) NaN where the record has none
    representation: str = ""
    shown: set[int] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)
    earned: dict[int, dict[str, float]] = field(default_factory=dict)
    """By slot and kind; rewards of one kind add up until the slot closes."""
    reward_ids: set[str] = field(default_factory=set)
    order_changed: bool = False
    """Whether the host displayed other items or another order, which the propensities do not describe; such
    a decision takes its rewards and yields no outcome."""

    @classmethod
    def of(cls, record: DecisionRecord) -> Self:
        """Return `record` with nothing come yet."""
        order = record.slate.order
        row_of = np.full(len(record.item_ids), -1, np.int64)
        row_of[record.feature_rows] = np.arange(len(record.feature_rows))
        rows = row_of[order]
        features = np.zeros((len(order), record.features.shape[1]), np.float32)
        features[rows >= 0] = record.features[rows[rows >= 0]]
        offsets: FloatArray | None = None
        if OFFSETS in record.columns:
            offsets = np.full(len(order), np.nan)
            offsets[rows >= 0] = record.columns[OFFSETS][rows[rows >= 0]]
        return cls(
            decision_id=record.decision_id,
            time=record.request.time,
            item_ids=record.item_ids[order],
            propensities=record.slate.propensities,
            features=features,
            featured=rows >= 0,
            strategies=record.slate.strategies,
            offsets=offsets,
            representation=record.versions.get(REPRESENTATION, ""),
        )

    @property
    def settled(self) -> bool:
        """Whether nothing is left to wait for."""
        return len(self.closed) == len(self.item_ids)

    def observe_impression(self, impression: Impression) -> None:
        """Take the host's word on what it displayed: a beginning of the slate, or `order_changed`."""
        decided = [str(item) for item in self.item_ids.tolist()]
        displayed = [str(item) for item in impression.items_in_order]
        if displayed != decided[: len(displayed)]:
            self.order_changed = True
        self.shown.update(slot for slot, item in enumerate(decided) if item in displayed)

    def observe_reward(self, reward: Reward, rules: RewardRules) -> tuple[Reception, Outcome | None]:
        """Take a reward; return what became of it, and the outcome if it closed its slot.

        The item id says which slot it is for, wherever the host displayed the item. One that happened before the
        decision, by another clock, is taken for having come with it.
        """
        if reward.reward_id in self.reward_ids:
            return "duplicate", None
        decided = [str(item) for item in self.item_ids.tolist()]
        if reward.item_id not in decided or reward.kind not in rules.weights:
            return "refused", None
        slot = decided.index(reward.item_id)
        if slot in self.closed or reward.time > self.time + rules.horizon_s:
            return "late", None
        self.reward_ids.add(reward.reward_id)
        self.shown.add(slot)
        earned = self.earned.setdefault(slot, {})
        earned[reward.kind] = earned.get(reward.kind, 0.0) + reward.value
        if earned.keys() == rules.weights.keys() and not isinstance(rules.examination, Cascade):
            outcome = self._close(slot, rules, closed_at=reward.time)
            return "accepted", None if self.order_changed else outcome
        return "accepted", None

    def take(self, reward: Reward, rules: RewardRules) -> tuple[Reception, list[Outcome]]:
        """Take a reward; return what became of it, and all outcomes that are settled with it."""
        reception, outcome = self.observe_reward(reward, rules)
        if outcome is None and not self.settled and self.is_complete(rules):
            return reception, self.close(rules, at=reward.time)
        return reception, [] if outcome is None else [outcome]

    def is_complete(self, rules: RewardRules) -> bool:
        """Return whether every kind of reward has come for every slot, so that nothing is left to wait for."""
        kinds = rules.weights.keys()
        return all(
            slot in self.closed or self.earned.get(slot, {}).keys() == kinds
            for slot in range(len(self.item_ids))
        )

    def close(self, rules: RewardRules, *, at: float | None = None) -> list[Outcome]:
        """Close what is open, at the horizon unless said otherwise; return what the shown slots earned."""
        closed_at = self.time + rules.horizon_s if at is None else at
        open_slots = [slot for slot in range(len(self.item_ids)) if slot not in self.closed]
        outcomes = [
            self._close(slot, rules, closed_at=closed_at) for slot in open_slots if slot in self.shown
        ]
        self.closed.update(open_slots)
        if isinstance(rules.examination, Cascade) and outcomes:
            examined = rules.examination.examination(
                [self.decision_id] * len(outcomes),
                [outcome.slot for outcome in outcomes],
                [outcome.rewarded for outcome in outcomes],
            )
            outcomes = [
                replace(outcome, examined=bool(looked))
                for outcome, looked in zip(outcomes, examined, strict=True)
            ]
        return [] if self.order_changed else outcomes

    def _close(self, slot: int, rules: RewardRules, *, closed_at: float) -> Outcome:
        self.closed.add(slot)
        earned = self.earned.pop(slot, {})
        value = sum(rules.weights[kind] * amount for kind, amount in sorted(earned.items()))
        offset = math.nan if self.offsets is None else float(self.offsets[slot])
        return Outcome(
            decision_id=self.decision_id,
            slot=slot,
            item_id=self.item_ids[slot],
            value=float(value) if earned else rules.default_reward,
            propensity=float(self.propensities[slot]),
            features=self.features[slot] if self.featured[slot] else None,
            time=self.time,
            # Clocks differ: nothing that a decision earned came before it.
            closed_at=max(closed_at, self.time),
            strategy=self.strategies[slot] if self.strategies else "",
            offset=None if math.isnan(offset) else offset,
            representation=self.representation,
            rewarded=any(earned.values()),
        )

    def dumps(self) -> bytes:
        """Return it as bytes."""
        meta = {
            "decision_id": self.decision_id,
            "time": self.time,
            "shown": sorted(self.shown),
            "closed": sorted(self.closed),
            "earned": list(self.earned.items()),
            "reward_ids": sorted(self.reward_ids),
            "order_changed": self.order_changed,
            "strategies": self.strategies,
            "representation": self.representation,
        }
        named = {
            "item_ids": self.item_ids,
            "propensities": self.propensities,
            "features": self.features,
            "featured": self.featured,
        }
        if self.offsets is not None:
            named["offsets"] = self.offsets
        return arrays.dumps(meta, named)

    @classmethod
    def loads(cls, data: bytes) -> Self:
        """Return what `dumps` wrote; raise `CorruptState` for anything else."""
        meta, named = arrays.loads(data)
        try:
            return cls(
                decision_id=meta["decision_id"],
                time=meta["time"],
                shown=set(meta["shown"]),
                closed=set(meta["closed"]),
                earned=dict(meta["earned"]),
                reward_ids=set(meta["reward_ids"]),
                order_changed=meta["order_changed"],
                strategies=tuple(meta["strategies"]),
                representation=meta["representation"],
                **named,
            )
        except (KeyError, TypeError) as error:
            raise CorruptState(
                f"An open decision in the learner's state lacks its fields ({error}); what it waits for is "
                "lost. The learner rebuilds its state from the log."
            ) from error


def is_learnt(
    record: DecisionRecord, feature_version: str | None = None, *, warm_start: bool = False
) -> bool:
    """Return whether a decision may teach a policy.

    Its propensities must be known, its slate must have been displayed (not a shadow), and its features must
    be of `feature_version`, where one is given. For a `warm_start` it must say what was expected of its items:
    a residual and a whole reward are no rewards of one kind.
    """
    return (
        record.propensity_known
        and record.mode in _LEARNT_MODES
        and (not warm_start or OFFSETS in record.columns)
        and (feature_version is None or record.versions.get("exploration_features") == feature_version)
    )
