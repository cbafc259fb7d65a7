"""Real sockets: one server in a thread, one in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import httpx
import orjson
import pytest
from pydantic import SecretStr

from explorank.host import Limits, OpenToTheNetwork, Tokens, build_server, serve
from explorank.host.runner import is_loopback

TOKENS = Tokens(admin=SecretStr("a-long-random-token"))


@pytest.fixture(scope="module")
def address(new_stage):
    """Run a server on a free port and return where it listens."""
    server = build_server(new_stage(), limits=Limits(body_bytes=10_000), log_level="error")
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join(timeout=120)
    assert not thread.is_alive()


def exchange(address, request: bytes) -> bytes:
    """Send raw bytes and return all that comes back until the server closes."""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_one_connection_serves_many_requests(address):
    connection = HTTPConnection(*address, timeout=60)
    connection.connect()
    socket_at_first = connection.sock
    for slots in range(1, 6):
        body = orjson.dumps({"slots": slots})
        connection.request("POST", "/v1/rank", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert len(orjson.loads(response.read())["items"]) == slots
        assert response.getheader("Server") is None
        assert connection.sock is socket_at_first
    connection.close()


def test_a_refusal_keeps_the_connection(address):
    request = (
        b"POST /v1/rank HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{,}"
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    answer = exchange(address, request)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/1.1 200 " in answer


def test_an_oversized_declared_body_is_refused_before_it_is_sent(address):
    request = (
        b"POST /v1/rank HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        b"Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n"
    )
    assert exchange(address, request).startswith(b"HTTP/1.1 413 ")


def test_an_oversized_chunked_body_is_refused_while_it_arrives(address):
    head = (
        b"POST /v1/rank HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    assert exchange(address, head + chunk * 4).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET /v1/decisions/%ff%00 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"POST /v1/rank HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_hardly_http_is_4xx(address, request_bytes):
    assert exchange(address, request_bytes).startswith(b"HTTP/1.1 4")


def test_a_client_that_leaves_half_way_harms_nobody(address):
    with socket.create_connection(address) as connection:
        connection.sendall(
            b"POST /v1/rank HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99\r\n\r\n{"
        )
    host, port = address
    assert httpx.get(f"http://{host}:{port}/healthz", timeout=60).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "host.example", ""])  # noqa: S104 - refused here
def test_an_open_host_stays_on_this_machine(stage, host):
    with pytest.raises(OpenToTheNetwork, match=r"server\.tokens"):
        serve(stage, host, 0)
    assert build_server(stage, host, 0, tokens=TOKENS, log_level="error").config.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_may_be_open(stage, host):
    assert is_loopback(host)
    assert build_server(stage, host, 0, log_level="error").config.host == host


SCRIPT = """
import pathlib, runpy, sys
from explorank.host import serve

conftest, port, closed = sys.argv[1:]
stage = runpy.run_path(conftest)["MemoryStage"]()

def close():
    heavy = {"torch", "feast", "sentence_transformers"} & set(sys.modules)
    pathlib.Path(closed).write_text(f"closed, imported {sorted(heavy)}")

stage.close = close
serve(stage, port=int(port), log_level="error")
"""


def wait_until_listening(port):
    for _ in range(6_000):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(port)


def test_a_process_told_to_stop_closes_its_stage(tmp_path, reserved_port):
    closed = tmp_path / "closed"
    conftest = Path(__file__).with_name("conftest.py")
    with (
        reserved_port() as port,
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(conftest), str(port), str(closed)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        ) as process,
    ):
        wait_until_listening(port)
        response = httpx.post(f"http://127.0.0.1:{port}/v1/rank", json={"user_id": "u"}, timeout=60)
        assert response.status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=300)
        assert process.stderr.read() == b""
    assert closed.read_text() == "closed, imported []"
