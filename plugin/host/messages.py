"""What clients send. Ids may be strings or whole numbers and arrive at the stage as strings."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_CONTEXT_DEPTH: Final = 16
"""How deep the values of `context` may nest; the log stores them as JSON."""

_FLOAT32_MAX: Final = 3.4028234663852886e38
_YEAR_10000: Final = 253_402_300_800.0
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"  # arrays of text drop trailing NULs, which would merge two ids


def _id_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if type(value) is int:  # not isinstance: `True` is an int to Python, and no id
        return str(value)
    raise PydanticCustomError("id_type", "Input should be a string or a whole number")


Id = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256, pattern=_PRINTABLE),
    BeforeValidator(_id_text),
    WithJsonSchema({"type": ["string", "integer"], "minLength": 1, "maxLength": 256, "pattern": _PRINTABLE}),
]
# A list reports its first bad entry only: a body of nothing else would fill the answer, and the processor.
Ids = Annotated[list[Id], Field(fail_fast=True)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_PRINTABLE)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Feature = Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX, allow_inf_nan=False)]


def _shallow(context: Any) -> Any:
    containers = [context]
    for _ in range(MAX_CONTEXT_DEPTH + 1):
        containers = [
            child
            for parent in containers
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    if containers:
        raise PydanticCustomError(
            "too_deep", "Values may nest at most {depth} levels deep", {"depth": MAX_CONTEXT_DEPTH}
        )
    return context


class Message(BaseModel):
    """Strict: a misspelt field or a wrong type is refused, never guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Context(Message):
    """What the caller knows of the request; any further field is handed to the plugins as it is."""

    model_config = ConfigDict(extra="allow")

    history: Ids = []
    """The visitor's items of this session, oldest first; how an anonymous visitor is known."""
    seen: Ids = []
    """Items that must not be shown again, where the already-seen guard is on."""


class Question(Message):
    """What all requests for a slate share."""

    user_id: Id | None = None
    """Leave out for an anonymous visitor."""
    slots: int = Field(default=10, ge=0)
    """How many items to answer with; fewer come back where fewer are eligible."""
    surface: Name = "default"
    """Where the slate is shown, such as `home`."""
    context: Annotated[Context, BeforeValidator(_shallow)] = Context()
    exclude: Ids = []
    """Items that this request must not be answered with."""


class RankRequest(Question):
    """Ask for a slate from the catalogue."""

    similar_to: Id | None = None
    """Ask for items like this one, instead of items for the user's history."""


class ExploreRequest(Question):
    """Ask only for the exploration, over candidates and scores of your own."""

    item_ids: Ids
    """The candidates, each once."""
    scores: Annotated[list[Finite], Field(fail_fast=True)]
    """One per candidate, higher is better."""
    features: (
        Annotated[list[Annotated[list[Feature], Field(fail_fast=True)]], Field(fail_fast=True)] | None
    ) = None
    """One row per candidate, in the policy's column order, for policies that use features."""

    @field_validator("item_ids")
    @classmethod
    def _each_once(cls, item_ids: list[str]) -> list[str]:
        if len(set(item_ids)) != len(item_ids):
            [(twice, _)] = Counter(item_ids).most_common(1)
            raise PydanticCustomError("repeated_item", "Item {item} is listed twice", {"item": repr(twice)})
        return item_ids

    @field_validator("scores", "features")
    @classmethod
    def _one_per_candidate(cls, rows: list[Any] | None, info: ValidationInfo) -> list[Any] | None:
        candidates = info.data.get("item_ids")
        if candidates is not None and rows is not None and len(rows) != len(candidates):
            raise PydanticCustomError(
                "wrong_length",
                "There are {rows} {field} for {candidates} item ids; send one per item",
                {"rows": len(rows), "field": info.field_name, "candidates": len(candidates)},
            )
        return rows

    @field_validator("features")
    @classmethod
    def _one_width(cls, rows: list[list[float]] | None) -> list[list[float]] | None:
        if rows and len(set(map(len, rows))) != 1:
            raise PydanticCustomError("ragged", "All rows of features must have the same length")
        return rows


class ShownRequest(Message):
    """Say what was really displayed for a decision."""

    decision_id: Id
    items_in_order: Ids
    """From the first slot on; leave out what was not displayed."""


class RewardMessage(Message):
    """One reward, for a slot or an item of a decision."""

    decision_id: Id
    item_id: Id | None = None
    """The rewarded item; this or `slot` is needed."""
    slot: int | None = Field(default=None, ge=0, le=1_000_000)
    """The rewarded slot, from 0; this or `item_id` is needed."""
    kind: Name = "click"
    """One of the kinds that the settings give a weight."""
    value: Finite = 1.0
    """Its size, within the range that the settings allow."""
    reward_id: Id | None = None
    """Equal ids are one reward, however often sent; derived from decision, slot and kind if absent."""
    time: float | None = Field(default=None, ge=0, lt=_YEAR_10000, allow_inf_nan=False)
    """When it happened, in seconds since the Unix epoch; now if absent."""

    @model_validator(mode="after")
    def _names_its_slot(self) -> RewardMessage:
        if self.item_id is None and self.slot is None:
            raise PydanticCustomError("no_slot", "One of `item_id` and `slot` is needed")
        return self


class RewardsMessage(Message):
    """Several rewards; each is judged on its own."""

    rewards: list[RewardMessage]


class UnjudgedRewards(Message):
    """The envelope of several rewards, before each is looked at."""

    rewards: list[Any]


class KillSwitchRequest(Message):
    """Stop all exploration, or let it resume."""

    engaged: bool
    reason: Annotated[str, StringConstraints(max_length=1_000)] = ""
    """Why; needed to engage, for whoever finds exploration stopped."""

    @model_validator(mode="after")
    def _says_why(self) -> KillSwitchRequest:
        if self.engaged and not self.reason.strip():
            raise PydanticCustomError("no_reason", "A `reason` is needed to engage the kill switch")
        return self


def within_limit(model: type[Question], slots: int) -> type[Question]:
    """Return `model` with at most `slots` slots, which its schema states too."""
    return create_model(
        model.__name__,
        __base__=model,
        __doc__=model.__doc__,
        slots=(
            int,
            Field(
                default=min(10, slots),
                ge=0,
                le=slots,
                description=model.model_fields["slots"].description,
            ),
        ),
    )
