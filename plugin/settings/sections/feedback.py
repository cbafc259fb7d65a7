"""What is logged and learnt from."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from explorank.settings.annotations import Accepts
from explorank.settings.sections.section import Name, Section
from explorank.settings.validation import rule_broken


def _weight_alone(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"weight": value} if is_number else value


class RewardKind(Section):
    """One kind of reward, such as a click or a purchase."""

    weight: float = 1.0
    """What one unit of this reward is worth beside the other kinds; the policy learns the weighted sum."""
    minimum: float = 0.0
    """Rewards below are refused."""
    maximum: float = 1.0
    """Rewards above are refused."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.minimum > self.maximum:
            raise rule_broken(
                f"{self.minimum} is above `maximum` ({self.maximum}), so that every reward would be refused. "
                "Swap them.",
                "minimum",
            )
        return self


RewardEntry = Annotated[
    RewardKind,
    BeforeValidator(_weight_alone, json_schema_input_type=float | RewardKind),
    Accepts("a number (the weight) or the keys `weight`, `minimum` and `maximum`"),
]


class ExaminationSettings(Section):
    """Which slots are looked at, so that an item low in the slate is not punished for its place."""

    use: Literal["position_based", "cascade"]
    """`position_based`: each slot is looked at with a probability of its own. `cascade`: visitors look from the
    top down to their first click; a slate's slots then close together, at the horizon."""
    probabilities: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """For `position_based`: how likely each slot is looked at, from the top; slots further down have the last
    one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.use == "position_based") != bool(self.probabilities):
            raise rule_broken(
                "is empty, and `position_based` needs one for each slot. Try `[1.0, 0.6, 0.4]`."
                if self.use == "position_based"
                else "is for `position_based`; a cascade knows by the clicks who looked. Remove it.",
                "probabilities",
            )
        return self


class FeedbackSettings(Section):
    """What is logged and learnt from."""

    durability: Literal["process", "power"] = "process"
    """What an acknowledged decision or reward survives: `process`, the end of the process; `power`, also a
    power cut (each group commit waits for the disk)."""
    rewards: Annotated[dict[Name, RewardEntry], Field(json_schema_extra={"minProperties": 1})] = {  # noqa: RUF012 - pydantic copies defaults
        "click": RewardKind()
    }
    """The kinds of reward, one or more; others are refused. `{click: 1.0}` is short for `{click: {weight: 1.0}}`."""
    horizon_s: Annotated[float, Field(gt=0)] = 86_400.0
    """How long after a decision rewards count, in seconds. Then a slot without any earns `default_reward`."""
    default_reward: float = 0.0
    """What a shown slot without any reward has earned at the horizon."""
    examination: ExaminationSettings | None = None
    """Which slots are looked at. `null` takes every slot that was shown for one that was looked at."""
    learn_every_s: Annotated[float, Field(gt=0)] = 1.0
    """How often the learner folds new rewards into the policy's state, in seconds."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.rewards:
            raise rule_broken(
                "names no kind of reward, so that every reward would be refused and each shown slot would have earned "
                "`default_reward` at once. Name one, such as `{click: 1.0}`; where nothing is to be learnt, leave the "
                "key out and set `exploration.mode: off`.",
                "rewards",
            )
        return self

    @property
    def weights(self) -> dict[str, float]:
        """What one unit of each kind of reward is worth."""
        return {kind: rule.weight for kind, rule in self.rewards.items()}
