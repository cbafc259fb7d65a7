"""The demo's report: one self-contained HTML file, and the same in the terminal."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from explorank import __version__
from explorank.demo import accuracy, simulation
from explorank.demo.result import DemoResult
from explorank.demo.simulation import SLOTS, Run

_COLOURS = ("#6b7280", "#d97706", "#2563eb", "#059669", "#7c3aed")


def write_html(result: DemoResult, path: Path) -> None:
    """Write the report to `path`; it needs no network and no other file."""
    from jinja2 import Environment  # noqa: PLC0415 - of the extra `train`, which serving does without

    template = (files("explorank.demo") / "report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    path.write_text(
        page.render(
            result=result,
            contestants=result.contestants(),
            accuracy_protocol=_protocol(accuracy.__doc__),
            simulation_protocol=_protocol(simulation.__doc__),
            accuracy_plot=_accuracy_plot(result),
            reward_plot=_curves(result.runs, "cumulative_reward", "liked items shown, minus no exploration"),
            coverage_plot=_curves(result.runs, "coverage", "share of rated items shown to anybody"),
            seeds=len({run.seed for run in result.runs}),
            slots=SLOTS,
            version=__version__,
        ),
        encoding="utf-8",
    )


def print_accuracy(result: DemoResult, console: Console) -> None:
    """Print the accuracy table."""
    table = Table(
        "ranking",
        "NDCG@10",
        "more than popular",
        "recall@10",
        title="What users liked later (mean and 95 % interval)",
    )
    for part in result.accuracy:
        table.add_row(part.name, str(part.ndcg), str(part.ndcg_gain), str(part.recall))
    console.print(table)
    console.print(
        f"{result.test_users} users, global split at {result.split}, whole catalogue but for what they knew.",
        style="dim",
    )


def print_simulation(result: DemoResult, console: Console) -> None:
    """Print the simulation's table."""
    table = Table(
        "policy", "liked items shown", "more than without", "coverage", title="Exploration loop, a simulation"
    )
    for contestant in result.contestants():
        table.add_row(
            contestant.name,
            f"{contestant.reward.mean:,.0f} [{contestant.reward.low:,.0f}, {contestant.reward.high:,.0f}]",
            f"{contestant.gain.mean:+,.0f} [{contestant.gain.low:+,.0f}, {contestant.gain.high:+,.0f}]",
            str(contestant.coverage),
        )
    console.print(table)
    console.print(
        f"{len({run.seed for run in result.runs})} seeds, {result.visitors} users, {len(result.runs[0].coverage):,} "
        f"visits of {SLOTS} slots; rewards are real ratings, visits are made up.",
        style="dim",
    )


def print_decision(result: DemoResult, console: Console) -> None:
    """Print the decision that is shown in full."""
    decision = result.decision
    if decision is None:
        return
    console.print(
        f"decision {decision.decision_id} for user {escape(decision.user_id)}: {decision.candidates} candidates, "
        f"policy {decision.policy} version {decision.policy_version}, mode {decision.mode}"
    )
    table = Table("slot", "item", "score", "baseline rank", "propensity", "method", "sources")
    for item in decision.items:
        table.add_row(
            str(item.slot),
            escape(item.text[:48]),
            f"{item.score:.3f}",
            "-" if item.baseline_rank is None else str(item.baseline_rank),
            f"{item.propensity:.4f}",
            item.method,
            ", ".join(item.sources),
        )
    console.print(table)


def _protocol(docstring: str | None) -> str:
    return (docstring or "").partition("Protocol:")[2].strip()


def _accuracy_plot(result: DemoResult) -> str:
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the extra `train`, which serving does without

    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots()
    for position, part in enumerate(result.accuracy):
        axes.barh(position, part.ndcg.mean, color=_COLOURS[position], height=0.6)
        axes.plot([part.ndcg.low, part.ndcg.high], [position, position], color="black", linewidth=1.5)
    axes.set_yticks(range(len(result.accuracy)), [part.name for part in result.accuracy])
    axes.invert_yaxis()
    axes.set_xlabel("NDCG@10, with 95 % interval over users")
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _curves(runs: list[Run], curve: str, label: str) -> str:
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the extra `train`, which serving does without

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(run.policy for run in runs))
    curves = {name: np.array([getattr(run, curve) for run in runs if run.policy == name]) for name in names}
    for position, (name, values) in enumerate(curves.items()):
        # Runs of one seed see the same visits, so their difference tells more than their sums.
        shown = values - curves[names[0]] if curve == "cumulative_reward" else values
        visits = np.arange(1, shown.shape[1] + 1)
        mean = shown.mean(axis=0)
        half = 1.96 * shown.std(axis=0, ddof=1) / np.sqrt(len(shown)) if len(shown) > 1 else 0 * mean
        axes.plot(visits, mean, color=_COLOURS[position], label=name)
        axes.fill_between(visits, mean - half, mean + half, color=_COLOURS[position], alpha=0.15, linewidth=0)
    axes.set_xlabel("visits")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _svg(figure: object) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})  # type: ignore[attr-defined] # matplotlib is optional
    text = buffer.getvalue()
    return text[text.index("<svg") :]
