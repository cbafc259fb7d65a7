"""The command line: `explorank --help`."""

from __future__ import annotations

import sys

from rich.markup import escape

from explorank.cli.app import app
from explorank.cli.console import errors
from explorank.errors import USER_ERRORS


def main() -> None:
    """Run the command line; what a user can mend is told in a sentence, without a traceback."""
    try:
        app()
    except USER_ERRORS as error:
        errors.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


__all__ = ["main"]
