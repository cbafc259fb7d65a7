"""Keeps the rows that were put aside, with the reasons, where somebody can look at them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa

from explorank.hooks.arrays import write_atomic
from explorank.pipeline.data_checks import CheckedTables, DataReport, can_check, check_tables
from explorank.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableTables:
    """Tables less what was put aside of them."""

    interactions: pd.DataFrame | None
    items: pd.DataFrame | None
    users: pd.DataFrame | None
    report: DataReport | None
    """`None` where nothing was checked."""
    files: tuple[Path, ...] = ()
    """Where the rest lies, and the report."""
    unchecked: str = ""
    """Why nothing was checked; empty where it was."""


def usable_tables(
    settings: Settings,
    *,
    interactions: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    users: pd.DataFrame | None = None,
) -> UsableTables:
    """Return the tables to learn from, by the rules of `data`; the rest goes to `quarantine` in the settings' folder.

    Without pandera the tables are used as they are, and the answer says so: what cannot be read at all is refused
    later. Raises what `check_tables` does.
    """
    if not can_check():
        return UsableTables(
            interactions=interactions,
            items=items,
            users=users,
            report=None,
            unchecked="the tables were not checked for bad rows: pandera is not installed (`pip install "
            "'explorank[train]'`)",
        )
    checked = check_tables(
        settings.data,
        interactions=interactions,
        items=items,
        users=users,
        now=time.time(),
        positive_from=None if settings.features is None else settings.features.positive_from,
    )
    files = keep_aside(checked, settings.folder_path / "quarantine")
    return UsableTables(
        interactions=checked.interactions,
        items=checked.items,
        users=checked.users,
        report=checked.report,
        files=tuple(files),
    )


def keep_aside(checked: CheckedTables, folder: Path) -> list[Path]:
    """Write what was put aside of each table, and the report, into `folder`; return the files, none where all is used.

    A column of several types, which parquet cannot hold, is written as text.
    """
    if not checked.aside:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    files = []
    for table, rows in checked.aside.items():
        file = folder / f"{table}-{stamp}.parquet"
        _storable(rows).to_parquet(file)
        files.append(file)
    report = folder / f"report-{stamp}.json"
    write_atomic(report, json.dumps(checked.report.to_dict(), indent=1, ensure_ascii=False).encode())
    return [*files, report]


def _storable(rows: pd.DataFrame) -> pd.DataFrame:
    try:
        pa.Table.from_pandas(rows)
    except pa.ArrowException:
        mixed = [name for name in rows.columns if rows[name].dtype == object]
        return rows.assign(**{name: rows[name].map(_as_text) for name in mixed})
    return rows


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)
