"""The benchmark of encoders runs on a small part of the data. No accuracy is judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    written = tmp_path / "encoders.json"
    rows = ["popularity", "untouched", "MLP head", "MLP head, first 64", "gated fusion with graph"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.encoders", "--quick", "--json", written, "--only", *rows],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    names = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert names == ["", *rows]
    results = {one["name"]: one for one in json.loads(written.read_text())["results"]}
    assert results["popularity"]["cold_recall"]["mean"] == 0.0
    assert results["MLP head, first 64"]["dims"] == 64
    assert results["MLP head"]["seeds"] == 3
    for one in results.values():
        assert (
            0.0
            <= one["warm_recall"]["low"]
            <= one["warm_recall"]["mean"]
            <= one["warm_recall"]["high"]
            <= 1.0
        )
