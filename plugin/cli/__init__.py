"""The command line: `explorank --help`."""

from __future__ import annotations

import sys

from rich.markup import escape

from explorank.cli.app import app
from explorank.cli.console import errors


def main() -> None:
    """Run the command line; what a user can mend is told in a sentence, without a traceback."""
    try:
        app()
    except Exception as error:
        # Not before: it brings numpy with it, whose threads a command may still have to set.
        from explorank.errors import USER_ERRORS

        if not isinstance(error, USER_ERRORS):
            raise
        errors.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


__all__ = ["main"]
