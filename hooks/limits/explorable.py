"""Which candidates may be explored: a few rules over their columns, answered for all of them at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.types import BoolArray, Ids, IndexArray, RankingBatch, RankingRequest

AGE_COLUMN: Final = "item_first_event"
"""The column with an item's age in days: the time of its first event, as the feature repository serves it."""


class Impressions(Protocol):
    """Knows how often each item was shown; the ledger does (`Exposures`)."""

    def times_shown(self, item_ids: Ids) -> IndexArray:
        """Return how often each item was shown, (n,) int64."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Conditions that a candidate fulfils together; those left out ask for nothing.

    Raises `InvalidPolicy` for a rule without a condition, or with one that cannot be met.
    """

    new_within_days: float | None = None
    """The item is at most so many days old. One without an age had no event yet, and is the newest of all."""
    uncertainty_from: float | None = None
    """The ranker's uncertainty is at least this."""
    impressions_below: int | None = None
    """The item was shown fewer times than this."""
    column: str | None = None
    """A column of the candidates, which `at_least` and `below` refer to."""
    at_least: float | None = None
    """The column's value is this or more."""
    below: float | None = None
    """The column's value is less than this."""

    def __post_init__(self) -> None:
        """Check that the rule says something."""
        bounded = self.at_least is not None or self.below is not None
        if (self.column is not None) != bounded:
            raise InvalidPolicy(
                "A rule names a `column` together with `at_least`, `below` or both; the one without the other "
                f"says nothing. Given: {self}."
            )
        if not bounded and self.columns_read(AGE_COLUMN) == () and self.impressions_below is None:
            raise InvalidPolicy(
                "A rule without a condition would let every candidate be explored. Give it `new_within_days`, "
                "`uncertainty_from`, `impressions_below`, or a `column` with `at_least` or `below`."
            )
        for name in ("new_within_days", "uncertainty_from", "at_least", "below"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InvalidPolicy(f"`{name}` of a rule is {value!r}; it must be finite.")

    def columns_read(self, age_column: str) -> tuple[str, ...]:
        """Return the columns that the rule reads."""
        read = (
            age_column if self.new_within_days is not None else None,
            "uncertainty" if self.uncertainty_from is not None else None,
            self.column,
        )
        return tuple(name for name in read if name is not None)


class Explorable:
    """Any of the rules makes a candidate explorable; within a rule all conditions must hold.

    Without rules everybody is. A missing value (NaN) fulfils no condition, except that of newness. Nor does a
    column that the candidates lack: what cannot be checked is not explored, and `on_missing` is told its name.

        mask = Explorable([Rule(new_within_days=14), Rule(column="popularity", below=0.1)]).mask(batch, request)
        build_slate(policy, state, batch, 10, request=request, explorable=mask)
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        age_column: str = AGE_COLUMN,
        impressions: Impressions | None = None,
        on_missing: Callable[[str], None] | None = None,
    ) -> None:
        """Take the rules; raise `InvalidPolicy` where one asks for impressions and none are counted."""
        self.rules = tuple(rules)
        self._age_column = age_column
        self._impressions = impressions
        self._on_missing = on_missing
        if impressions is None and any(rule.impressions_below is not None for rule in rules):
            raise InvalidPolicy(
                "A rule asks for `impressions_below` and nobody counts impressions. Pass `impressions`, such as "
                "the ledger (`SqliteExposures(path, counts_items=True)`)."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rules read, each once."""
        read = (name for rule in self.rules for name in rule.columns_read(self._age_column))
        return tuple(dict.fromkeys(read))

    def mask(self, batch: RankingBatch, request: RankingRequest | None = None) -> BoolArray:  # noqa: ARG002 - rules on the request may follow
        """Return which candidates may be explored, (n,) bool."""
        if not self.rules:
            return np.ones(len(batch), np.bool_)
        columns = {name: self._column(batch, name) for name in self.columns}
        explorable = np.zeros(len(batch), np.bool_)
        for rule in self.rules:
            explorable |= self._fulfilled(rule, batch, columns)
        return explorable

    def _fulfilled(
        self, rule: Rule, batch: RankingBatch, columns: dict[str, NDArray[Any] | None]
    ) -> BoolArray:
        fulfilled = np.ones(len(batch), np.bool_)
        nothing = np.zeros(len(batch), np.bool_)
        if rule.new_within_days is not None:
            age = columns[self._age_column]
            fulfilled &= nothing if age is None else ~(age > rule.new_within_days)
        if rule.uncertainty_from is not None:
            uncertainty = columns["uncertainty"]
            fulfilled &= nothing if uncertainty is None else uncertainty >= rule.uncertainty_from
        if rule.column is not None:
            values = columns[rule.column]
            if values is None:
                return nothing
            if rule.at_least is not None:
                fulfilled &= values >= rule.at_least
            if rule.below is not None:
                fulfilled &= values < rule.below
        if rule.impressions_below is not None and self._impressions is not None:
            fulfilled &= self._impressions.times_shown(batch.item_ids) < rule.impressions_below
        return fulfilled

    def _column(self, batch: RankingBatch, name: str) -> NDArray[Any] | None:
        """Return a column of numbers, or `None` where the candidates have none of that name."""
        found = batch.uncertainty if name == "uncertainty" else None
        if found is None and (found := batch.columns.get(name)) is None:
            self._tell(name)
            return None
        values = np.asarray(found)
        if values.dtype.kind not in "biuf":
            self._tell(name)
            return None
        return values

    def _tell(self, name: str) -> None:
        if self._on_missing is not None:
            self._on_missing(name)
