"""Running the application under uvicorn, in this process."""

from __future__ import annotations

import errno
import ipaddress
import socket

import uvicorn
from starlette.applications import Starlette

from explorank.effort import ladder
from explorank.host.app import create_app
from explorank.host.auth import Tokens
from explorank.host.errors import CannotListen, OpenToTheNetwork
from explorank.host.limits import Limits
from explorank.host.stage_protocol import StageLike
from explorank.process import settle
from explorank.settings import Settings
from explorank.workers import uvicorn_config


def serve(
    stage: StageLike,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    log_level: str = "info",
) -> None:
    """Serve `stage` until the process is told to stop; then finish what runs and close the stage.

    Raises `OpenToTheNetwork` where `host` reaches beyond loopback and no token is set.
    """
    build_server(stage, host, port, tokens=tokens, limits=limits, log_level=log_level).run()


def build_server(
    stage: StageLike,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    log_level: str = "info",
) -> uvicorn.Server:
    """Return the server that `serve` runs, for those who run it themselves; raises as `serve` does."""
    require_closed(host, tokens or Tokens())
    app = create_app(stage, tokens=tokens, limits=limits)
    return uvicorn.Server(uvicorn_config(app, host, port, log_level))


def app_of(settings: Settings, stage: StageLike) -> Starlette:
    """Return the application over `stage` with the tokens, limits and efforts that `settings` state."""
    latency_ms = settings.load.latency_ms
    return create_app(
        stage,
        tokens=Tokens.of(settings.server.tokens),
        limits=Limits(
            body_bytes=settings.limits.body_bytes,
            slots=settings.limits.slots,
            threads=settings.server.threads,
            latency_s=None if latency_ms is None else latency_ms / 1e3,
        ),
        efforts=ladder(settings),
    )


def serve_app(app: Starlette, host: str, port: int, *, log_level: str = "info") -> None:
    """Serve a finished application in this process until it is told to stop."""
    settle()
    uvicorn.Server(uvicorn_config(app, host, port, log_level)).run()


def require_closed(host: str, tokens: Tokens) -> None:
    """Raise `OpenToTheNetwork` where `host` reaches beyond loopback and no token is set."""
    if tokens.open and not is_loopback(host):
        raise OpenToTheNetwork(
            f"The host would listen on {host!r}, which other machines may reach, and no token is set: anyone "
            "could read decisions, send rewards and stop exploration. Set `server.tokens`, or listen on "
            "127.0.0.1."
        )


def require_free(host: str, port: int) -> None:
    """Raise `CannotListen` where nobody could listen on `port` (0 to 65535; 0 is any) of `host` now.

    Asked before what takes long is loaded: uvicorn tells only afterwards, and not what to do.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(addresses):
            with socket.socket(family, kind, protocol) as tried:
                # As uvicorn does: a port whose last server has just gone is free.
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        way_out = (
            "Another process listens there, perhaps a server that was started before. Stop it, or name another "
            "port with `--port` or `server.port`."
            if error.errno == errno.EADDRINUSE
            else "Name an address of this machine with `--host` or `server.host`, and a port that this user may take."
        )
        raise CannotListen(
            f"Nothing can be served on {host!r}, port {port}: {error.strerror or error}. {way_out}"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
