"""What was measured, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.report import markdown_table

STEPS: Final = ("retrieve", "features", "score", "explore", "serialise", "guards", "log", "rest")
Steps = Mapping[str, NDArray[np.float64]]
"""Seconds of each request by step, (requests,)."""


def steps_table(floors: Steps, ours: Steps, peers: Mapping[str, Steps]) -> Table:
    """Return medians by step, beside the floor, and how much slower or faster each is."""
    headings = ["step", "floor µs", "Explorank µs", "times the floor"]
    for name in peers:
        headings += [f"{name} µs", "times Explorank"]
    table = markdown_table(headings)
    for step in STEPS:
        floor, own = _median(floors, step), _median(ours, step)
        cells = [step, _number(floor), _number(own), _ratio(own, floor)]
        for peer in peers.values():
            theirs = _median(peer, step)
            cells += [_number(theirs), _ratio(theirs, own)]
        table.add_row(*cells)
    everything = [whole(each) for each in (floors, ours, *peers.values())]
    for name, share in (("whole, p50", 50), ("whole, p99", 99)):
        floor, own, *others = (float(np.percentile(each, share)) for each in everything)
        cells = [name, _number(floor), _number(own), _ratio(own, floor)]
        for theirs in others:
            cells += [_number(theirs), _ratio(theirs, own)]
        table.add_row(*cells)
    return table


def whole(steps: Steps) -> NDArray[np.float64]:
    """Return the seconds of each request, (requests,)."""
    total: NDArray[np.float64] = np.sum(list(steps.values()), axis=0)
    return total


@dataclass(frozen=True)
class ServerRow:
    """What was measured of one server."""

    name: str
    alone: NDArray[np.float64]
    """Seconds of requests that came one after another."""
    loaded: NDArray[np.float64]
    """Seconds of requests that came from 16 clients at once."""
    requests_per_s: float
    """How many of the latter were answered."""
    memory_mb: float


def http_table(rows: Sequence[ServerRow], in_process: NDArray[np.float64]) -> Table:
    """Return latencies alone and under load, requests per second and memory of each server.

    `in_process` holds the seconds of a stage without a server, which stands first.
    """
    headings = ["server", "alone: p50 µs", "p99 µs", "times in process", "16 clients: p50 µs", "p99 µs"]
    table = markdown_table([*headings, "requests/s", "memory MB"])
    own = float(np.median(in_process))
    table.add_row("Explorank, in process", *_quantiles(in_process))
    for row in rows:
        alone, loaded = _quantiles(row.alone), _quantiles(row.loaded)
        ratio = _ratio(float(np.median(row.alone)), own)
        rest = (f"{row.requests_per_s:,.0f}", f"{row.memory_mb:,.0f}")
        table.add_row(row.name, *alone, ratio, *loaded, *rest)
    return table


def _median(steps: Steps, step: str) -> float:
    return float(np.median(steps[step])) if step in steps else 0.0


def _quantiles(seconds: NDArray[np.float64]) -> tuple[str, str]:
    """Return the median and the 99th percentile."""
    return _number(float(np.median(seconds))), _number(float(np.percentile(seconds, 99)))


def _number(seconds: float) -> str:
    us = seconds * 1e6
    return "" if us == 0.0 else f"{us:,.0f}" if us >= 100.0 else f"{us:.3g}"


def _ratio(above: float, below: float) -> str:
    return f"{above / below:.2f}" if above and below else ""
