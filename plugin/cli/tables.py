"""Results that need a table."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from explorank.retrieval import Tuning

_HEADINGS: Final = ("index", "looked at", "recall", "µs per search", "bytes per vector", "")


def print_tuning(tuning: Tuning, console: Console) -> None:
    """Print what was tried for an index, and what was taken."""
    table = Table(
        title=f"recall of the {tuning.neighbours} nearest, and a single search on one thread",
        box=box.SIMPLE_HEAD,
    )
    for number, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if number in (0, len(_HEADINGS) - 1) else "right")
    for point in tuning.curve:
        table.add_row(
            point.kind,
            str(point.effort),
            f"{point.recall:.4f}",
            f"{point.us_per_search:,.0f}",
            f"{point.bytes_per_vector:,.0f}",
            "taken" if point == tuning.chosen else "",
        )
    console.print(table, highlight=False)
    if not tuning.reached:
        why = (
            "nothing tried reaches it" if tuning.complete else "time ran out: allow more with --tune-seconds"
        )
        console.print(
            f"[yellow]note[/yellow] recall {tuning.recall:.4f} instead of {tuning.wanted_recall:g}; {why}",
            highlight=False,
        )
