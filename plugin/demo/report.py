"""The demo's report: one self-contained HTML file."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import numpy as np

from explorank import __version__
from explorank.demo import accuracy, simulation
from explorank.demo.result import DemoResult
from explorank.demo.simulation import SLOTS, Run
from explorank.demo.visitors import MIN_RATED

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
            reward_plot=result.runs
            and _curves(result.runs, "cumulative_reward", "liked items shown, minus no exploration"),
            coverage_plot=result.runs
            and _curves(result.runs, "coverage", "share of rated items shown to anybody"),
            min_rated=MIN_RATED,
            seeds=result.seeds,
            slots=SLOTS,
            version=__version__,
        ),
        encoding="utf-8",
    )


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
