"""Where commands print: results on standard output, errors and progress on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

output = Console()
errors = Console(stderr=True)

Report = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show a progress bar while the block runs; yields the function to report to."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
