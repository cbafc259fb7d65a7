"""The benchmark of the index runs and prints its tables. No speed is judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "benchmarks.index",
            "--quick",
            "--json",
            str(tmp_path / "out.json"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    figures = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert [len(figure["rows"]) for figure in figures] == [8, 1, 1, 2, 1]
    assert figures[1]["rows"][0]["recall, new queries"] == "1.0000"
    assert {row["processes"] for row in figures[3]["rows"]} == {"1", "3"}
