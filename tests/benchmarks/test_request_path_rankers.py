"""The benchmark of rankers within a request serves each of them. No speed is judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    written = tmp_path / "rankers.json"
    small = {"items": 400, "dim": 16, "users": 30, "features": 10, "trees": 3, "candidates": 40, "slots": 10}
    sizes = [argument for name, value in small.items() for argument in (f"--{name}", str(value))]
    chosen = ["--rankers", "lightgbm", "sequence"]
    options = ["--quick", "--online-store", "sqlite", "--folder", str(tmp_path), "--json", str(written)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.request_path.rankers", *chosen, *sizes, *options],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    times = json.loads(written.read_text())["us"]
    assert times.keys() == {"lightgbm", "sequence"}
    # Each request was whole, or the benchmark would have raised.
    assert all(min(each["score"]) > 0 for each in times.values())
    for name in times:
        assert f"\n| {name} " in done.stdout
