"""The benchmark of the online store runs and prints its tables. No speed is judged."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.online_store", "--quick"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert {"to_dict", "to_df", "to_arrow", "by key", "by known position", "SQLite"} <= set(rows)
    assert "feast serve: 5,100 of 5,100 values equal" in done.stdout
