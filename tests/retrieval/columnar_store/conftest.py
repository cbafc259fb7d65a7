"""What the tests of the columnar store share."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def make(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The makers of small repositories."""
    return module_at(Path(__file__).with_name("repositories.py"))


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """The port of an empty Redis server of the test's own."""
    redis = pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    for _ in range(5):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            # Somebody else may have taken the port since; their server is not ours to use.
            if answering_process(redis, port) == server.pid:
                yield port
                return
        finally:
            server.terminate()
            server.wait()
    pytest.fail("no port for a Redis server")


def answering_process(redis: ModuleType, port: int) -> int | None:
    """Return the process id of the Redis server at a port, once there is one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.exceptions.ConnectionError), redis.Redis(port=port) as client:
            return int(client.info("server")["process_id"])
        time.sleep(0.02)
    return None
