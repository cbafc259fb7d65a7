"""Folders of shared counters go with the processes that used them, however those end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from explorank.metrics_folder import hold, metrics_folder

KEEPS = """
import sys, time
from pathlib import Path
from explorank.metrics_folder import metrics_folder
with metrics_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def grown_old(folder: Path) -> None:
    an_hour_ago = time.time() - 3_600
    os.utime(folder, (an_hour_ago, an_hour_ago))


def test_it_is_removed_at_the_end(tmp_path: Path) -> None:
    with metrics_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
    assert not any(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_at_the_next_start_and_no_sooner(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        (left / "counter_1.db").write_bytes(b"counts")
        grown_old(left)
        with metrics_folder(tmp_path):
            assert left.exists(), "its parent lives"
        worker = hold(left)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        grown_old(left)
        with metrics_folder(tmp_path):
            assert left.exists(), "a worker still has it"
        os.close(worker)
        with metrics_folder(tmp_path):
            assert not left.exists()


def test_what_is_young_or_not_known_to_be_ours_stays(tmp_path: Path) -> None:
    young, other, elsewhere = (tmp_path / f"explorank-metrics-{name}" for name in ("young", "other", "link"))
    for folder in (young, other):
        folder.mkdir()
    os.close(hold(young))
    (other / "notes.txt").write_text("nobody ever held it", encoding="utf-8")
    grown_old(other)
    target = tmp_path / "target"
    target.mkdir()
    os.close(hold(target))
    grown_old(target)
    elsewhere.symlink_to(target)
    with metrics_folder(tmp_path):
        pass
    assert young.exists()
    assert other.exists()
    assert target.exists()
