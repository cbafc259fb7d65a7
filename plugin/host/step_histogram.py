"""How long the steps of requests take, in Prometheus form: a few microseconds a request, and shared by workers.

Beside `prometheus_client.Histogram`, which takes a lock twice per value and three times as long where processes
share it.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Final

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from explorank.timings import STEPS, WAIT

_BOUNDS_S: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
_BOUNDS_US: Final = tuple(bound * 1e6 for bound in _BOUNDS_S)
_NAMES: Final = (WAIT, *STEPS)
_WIDTH: Final = len(_BOUNDS_S) + 2
"""Per step: a count for each bound, one for what is beyond them, and the sum in microseconds."""
_BYTES: Final = 8 * _WIDTH * len(_NAMES)
_PREFIX: Final = "steps_"


class StepHistogram(Collector):
    """A histogram for each step; with a `folder`, over all processes that were given the same one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = Lock()
        self._cells = _cells(None if folder is None else folder / f"{_PREFIX}{os.getpid()}.bin")
        self._begins = {name: place * _WIDTH for place, name in enumerate(_NAMES)}

    def observe(self, timings_us: Mapping[str, float]) -> None:
        """Count the steps of one request."""
        cells, begins = self._cells, self._begins
        with self._lock:
            for step, spent_us in timings_us.items():
                begin = begins[step]
                cells[begin + bisect_left(_BOUNDS_US, spent_us)] += 1.0
                cells[begin + _WIDTH - 1] += spent_us

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield one family with all steps that were ever taken."""
        family = HistogramMetricFamily(
            "explorank_step_duration_seconds",
            "What the steps of a request for a slate take; `wait` is the time before the first.",
            labels=["step"],
        )
        cells = self._summed()
        for name, begin in self._begins.items():
            *counts, sum_us = cells[begin : begin + _WIDTH]
            if not any(counts):
                continue
            buckets, total = [], 0.0
            for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric([name], buckets, sum_us / 1e6)
        yield family

    def describe(self) -> list[HistogramMetricFamily]:
        """Return nothing, so that registering reads nothing."""
        return []

    def _summed(self) -> list[float]:
        if self._folder is None:
            return [*self._cells]
        files = [[*_cells(path)] for path in self._folder.glob(f"{_PREFIX}*.bin")]
        return [sum(values) for values in zip(*files, strict=True)]


def _cells(path: Path | None) -> memoryview[float]:
    """Return the cells as float64, in a file that others may map or in memory."""
    if path is None:
        return memoryview(bytearray(_BYTES)).cast("d")
    with path.open("a+b") as file:
        file.truncate(_BYTES)
        return memoryview(mmap.mmap(file.fileno(), _BYTES)).cast("d")
