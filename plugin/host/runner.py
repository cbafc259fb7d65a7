"""Running the application under uvicorn, in this process or in several."""

from __future__ import annotations

import ipaddress
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from explorank.effort import ladder
from explorank.errors import USER_ERRORS
from explorank.host.app import create_app
from explorank.host.auth import Tokens
from explorank.host.errors import OpenToTheNetwork
from explorank.host.limits import Limits
from explorank.host.metrics import SHARED_FOLDER
from explorank.host.stage_protocol import StageLike
from explorank.process import settle
from explorank.settings import Settings, load_settings

_SHUTDOWN_S: Final = 10
"""How long running requests may take to finish once the process is told to stop."""
_HEALTH_CHECK_S: Final = 60
"""How long a worker may not answer its parent before it is replaced; it answers while it loads, but late."""


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
    return uvicorn.Server(_config(app, host, port, log_level))


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
    uvicorn.Server(_config(app, host, port, log_level)).run()


def serve_workers(
    make_app: Callable[[], Starlette],
    host: str,
    port: int,
    *,
    workers: int,
    log_level: str = "info",
) -> None:
    """Serve in several processes, each with an application of its own, until this one is told to stop.

    The processes are spawned, not forked: a fork would copy locks, threads and SQLite connections in whatever state
    they are. What they map from files they share nevertheless. `make_app` can be pickled. A worker that dies is
    replaced; one that cannot start ends all (`SystemExit`).
    """
    config = _config(_Start(make_app), host, port, log_level, factory=True, workers=workers)
    with tempfile.TemporaryDirectory(prefix="explorank-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        supervisor = Multiprocess(config, sockets=[config.bind_socket()])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


def worker_app(config: Path) -> Starlette:
    """Return the application of one worker for the settings in the file `config`."""
    from explorank.stage import load  # noqa: PLC0415 - FAISS and LightGBM are for the workers alone

    settings = load_settings(config)
    return app_of(settings, load(settings))


@dataclass(frozen=True, slots=True)
class _Start:
    """Makes a worker's application; ends the worker where nothing would be better at a second try."""

    make_app: Callable[[], Starlette]

    def __call__(self) -> Starlette:
        try:
            app = self.make_app()
        except USER_ERRORS as error:
            sys.stderr.write(f"error {error}\n")
            sys.exit(STARTUP_FAILURE)
        settle()
        return app


def _config(app: Any, host: str, port: int, log_level: str, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_SHUTDOWN_S,
        timeout_worker_healthcheck=_HEALTH_CHECK_S,
        **more,
    )


def require_closed(host: str, tokens: Tokens) -> None:
    """Raise `OpenToTheNetwork` where `host` reaches beyond loopback and no token is set."""
    if tokens.open and not is_loopback(host):
        raise OpenToTheNetwork(
            f"The host would listen on {host!r}, which other machines may reach, and no token is set: anyone "
            "could read decisions, send rewards and stop exploration. Set `server.tokens`, or listen on "
            "127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
