"""The benchmark of the limits runs and prints its tables. No speed is judged."""

import subprocess
import sys
from pathlib import Path


def test_it_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.limits", "--quick"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[1:-3] == [
        "who asks",
        "reserve slots, and keep the decision",
        "refuse who has used up the day",
        "look for a kept decision",
        "hide 5 rejected among 300",
        "look for items at rest",
        "rule on a column, 300",
        "rule on impressions, 300",
        "count 10 items as shown",
    ]
    assert rows[-2:] == ["pause of 0 ms", "pause of 5 ms"]
