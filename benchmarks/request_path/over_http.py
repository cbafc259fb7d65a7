"""Servers in processes of their own, asked over one kept connection by a client that costs some 20 µs."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.request_path.laps import Laps
from benchmarks.request_path.redis_server import free_port
from benchmarks.request_path.settling import until_idle

_PATIENCE_S: Final = 300.0
_BARE: Final = """\
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
body = b"x" * 2000
async def answer(request):
    return Response(body, media_type="application/json")
uvicorn.run(Starlette(routes=[Route("/", answer)]), port=int(sys.argv[1]), log_level="error", access_log=False)
"""


class Connection:
    """A kept HTTP/1.1 connection to this machine."""

    def __init__(self, port: int) -> None:
        """Connect."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, message: bytes) -> bytes:
        """Send a whole request and return the answer's body; raise `RuntimeError` unless it is 200."""
        self._socket.sendall(message)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"The server answered {received[:300]!r}.")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._receive()
        return body

    def _receive(self) -> bytes:
        part = self._socket.recv(65_536)
        if not part:
            raise ConnectionError("The server closed the connection.")
        return part

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path: str, body: object) -> bytes:
    """Return a POST request with a JSON body."""
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode()


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    process: int

    @property
    def cpu_s(self) -> float:
        """The CPU seconds that it has used. Linux only."""
        fields = Path(f"/proc/{self.process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        """What it holds in memory now; pages that others hold too count by their share. Linux only."""
        facts = Path(f"/proc/{self.process}/smaps_rollup").read_text(encoding="ascii")
        (size,) = re.findall(r"^Pss:\s+(\d+) kB$", facts, re.MULTILINE)
        return int(size) / 1e3


@contextmanager
def server(command: Callable[[int], Sequence[str]], probe: bytes, log: Path) -> Iterator[Server]:
    """Run the Python `command` of a port, yield the server once it answers `probe`, and end it.

    What it says goes to the file `log`.
    """
    port = free_port()
    with (
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen([sys.executable, *command(port)], stdout=said, stderr=said) as process,  # noqa: S603 - our own programs
    ):
        try:
            _wait(port, probe, process, log)
            yield Server(port, process.pid)
        finally:
            process.terminate()


def bare(port: int) -> Sequence[str]:
    """Return the command of a server that answers 2,000 bytes and does nothing else."""
    return ["-c", _BARE, str(port)]


def naive(folder: Path) -> Callable[[int], Sequence[str]]:
    """Return the command of the naive peer's server."""
    return lambda port: ["-m", "benchmarks.request_path.naive", str(folder), str(port)]


def explorank(settings: Path) -> Callable[[int], Sequence[str]]:
    """Return the command of Explorank's server."""
    return lambda port: ["-m", "explorank", "serve", "--port", str(port), "--config", str(settings)]


def _wait(port: int, probe: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    patience = time.monotonic() + _PATIENCE_S
    while time.monotonic() < patience and process.poll() is None:
        try:
            connection = Connection(port)
        except OSError:
            time.sleep(0.1)
            continue
        try:
            connection.ask(probe)
        finally:
            connection.close()
        return
    raise RuntimeError(f"A server did not come up within {_PATIENCE_S:g} s, or ended; {log} says why.")


def settle(server: Server, messages: Sequence[bytes]) -> None:
    """Ask, wait until the server rests, and ask again."""
    latencies(server.port, messages)
    until_idle(lambda: server.cpu_s)
    latencies(server.port, messages)


@contextmanager
def connected(port: int, messages: Sequence[bytes]) -> Iterator[Callable[[int, Laps], object]]:
    """Yield what sends the message of the user in a row over one kept connection, and times the whole."""
    with closing(Connection(port)) as connection:

        def ask(user: int, laps: Laps) -> None:
            connection.ask(messages[user])
            laps.lap("whole")

        yield ask


def latencies(port: int, messages: Sequence[bytes]) -> NDArray[np.float64]:
    """Return the seconds of each request, one after another over one connection."""
    connection = Connection(port)
    seconds = np.empty(len(messages))
    for number, message in enumerate(messages):
        begin = time.perf_counter()
        connection.ask(message)
        seconds[number] = time.perf_counter() - begin
    connection.close()
    return seconds


def at_once(port: int, messages: Sequence[bytes], clients: int) -> tuple[NDArray[np.float64], float]:
    """Return the seconds of each request and the requests per second, of `clients` that never pause."""
    parts = [messages[client::clients] for client in range(clients)]
    results: list[NDArray[np.float64]] = [np.zeros(0)] * clients

    def ask(client: int) -> None:
        results[client] = latencies(port, parts[client])

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.concatenate(results), len(messages) / (time.perf_counter() - begin)
