"""Results that need a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from explorank.cli.console import output

if TYPE_CHECKING:
    from explorank.pipeline.data_checks import DataReport
    from explorank.pipeline.quarantine import UsableTables
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


def print_report(report: DataReport, console: Console) -> None:
    """Print what was found in tables, rule by rule."""
    counts = ", ".join(f"{rows:,} {table}" for table, rows in report.rows.items())
    if not report.findings:
        console.print(f"{counts}: every row keeps every rule")
        return
    console.print(counts, highlight=False)
    for one in report.findings:
        verdict = "[red]put aside[/red]" if one.put_aside else "[yellow]note[/yellow]"
        rows = f"{one.rows:,} of {report.rows[one.table]:,} {one.table} ({one.share:.2%})"
        console.print(
            f"{verdict} [bold]{escape(one.rule)}[/bold], {rows}: {escape(one.meaning)}", highlight=False
        )
        for example in one.examples:
            console.print(Padding(f"[dim]{escape(example)}[/dim]", (0, 0, 0, 4)), highlight=False)


def tell_of_checks(tables: UsableTables) -> None:
    """Print what was put aside of the tables and where it lies, or that most of one is odd; else nothing."""
    if tables.unchecked:
        output.print(f"[yellow]note[/yellow] {escape(tables.unchecked)}")
    if tables.report is not None and tables.report.striking:
        print_report(tables.report, output)
    for file in tables.files:
        output.print(f"put aside: {file}", markup=False)
