"""Where commands print: results on standard output, errors and progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)

output = Console()
errors = Console(stderr=True)

Report = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


class _Done(ProgressColumn):
    """How much is done, where anybody knows how much there is."""

    def render(self, task: Task) -> str:
        return "" if task.total is None else f"{task.completed:,.0f}/{task.total:,.0f}"


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show a progress bar while the block runs; yields the function to report to.

    Where standard error is no terminal, nothing is shown.
    """
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), _Done(), TimeElapsedColumn(),
    )  # fmt: skip
    # Bound to the very file, so that the bar goes on while Feast's output is redirected.
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
