"""The benchmark of what adapters have seen runs on a small part of the data. No accuracy is judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    written = tmp_path / "found.json"
    asked = ["--quick", "--seeds", "1", "--json", str(written)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.adapter_look_ahead", *asked],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows == [
        "the vectors have seen",
        *(seen for seen in ("nothing", "80 %", "60 %") for _ in range(2)),
    ]
    results = json.loads(written.read_text())["results"]
    for one in results:
        assert 0.0 < one["card"]["low"] <= one["card"]["mean"] <= one["card"]["high"] <= 1.0
    after, everything = (
        [one for one in results if one["requests"] == requests] for requests in ("after 60 %", "all")
    )
    for fewer, more in zip(after, everything, strict=True):
        assert fewer["trained_on"] < more["trained_on"]
        # The requests afterwards, and with them the column alone, are the same whatever the ranker learns from.
        assert fewer["alone_afterwards"] == more["alone_afterwards"]
    assert results[0]["beyond"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert results[2]["less_than_all"]["mean"] == 0.0
