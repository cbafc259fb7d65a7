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


@pytest.fixture
def redis_port(
    tmp_path: Path, reserved_port: Callable[[], contextlib.AbstractContextManager[int]]
) -> Iterator[int]:
    """The port of an empty Redis server of the test's own."""
    redis = pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with reserved_port() as port:
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_until_answering(redis, port, server)
            yield port
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
