"""Several serving processes under one parent.

Light on purpose: a spawned process imports this module before it can answer its parent that it lives, and all that
takes time to import only after that.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from explorank.metrics_folder import hold, metrics_folder
from explorank.process import SHARED_FOLDER, settle

if TYPE_CHECKING:
    from starlette.applications import Starlette

_STARTUP_FAILED: Final = 3
"""uvicorn's exit status of a process whose application could not start."""
_SHUTDOWN_S: Final = 10
"""How long running requests may take to finish once the process is told to stop."""
_HEALTH_CHECK_S: Final = 10
"""How long a worker may not answer its parent before it is replaced."""
_ORPHAN_S: Final = 2 * _SHUTDOWN_S
"""How long a worker whose parent is gone may take to end: its requests, then what the stage still has to store."""


def serve_workers(
    make_app: Callable[[], Starlette], host: str, port: int, *, workers: int, log_level: str = "info"
) -> None:
    """Serve in several processes, each with an application of its own, until this one is told to stop.

    The processes are spawned, not forked: a fork would copy locks, threads and SQLite connections in whatever state
    they are. What they map from files they share nevertheless. `make_app` can be pickled. A worker that dies is
    replaced; where one cannot start for a reason that a user can mend, it says so and all end (`SystemExit`). Where the
    parent is killed, its workers finish their requests and end, so that nobody keeps the port.
    """
    config = uvicorn_config(_Start(make_app), host, port, log_level, factory=True, workers=workers)
    with metrics_folder() as folder:
        os.environ |= {SHARED_FOLDER: str(folder), "PROMETHEUS_MULTIPROC_DIR": str(folder)}
        supervisor = Multiprocess(config, sockets=[config.bind_socket()])
        supervisor.run()
    if any(process.exitcode == _STARTUP_FAILED for process in supervisor.processes):
        sys.exit(_STARTUP_FAILED)


def worker_app(config: Path) -> Starlette:
    """Return the application of one worker for the settings in the file `config`."""
    from explorank.host.runner import app_of
    from explorank.settings import load_settings
    from explorank.stage import load

    settings = load_settings(config)
    return app_of(settings, load(settings))


def uvicorn_config(app: Any, host: str, port: int, log_level: str, **more: Any) -> uvicorn.Config:
    """Return how uvicorn serves `app`, with one worker or several."""
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


@dataclass(frozen=True, slots=True)
class _Start:
    """Makes a worker's application; ends the worker where nothing would be better at a second try."""

    make_app: Callable[[], Starlette]

    def __call__(self) -> Starlette:
        hold(Path(os.environ[SHARED_FOLDER]))
        Thread(target=_end_with_parent, name="explorank-parent", daemon=True).start()
        try:
            app = self.make_app()
        except Exception as error:
            from explorank.errors import USER_ERRORS

            if not isinstance(error, USER_ERRORS):
                raise
            sys.stderr.write(f"error {error}\n")
            sys.stderr.flush()
            # At once: an interpreter that shuts down answers no more, and its parent would wait for _HEALTH_CHECK_S.
            os._exit(_STARTUP_FAILED)
        settle()
        return app


def _end_with_parent() -> None:
    """Wait until the parent is gone, then end this process: what uvicorn's workers wait for cannot tell them.

    The parent alone holds the other end of the pipe that is waited for, and the kernel closes it however the parent
    ends; one that went before this was called is noticed too.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_S)
    os._exit(1)
