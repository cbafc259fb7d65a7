"""Readers beside a writer, for a few seconds: the same run as `python -m benchmarks.concurrency` for a minute."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


def readers_beside_a_writer(path: Path, seconds: int) -> dict[str, Any]:
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "benchmarks.concurrency",
            "--seconds",
            str(seconds),
            "--json",
            path,
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert path.exists(), ran.stdout + ran.stderr
    seen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert (ran.returncode == 0) == seen["sound"], ran.stdout + ran.stderr
    return seen


@pytest.mark.slow
def test_no_reader_sees_a_torn_state_or_waits_for_the_writer(tmp_path: Path) -> None:
    for seconds in (6, 30, 120):  # on a busy machine a reader may look too seldom in six
        seen = readers_beside_a_writer(tmp_path / f"{seconds}.json", seconds)
        readers = [*seen["threads"], *seen["processes"]]
        assert (len(seen["threads"]), len(seen["processes"])) == (8, 4)
        assert {(reader["torn"], reader["fell"]) for reader in readers} == {(0, 0)}
        assert seen["acknowledged"] == seen["folded"] > 0
        if seen["sound"]:
            break
    assert all(reader["states"] > 1 for reader in readers)
    assert all(reader["within_a_step"] > 0 for reader in seen["threads"])
