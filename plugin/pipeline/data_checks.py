"""Looks over the tables that people bring, and sets aside the rows that would teach nonsense.

Rows that break a rule of `data_rules` are put aside with the reason, the rest is used: nothing is dropped silently, and
nothing that a rule does not name is changed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.pipeline.data_rules import Found, TableName, look_over_catalogue, look_over_interactions
from explorank.settings import DataSettings

_EXAMPLES: Final = 3
_MOST: Final = 0.5
"""A note on a greater share of a table than this is no detail of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Rows of one table that break one rule, or that somebody should know of."""

    table: TableName
    rule: str
    """What they are: `missing id`, `time travel`, …"""
    meaning: str
    """The rule in words, with its limits."""
    rows: int
    share: float
    """Of the table's rows."""
    examples: tuple[str, ...]
    """The first of them."""
    put_aside: bool
    """Whether they are not used; otherwise this is a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """What was found in all tables."""

    rows: Mapping[str, int]
    """Of each table, before anything is put aside."""
    findings: tuple[Finding, ...] = ()

    @property
    def put_aside(self) -> bool:
        """Whether some row is not used."""
        return any(finding.put_aside for finding in self.findings)

    @property
    def striking(self) -> bool:
        """Whether somebody should see it unasked: rows are not used, or a note concerns most of a table."""
        return self.put_aside or any(finding.share > _MOST for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-ready plain types."""
        return {"rows": dict(self.rows), "findings": [asdict(finding) for finding in self.findings]}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTables:
    """The tables less the rows that were put aside, and those."""

    interactions: pd.DataFrame | None
    items: pd.DataFrame | None
    users: pd.DataFrame | None
    report: DataReport
    aside: Mapping[TableName, pd.DataFrame] = field(default_factory=dict)
    """As they came, with `reason` and `row`, their number in the table, from 0."""


def can_check() -> bool:
    """Say whether what checks tables is installed."""
    return importlib.util.find_spec("pandera") is not None


def check_tables(
    rules: DataSettings,
    *,
    interactions: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    users: pd.DataFrame | None = None,
    now: float,
    positive_from: float | None = None,
) -> CheckedTables:
    """Return the tables without the rows that break a rule, those rows, and a report; needs `pandera`.

    `now` is the present, in seconds since the Unix epoch; `positive_from` the value from which an interaction is
    liked, where that matters. Raises `InvalidTable` where a column is missing, and
    `DataError` where a single rule would put aside more than `rules.most_aside` of a table, which is then rather read
    wrongly, or where pandera is not installed.
    """
    if not can_check():
        raise DataError(
            "Tables are checked by pandera, which is not installed. Run `pip install 'explorank[train]'`."
        )
    found: list[Found] = []
    if items is not None:
        found.append(look_over_catalogue("items", "item_id", items, rules))
    if users is not None:
        found.append(look_over_catalogue("users", "user_id", users, rules))
    if interactions is not None:
        found.append(look_over_interactions(interactions, items, users, rules, now, positive_from))
    kept: dict[str, pd.DataFrame] = {}
    aside: dict[TableName, pd.DataFrame] = {}
    findings: list[Finding] = []
    for one in found:
        of_table = list(_findings(one))
        _refuse_most(of_table, rules)
        findings.extend(of_table)
        kept[one.table], put = _split(one)
        if len(put):
            aside[one.table] = put
    return CheckedTables(
        interactions=kept.get("interactions"),
        items=kept.get("items"),
        users=kept.get("users"),
        report=DataReport(rows={one.table: len(one.frame) for one in found}, findings=tuple(findings)),
        aside=aside,
    )


def _findings(one: Found) -> list[Finding]:
    return [
        Finding(
            table=one.table,
            rule=rule,
            meaning=meaning,
            rows=int(rows.sum()),
            share=float(rows.mean()),
            examples=_examples(one.frame, rows),
            put_aside=put_aside,
        )
        for put_aside, rules in ((True, one.bad), (False, one.notes))
        for rule, (meaning, rows) in rules.items()
        if rows.any()
    ]


def _examples(frame: pd.DataFrame, rows: NDArray[np.bool_]) -> tuple[str, ...]:
    shown = frame.loc[:, list(frame.columns[:4])]
    return tuple(
        f"row {row}: " + ", ".join(f"{name} {shown.iloc[row][name]!s:.40}" for name in shown.columns)
        for row in np.flatnonzero(rows)[:_EXAMPLES].tolist()
    )


def _refuse_most(findings: Sequence[Finding], rules: DataSettings) -> None:
    worst = max((one for one in findings if one.put_aside), key=lambda one: one.share, default=None)
    if worst is not None and worst.share > rules.most_aside:
        raise DataError(
            f"{worst.rows:,} rows ({worst.share:.0%}) of the {worst.table} break the rule {worst.rule!r}: "
            f"{worst.meaning}. Such as {worst.examples[0]}. With so many the table is rather read wrongly than bad, so "
            "nothing was used. Correct it, change the rule under `data` in the settings, or raise `data.most_aside`."
        )


def _split(one: Found) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to use and those that are put aside, with their reasons."""
    reasons = np.full(len(one.frame), "", object)
    for rule, (_, rows) in one.bad.items():
        reasons[rows] = [f"{reason}; {rule}" if reason else rule for reason in reasons[rows]]
    bad = reasons != ""
    if not bad.any():
        return one.frame, one.frame.iloc[:0]
    put = one.frame[bad].assign(reason=reasons[bad], row=np.flatnonzero(bad))
    return one.frame[~bad].reset_index(drop=True), put.reset_index(drop=True)
