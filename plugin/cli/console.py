"""Where commands print: results on standard output, errors and progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

output = Console()
errors = Console(stderr=True)


def loading() -> AbstractContextManager[object]:
    """Say that a stage is being loaded, and why that may take long; nothing where standard error is no terminal."""
    return errors.status("loading; the first time on a machine, loops are compiled, which takes a minute")


class Report:
    """Tells a progress bar how things stand."""

    def __init__(self, bars: Progress, task: TaskID, title: str) -> None:
        self._bars = bars
        self._task = task
        self._title = title

    def __call__(self, done: int, total: int) -> None:
        """Say how much is done and how much there is."""
        self._bars.update(self._task, completed=done, total=total)

    def measured(self, step: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002 - the bar counts steps
        """Show the latest numbers beside the title."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._bars.update(self._task, description=f"{self._title}  {shown}")

    def begin(self, title: str) -> None:
        """Say that something else begins, of which nobody knows how much there is."""
        self._title = title
        self._bars.reset(self._task, total=None, description=title)


class _Done(ProgressColumn):
    """How much is done, where anybody knows how much there is."""

    def render(self, task: Task) -> str:
        return "" if task.total is None else f"{task.completed:,.0f}/{task.total:,.0f}"


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show a progress bar while the block runs; yields what to report to.

    Where standard error is no terminal, nothing is shown.
    """
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), _Done(), TimeElapsedColumn(),
    )  # fmt: skip
    # Bound to the very file, so that the bar goes on while Feast's output is redirected.
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(title, total=None)
        yield Report(bars, task, title)
