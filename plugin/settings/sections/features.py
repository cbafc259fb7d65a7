"""What features come from, and what tables must be to be learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import AwareDatetime, Field

from explorank.settings.sections.section import Name, Positive, Section, Share

CrossKind: TypeAlias = Literal["difference", "equal", "product", "ratio"]


class CrossSettings(Section):
    """A column that follows from two others, in training and serving alike."""

    words: ClassVar[str] = "a cross such as `{name: age_gap, kind: difference, of: [item_age, user_age]}`"
    """How messages and the reference describe it."""

    name: Name
    """What the ranker and `exploration.features` know the column by."""
    kind: CrossKind
    """`difference` is the first less the second; `ratio` the first by the second, missing where that is 0; `equal` is
    1 where both hold the same number or code and 0 where they differ; `product` is both multiplied."""
    of: Annotated[list[Name], Field(min_length=2, max_length=2)]
    """The two columns: of items, of users, `similarity`, or an earlier cross."""


class FeatureSettings(Section):
    """The Feast repository that user and item features come from."""

    repository: Path = Path("feature_repo")
    """The folder that holds `feature_store.yaml`, relative to the settings file."""
    user_service: Name = "user_v1"
    """The feature service of user features."""
    item_service: Name = "item_v1"
    """The feature service of item features."""
    history_service: Name | None = "user_history_v1"
    """The feature service of users' recent items; `null` where the repository keeps no histories."""
    positive_from: float = 1.0
    """An interaction of at least this value is liked: training learns to foresee those, and retrieval looks for
    more like them."""
    crosses: list[CrossSettings] = []  # noqa: RUF012 - pydantic copies defaults
    """Columns made of two others, for what neither says alone: how an item's price compares with what the user pays
    as a rule, say. A missing side makes the cross missing."""
    as_of: AwareDatetime | None = None
    """A fixed "now" for replaying historic data: the time to live of features is judged against it. `null` is
    the real time."""


class DataSettings(Section):
    """What tables must be to be learnt from. A row that breaks a rule is put aside with the reason, never dropped."""

    value_from: float | None = None
    """The least that an interaction's `value` may be; `null` is no limit."""
    value_to: float | None = None
    """The most that it may be; `null` is no limit."""
    ranges: dict[Name, tuple[float, float]] = {"users.age": (0.0, 120.0)}  # noqa: RUF012 - pydantic copies defaults
    """`items.COLUMN` or `users.COLUMN`: the least and the most that its numbers may be. Columns that a table lacks do
    not matter."""
    repeats: Literal["aside", "keep"] = "aside"
    """What becomes of interactions that equal an earlier one in user, item, time and value: `aside`, or `keep`, where
    times are so coarse that equal rows are several events."""
    burst_events: Positive = 120
    """Nobody interacts more often than this within `burst_s`; what does is put aside."""
    burst_s: Annotated[float, Field(gt=0)] = 60.0
    """The length of that window, in seconds."""
    day_events: Positive = 5_000
    """Whoever interacts more often than this within 24 hours is a bot: all of their interactions are put aside."""
    future_s: Annotated[float, Field(ge=0)] = 3_600.0
    """An interaction later than this many seconds from now is put aside; clocks may differ by a little."""
    most_aside: Share = 0.2
    """A table of which one rule would put aside more than this share is refused: it is rather read wrongly."""
