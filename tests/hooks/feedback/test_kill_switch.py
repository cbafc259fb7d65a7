"""The switch works between processes, and errs on the safe side."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from explorank.hooks.feedback import KillSwitch


def test_engage_and_release(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "run" / "kill")
    assert not switch.engaged
    assert switch.reason is None
    switch.engage("metric fell")
    assert switch.engaged
    assert switch.reason == "metric fell"
    switch.release()
    switch.release()
    assert not switch.engaged


def test_it_remembers_its_last_release(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "kill")
    switch.release()
    assert switch.released_at is None  # it was off
    before = time.time()
    switch.engage("metric fell")
    assert switch.released_at is None
    switch.release()
    assert before <= (KillSwitch(tmp_path / "kill").released_at or 0.0) <= time.time()


def test_another_process_engages_it(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "kill")
    program = (
        "import sys; from explorank.hooks.feedback import KillSwitch; KillSwitch(sys.argv[1]).engage('x')"
    )
    subprocess.run([sys.executable, "-c", program, str(switch.path)], check=True)
    assert switch.engaged


def test_touch_is_enough(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "kill")
    switch.path.touch()
    assert switch.engaged
    assert switch.reason == ""


def test_a_path_that_cannot_be_examined_counts_as_engaged(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / ("x" * 300))  # longer than a file name may be
    assert switch.engaged
    assert switch.reason
