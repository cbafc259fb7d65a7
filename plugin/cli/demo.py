"""The command that shows the whole path on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from explorank.cli.console import output


def demo(
    interactions: Annotated[
        Path | None,
        typer.Option(
            help="Your own: parquet or CSV with user_id, item_id, timestamp and, if there is one, value."
        ),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="Your own: item_id and text (or title); further columns become features."),
    ] = None,
    users: Annotated[
        Path | None, typer.Option(help="Your own: user_id; further columns become features.")
    ] = None,
    positive_from: Annotated[
        float | None,
        typer.Option(help="An interaction of at least this value is liked; the median by default."),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where to work; it can be served afterwards.")] = Path("demo"),
    seeds: Annotated[int, typer.Option(min=2, help="Repetitions of the simulated exploration loop.")] = 5,
) -> None:
    """Run the main job on MovieLens-100K, or on your own data of that shape."""
    from explorank.demo.data import movielens, own_data
    from explorank.demo.run import Demo
    from explorank.errors import DataError

    if (interactions is None) != (items is None):
        raise DataError(
            "Own data needs both --interactions and --items; name both, or neither for MovieLens-100K."
        )
    data = (
        movielens()
        if interactions is None or items is None
        else own_data(interactions, items, users, positive_from)
    )
    Demo(data, folder, output, seeds=seeds).run()
