"""`explorank serve --workers 2`: processes that share a port, a folder and their counters."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import httpx
import pytest
import yaml

pytestmark = pytest.mark.slow

SETTINGS = {
    "version": 1,
    "ranker": None,
    "retrieval": {"retrievers": []},
    "exploration": {"mode": "live", "holdout": 0.0, "policy": {"use": "epsilon_greedy", "epsilon": 0.5}},
}
QUESTION = {"item_ids": ["a", "b", "c"], "scores": [3, 2, 1], "slots": 2, "user_id": "u"}


class Server:
    """A running parent, and what it and its workers say."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "explorank", "serve", "--port", "0", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "NO_COLOR": "1"},
        )
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as said:
            self.said.extend(iter(said.readline, ""))

    def workers(self) -> list[int]:
        """Return the process ids of the workers that said that they are up, in that order."""
        found = re.findall(r"Started server process \[(\d+)\]", "".join(self.said))
        return [int(pid) for pid in found]

    @property
    def url(self) -> str:
        (found,) = re.findall(r"running on (http://\S+)", "".join(self.said))
        return found

    def until(self, condition: Callable[[], object]) -> None:
        give_up_at = time.monotonic() + 300
        while not condition():
            assert self.process.poll() is None, "".join(self.said)
            assert time.monotonic() < give_up_at, "".join(self.said)
            time.sleep(0.05)

    def end(self) -> None:
        """Make sure that nothing stays behind, whatever a test came to."""
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if not self.left_nobody():
            for pid in self.workers():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._reader.join()

    def left_nobody(self) -> bool:
        """Wait until what is said ends, as it does once nobody is left to say anything; whether it did."""
        self._reader.join(timeout=60)
        return not self._reader.is_alive()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=300)
        self._reader.join()
        return code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "explorank.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    running = Server(folder, "--workers", "2")
    try:
        running.until(lambda: "".join(running.said).count("Application startup complete") >= 2)
        yield running
    finally:
        running.end()


def ask(url: str) -> dict[str, object]:
    """Ask over a connection of its own, which either worker may take."""
    answer = httpx.post(f"{url}/v1/explore", json=QUESTION, timeout=120.0)
    assert answer.status_code == 200, answer.text
    told: dict[str, object] = answer.json()
    return told


def counted(url: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=120.0).text
    return sum(float(count) for count in re.findall(r"^explorank_decisions_total\{.*\} (\S+)$", text, re.M))


def steps_counted(url: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=120.0).text
    (count,) = re.findall(r'^explorank_step_duration_seconds_count\{step="explore"\} (\S+)$', text, re.M)
    return float(count)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_workers_share_port_log_and_counters_and_end_together(server: Server, folder: Path) -> None:
    for pid in server.workers():
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"OMP_NUM_THREADS=1" in environment
        assert b"OPENBLAS_NUM_THREADS=1" in environment

    decisions = [ask(server.url) for _ in range(40)]
    segments = sorted(path.name for path in (folder / ".explorank" / "log").glob("segment-*.db"))
    assert segments == ["segment-0.db", "segment-1.db"]
    # Whichever is asked knows every decision and counts for all.
    for decision in decisions[:10]:
        reward = {"decision_id": decision["decision_id"], "slot": 0}
        answer = httpx.post(f"{server.url}/v1/rewards", json=reward, timeout=120.0)
        assert answer.json()["accepted"] == 1
    assert {counted(server.url) for _ in range(6)} == {40.0}
    assert {steps_counted(server.url) for _ in range(6)} == {40.0}

    # One that dies is replaced, and what it counted stays.
    first = server.workers()[0]
    os.kill(first, signal.SIGKILL)
    server.until(lambda: "".join(server.said).count("Application startup complete") >= 3)
    assert ask(server.url)["logged"]
    assert counted(server.url) == 41.0

    assert server.stop() == 0
    assert all(gone(pid) for pid in server.workers())
    assert "Traceback" not in "".join(server.said)


def test_workers_whose_parent_is_killed_end_and_give_the_port_back(server: Server) -> None:
    assert ask(server.url)["logged"]
    host, _, port = server.url.removeprefix("http://").partition(":")
    server.process.kill()
    assert server.left_nobody()
    with socket.socket() as another:
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        another.bind((host, int(port)))
        another.listen()
    # They were told to end, and did: the stage was closed, not cut off.
    assert "".join(server.said).count("Application shutdown complete") == 2


def test_workers_that_cannot_start_end_the_parent_with_the_reason(folder: Path) -> None:
    settings = {**SETTINGS, "exploration": {"policy": {"use": "epsilon_greedi"}}}
    (folder / "explorank.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    server = Server(folder, "--workers", "2")
    try:
        assert server.process.wait(timeout=300) != 0
    finally:
        server.end()
    said = "".join(server.said)
    assert "epsilon_greedy" in said
    assert "Traceback" not in said
