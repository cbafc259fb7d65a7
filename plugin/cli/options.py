"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Config: TypeAlias = Annotated[
    Path, typer.Option("--config", "-c", help="The settings file.", envvar="EXPLORANK_CONFIG")
]
Interactions: TypeAlias = Annotated[
    Path, typer.Option(help="Parquet or CSV with user_id, item_id, timestamp and, if there is one, value.")
]
OptionalInteractions: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Parquet or CSV with user_id, item_id, timestamp and, if there is one, value."),
]
Items: TypeAlias = Annotated[
    Path,
    typer.Option(help="Parquet or CSV with item_id and text (or title); further columns become features."),
]
OptionalItems: TypeAlias = Annotated[
    Path | None, typer.Option(help="Parquet or CSV with item_id, and what else is known of items.")
]
Users: TypeAlias = Annotated[
    Path | None, typer.Option(help="Parquet or CSV with user_id; further columns become features.")
]

DEFAULT_CONFIG = Path("explorank.yaml")
