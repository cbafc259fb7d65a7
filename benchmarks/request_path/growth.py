"""How latency and memory grow with items, candidates, features and trees.

    python -m benchmarks.request_path.growth [--online-store redis] [--json PATH] [--plot PATH] [--quick]

One size varies at a time, the others are the usual ones. Each point is a run of `benchmarks.request_path` in a process
of its own, over HTTP too, from which the memory of a server is known. A million items take about an hour the first
time, most of it for the vectors, the indexes and the online store.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import environment, plotting
from benchmarks.report import tell_facts
from benchmarks.request_path.table import whole
from benchmarks.request_path.world import Size

_SWEEPS: Final[Mapping[str, Sequence[int]]] = {
    "items": (10_000, 100_000, 1_000_000),
    "candidates": (100, 500, 1_000, 5_000),
    "features": (10, 50, 500),
    "trees": (50, 300, 1_000),
}
_QUICK_SWEEPS: Final[Mapping[str, Sequence[int]]] = {"trees": (2, 4)}
_QUICK: Final = Size(items=400, dim=16, users=30, features=10, trees=3, candidates=40, slots=10)
_CONTESTANTS: Final = {"explorank": "Explorank", "floors": "floors", "naive, flat": "naive, flat"}
_COLOURS: Final = {
    "explorank": plotting.COLOURS["explorank"],
    "floors": plotting.GREY,
    "naive, flat": plotting.COLOURS["mabwiser"],
}


@dataclass(frozen=True)
class Point:
    """What was measured at one size; times in microseconds."""

    varied: str
    value: int
    p50_us: dict[str, float]
    """Of each contestant, in process."""
    p99_us: dict[str, float]
    shares: dict[str, float]
    """Of Explorank's time, by step, between 0 and 1."""
    memory_mb: dict[str, float]
    """Of each server, in megabytes."""


def run(size: Size, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one size; return what `benchmarks.request_path` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, "-m", "benchmarks.request_path", "--http", "--json", str(path)]
        command += [
            argument for name, number in asdict(size).items() for argument in (f"--{name}", str(number))
        ]
        command += ["--online-store", options.online_store, "--rounds", "60", "--requests", "20"]
        command += ["--quick"] if options.quick else []
        command += ["--folder", str(options.folder)] if options.folder else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ourselves
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def point(varied: str, value: int, results: Mapping[str, Any]) -> Point:
    """Return what was measured at one size, as a point of the line along which a size was varied."""
    steps = {
        name: {step: np.array(us) for step, us in results["in_process"]["us"][name].items()}
        for name in _CONTESTANTS
    }
    wholes = {name: whole(each) for name, each in steps.items()}
    medians = {step: float(np.median(us)) for step, us in steps["explorank"].items()}
    return Point(
        varied=varied,
        value=value,
        p50_us={name: float(np.median(us)) for name, us in wholes.items()},
        p99_us={name: float(np.percentile(us, 99)) for name, us in wholes.items()},
        shares={step: us / sum(medians.values()) for step, us in medians.items()},
        memory_mb={name: server["memory_mb"] for name, server in results["http"].items()},
    )


def tables(points: Sequence[Point]) -> Iterator[tuple[str, Table]]:
    """Yield a table for each size that was varied."""
    for varied in dict.fromkeys(point.varied for point in points):
        chosen = [point for point in points if point.varied == varied]
        table = Table(box=box.MARKDOWN)
        steps = list(chosen[0].shares)
        headings = ["Explorank p50 µs", "p99 µs", "floors p50 µs", "naive p50 µs"]
        for heading in (varied, *headings, *steps, "Explorank MB", "naive MB"):
            table.add_column(heading, justify="right")
        for point in chosen:
            times = (
                point.p50_us["explorank"],
                point.p99_us["explorank"],
                point.p50_us["floors"],
                point.p50_us["naive, flat"],
            )
            table.add_row(
                f"{point.value:,}",
                *(f"{us:,.0f}" for us in times),
                *(f"{point.shares[step]:.0%}" for step in steps),
                *(f"{point.memory_mb[server]:,.0f}" for server in ("Explorank", "naive, flat")),
            )
        yield varied, table


def draw(points: Sequence[Point], path: Path) -> None:
    """Write a panel for each size that was varied: medians, both axes logarithmic."""
    varied = list(dict.fromkeys(point.varied for point in points))
    with plotting.panels(path, [f"p50 in ms, by {each}" for each in varied]) as axes:
        for axis, each in zip(axes, varied, strict=True):
            chosen = [point for point in points if point.varied == each]
            for name, label in _CONTESTANTS.items():
                axis.plot(
                    [point.value for point in chosen],
                    [point.p50_us[name] / 1e3 for point in chosen],
                    color=_COLOURS[name],
                    marker="o",
                    markersize=3,
                    label=label,
                )
            axis.set_xscale("log")
            axis.set_yscale("log")
        axes[0].legend(frameon=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write and draw where asked to."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.request_path.growth", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--online-store", choices=("redis", "sqlite"), default="redis", help="Feast's, for both"
    )
    parser.add_argument("--only", choices=tuple(_SWEEPS), help="vary this size alone")
    parser.add_argument("--folder", type=Path, help="where data is kept between runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="also draw them, as SVG")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    console = Console(width=None if sys.stdout.isatty() else 180)
    tell_facts(environment.describe(), console)
    sweeps = _QUICK_SWEEPS if options.quick else _SWEEPS
    usual = _QUICK if options.quick else Size()
    wanted = [
        (varied, value, replace(usual, **{varied: value}))
        for varied, values in sweeps.items()
        if options.only in {None, varied}
        for value in values
    ]
    # The usual size lies on every line, and is measured once.
    measured = {size: run(size, options) for size in dict.fromkeys(size for _, _, size in wanted)}
    points = [point(varied, value, measured[size]) for varied, value, size in wanted]
    for varied, table in tables(points):
        console.print(f"\n### By {varied}", table, highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(point) for point in points], indent=1), encoding="utf-8")
    if options.plot is not None:
        draw(points, options.plot)


if __name__ == "__main__":
    main()
