"""Readers beside a writer, for a few seconds: the same run as `python -m benchmarks.concurrency` for a minute."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_reader_sees_a_torn_state_or_waits_for_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.concurrency", "--seconds", "6", "--json", path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen = json.loads(path.read_text(encoding="utf-8"))
    assert (len(seen["threads"]), len(seen["processes"])) == (8, 4)
    for reader in (*seen["threads"], *seen["processes"]):
        assert (reader["torn"], reader["fell"]) == (0, 0)
        assert reader["states"] > 1
    assert all(reader["within_a_step"] > 0 for reader in seen["threads"])
    assert seen["acknowledged"] == seen["folded"] > 0
