"""The embedded host: the ranking stage behind HTTP, as an ASGI application.

`create_app` builds the application for any ASGI server; `serve` runs it under uvicorn.
"""

from explorank.host.app import create_app
from explorank.host.auth import Scope, Tokens
from explorank.host.errors import InvalidToken, OpenToTheNetwork
from explorank.host.limits import Limits
from explorank.host.runner import build_server, serve
from explorank.host.stage_protocol import KillSwitchLike, StageLike

__all__ = [
    "InvalidToken",
    "KillSwitchLike",
    "Limits",
    "OpenToTheNetwork",
    "Scope",
    "StageLike",
    "Tokens",
    "build_server",
    "create_app",
    "serve",
]
