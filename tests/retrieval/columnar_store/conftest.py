"""What the tests of the columnar store share."""

from __future__ import annotations

import contextlib
import shutil
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


Reserve = Callable[[], contextlib.AbstractContextManager[int]]


@pytest.fixture
def redis_port(tmp_path: Path, reserved_port: Reserve) -> Iterator[int]:
    """The port of an empty Redis server of the test's own."""
    with reserved_port() as port, redis_server(tmp_path, port):
        yield port


@pytest.fixture
def redis_cluster_port(tmp_path: Path, reserved_port: Reserve) -> Iterator[int]:
    """The port of an empty Redis cluster of one server."""
    redis = pytest.importorskip("redis")
    with (
        reserved_port() as port,
        reserved_port() as bus,
        redis_server(tmp_path, port, "--cluster-enabled", "yes", "--cluster-port", str(bus)),
        redis.Redis(port=port) as client,
    ):
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        give_up_at = time.monotonic() + 60
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < give_up_at, "the cluster has not come up"
            time.sleep(0.02)
        yield port


@contextlib.contextmanager
def redis_server(folder: Path, port: int, *options: str) -> Iterator[None]:
    """Run an empty Redis server for the block."""
    redis = pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_answering(redis, port, server)
        yield
    finally:
        server.terminate()
        server.wait()


def wait_until_answering(redis: ModuleType, port: int, server: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        assert server.poll() is None, "redis-server did not start"
        assert time.monotonic() < give_up_at, "redis-server does not answer"
        with contextlib.suppress(redis.exceptions.ConnectionError), redis.Redis(port=port) as client:
            client.ping()
            return
        time.sleep(0.02)
