"""Running the application under uvicorn."""

from __future__ import annotations

import ipaddress
from typing import Final

import uvicorn

from explorank.host.app import create_app
from explorank.host.auth import Tokens
from explorank.host.errors import OpenToTheNetwork
from explorank.host.limits import Limits
from explorank.host.stage_protocol import StageLike

_SHUTDOWN_S: Final = 10
"""How long running requests may take to finish once the process is told to stop."""


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
    if (tokens is None or tokens.open) and not is_loopback(host):
        raise OpenToTheNetwork(
            f"The host would listen on {host!r}, which other machines may reach, and no token is set: anyone "
            "could read decisions, send rewards and stop exploration. Set `server.tokens`, or listen on "
            "127.0.0.1."
        )
    return uvicorn.Server(
        uvicorn.Config(
            create_app(stage, tokens=tokens, limits=limits),
            host=host,
            port=port,
            log_level=log_level,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
