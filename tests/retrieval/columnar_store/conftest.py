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
    with redis_server(tmp_path) as port:
        yield port


@pytest.fixture
def redis_cluster_port(tmp_path: Path) -> Iterator[int]:
    """The port of an empty Redis cluster of one server."""
    redis = pytest.importorskip("redis")
    # It takes a second port, ten thousand higher, where there is one.
    with redis_server(tmp_path, "--cluster-enabled", "yes", highest_port=55_000) as port:
        with redis.Redis(port=port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            deadline = time.monotonic() + 20
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline, "the cluster has not come up"
                time.sleep(0.02)
        yield port


@contextlib.contextmanager
def redis_server(folder: Path, *options: str, highest_port: int = 65_535) -> Iterator[int]:
    """Run an empty Redis server and yield its port."""
    redis = pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    for _ in range(20):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        if port > highest_port:
            continue
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder), *options]
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
