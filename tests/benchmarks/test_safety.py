"""The simulation of the limits runs, draws the same twice, and bounds as the limits themselves do."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from explorank.hooks.limits import BoundedMean

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def safety(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY)
    return importlib.import_module("benchmarks.safety")


def test_it_prints_tables_and_draws(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.safety", "--quick", "--plots", tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = done.stdout.splitlines()
    assert sum(row.startswith("| half as good") for row in rows) == 3
    assert sum(row.startswith("| alike") for row in rows) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"budget.svg", "stop.svg"}


def test_the_same_seed_gives_the_same_course(safety: ModuleType) -> None:
    one, other = (safety.budgeted(safety.steady(0.3), 0.8, runs=5, blocks=10) for _ in range(2))
    np.testing.assert_array_equal(one.spent, other.spent)


def test_its_bounds_are_those_of_the_limits(safety: ModuleType) -> None:
    """One value to a block: then both guess anew before each."""
    values = (np.random.default_rng(0).random(400) < 0.3).astype(float)
    sums, mean = safety.Sums(1), BoundedMean(0.0, 1.0).plus(values)
    for value in values:
        sums.add(np.ones(1), np.array([value]))
    assert sums.lower(0.01)[0] == pytest.approx(mean.lower_total(0.01))
    assert sums.upper(0.01)[0] == pytest.approx(mean.upper_total(0.01))
