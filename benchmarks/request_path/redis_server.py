"""A Redis server of the benchmark's own, in a process that ends with it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PATIENCE_S: Final = 120.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """Run Redis on the data in `folder`, yield its port, and keep what was written when it ends.

    Raises `FileNotFoundError` where no `redis-server` is installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError(
            "No redis-server is installed, and the naive peer reads its features from one. Install it (its Debian "
            "package is redis-server), or take `--online-store sqlite`."
        )
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(folder),
        "--daemonize",
        "no",
    ]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as process:  # noqa: S603 - found above
        try:
            _wait(port)
            try:
                yield port
            finally:
                _ask(port, "SAVE")
        finally:
            process.terminate()


def _wait(port: int) -> None:
    patience = time.monotonic() + _PATIENCE_S
    while time.monotonic() < patience:
        try:
            if _ask(port, "PING").startswith(b"+PONG"):  # while it loads its data, it says so instead
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"Redis does not answer on port {port} after {_PATIENCE_S:g} s.")


def _ask(port: int, command: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(1_024)
