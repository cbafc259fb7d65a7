"""The demo's report in the terminal; it fits 80 columns."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from explorank.demo.result import DemoResult, Step
from explorank.demo.simulation import SLOTS

_INDENT = 2
_WIDEST_TEXT = 36


def print_title(result: DemoResult, console: Console) -> None:
    """Print what the demo runs on."""
    console.rule(f"Explorank on {escape(result.data_name)}")
    console.print(escape(result.data_note), highlight=False)


def print_step(step: Step, console: Console) -> None:
    """Print a stage that is done, how long it took, and what came of it."""
    console.print(
        f"[green]✓[/green] [bold]{escape(step.name)}[/bold] ({step.seconds:.1f} s)", highlight=False
    )
    _print_quietly(step.detail, console)


def print_accuracy(result: DemoResult, console: Console) -> None:
    """Print the accuracy table."""
    table = _table("What users liked later: mean, 95 % interval over users")
    table.add_column("ranking")
    for heading in ("NDCG@10", "more than popular", "recall@10"):
        table.add_column(heading, justify="right")
    base = result.accuracy[0].name
    for part in result.accuracy:
        gain = "" if part.name == base else f"{part.ndcg_gain:+}"
        table.add_row(part.name, str(part.ndcg), gain, f"{part.recall.mean:.3f}")
    console.print(table)
    _print_quietly(
        f"{result.test_users} users; global split at {result.split}; the whole catalogue is ranked but for what "
        "they knew.",
        console,
    )


def print_simulation(result: DemoResult, console: Console) -> None:
    """Print the simulation's table, where there was a simulation."""
    contestants = result.contestants()
    if not contestants:
        return
    table = _table("Exploration loop, a simulation: mean, 95 % interval over seeds")
    table.add_column("policy")
    for heading in ("liked items shown", "more than without", "coverage"):
        table.add_column(heading, justify="right")
    for contestant in contestants:
        gain = "" if contestant.name == contestants[0].name else f"{contestant.gain:+z,.0f}"
        table.add_row(
            contestant.name, f"{contestant.reward.mean:,.0f}", gain, f"{contestant.coverage.mean:.3f}"
        )
    console.print(table)
    _print_quietly(
        f"{result.seeds} seeds, {result.visitors} users, {len(result.runs[0].coverage):,} visits of {SLOTS} slots; "
        "rewards are real ratings, visits are made up.",
        console,
    )


def print_decision(result: DemoResult, console: Console) -> None:
    """Print the decision that is shown in full."""
    decision = result.decision
    if decision is None:
        return
    table = _table(f"Decision {decision.decision_id} for user {escape(decision.user_id)}")
    table.add_column("slot", justify="right")
    table.add_column("item, and what found it")
    for heading in ("score", "rank", "propensity"):
        table.add_column(heading, justify="right")
    table.add_column("method")
    for item in decision.items:
        table.add_row(
            str(item.slot),
            f"{escape(_clipped(item.text))}\n[dim]{escape(_clipped(', '.join(item.sources)))}[/dim]",
            f"{item.score:.3f}",
            str(item.score_rank),
            f"{item.propensity:.4f}",
            item.method,
        )
    console.print(table)
    explored = next((item for item in decision.items if item.method != "score"), None)
    if explored is not None and explored.features:
        seen = ", ".join(f"{name} {value:.2f}" for name, value in explored.features.items())
        _print_quietly(f"Slot {explored.slot} as the policy saw it: {seen}.", console)
    _print_quietly(
        f"{decision.candidates} candidates, ranked by score; policy {decision.policy} version "
        f"{decision.policy_version}, mode {decision.mode}.",
        console,
    )


def print_end(result: DemoResult, path: Path, console: Console) -> None:
    """Print where the report lies, and how to go on."""
    total = sum(step.seconds for step in result.steps)
    console.print(f"[bold]Report:[/bold] {escape(str(path))} ({total:.0f} s in all)", highlight=False)
    console.print("Serve it, and ask it from another terminal:")
    for command in result.commands:
        console.print(f"  {escape(command)}", highlight=False, soft_wrap=True)


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )


def _print_quietly(text: str, console: Console) -> None:
    console.print(Padding(f"[dim]{escape(text)}[/dim]", (0, 0, 0, _INDENT), expand=False), highlight=False)


def _clipped(text: str) -> str:
    return text if len(text) <= _WIDEST_TEXT else f"{text[: _WIDEST_TEXT - 1].rstrip()}…"
