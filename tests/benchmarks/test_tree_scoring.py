"""The benchmark of tree scoring runs and compares like with like. No speed is judged."""

import json
import subprocess
import sys
from pathlib import Path


def test_it_runs(tmp_path: Path) -> None:
    written = tmp_path / "trees.json"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.tree_scoring", "--quick", "--json", written],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    kinds = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert kinds == ["features are", "numbers", "missing", "categories"]
    for result in json.loads(written.read_text())["results"]:
        low, high = result["forest_quartiles_us"]
        assert 0.0 < low <= result["forest_us"] <= high
        assert result["ratio"] > 0.0
