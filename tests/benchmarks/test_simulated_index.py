"""The benchmark of a made-up index runs and tells of what it made. No speed is judged."""

import json
import subprocess
import sys
from pathlib import Path


def test_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.simulated_index", "--quick", "--json", str(out)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    [result] = json.loads(out.read_text())["results"]
    assert result["items"] == 50_000
    assert result["lists"] == 1_024
    assert [lists for lists, _, _ in result["searched"]] == [112, 224, 448]
    assert all(0 < median <= late for _, median, late in result["searched"])
