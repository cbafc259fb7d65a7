"""What a run in process may be told: the size of the world, what stands behind it, and how often to ask."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.request_path.world import Size, World

_DATA: Final = Path(__file__).parents[2] / "build" / "request_path"


def add_world_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each number of `Size`, and what both ways to measure in process know."""
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"by default {value}")
    parser.add_argument(
        "--online-store", choices=("redis", "sqlite"), default="redis", help="Feast's, for all"
    )
    parser.add_argument("--index", default="auto", help="Explorank's kind of index")
    parser.add_argument("--rounds", type=int, default=300, metavar="N", help="requests of each, in process")
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that it runs")
    parser.add_argument("--folder", type=Path, default=_DATA, help="where data is kept between runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")


def world_of(options: argparse.Namespace) -> World:
    """Return the world that was asked for."""
    return World(Size(**{name: getattr(options, name) for name in asdict(Size())}), options.folder)
