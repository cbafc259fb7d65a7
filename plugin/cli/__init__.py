"""The command line: `explorank --help`."""

from __future__ import annotations

import sys

from rich.markup import escape

from explorank.cli.app import app
from explorank.cli.console import errors
from explorank.cli.system_errors import refusal_of


def main() -> None:
    """Run the command line; what a user can mend is told in a sentence, without a traceback."""
    try:
        app()
    except Exception as error:
        # Not before: it brings numpy with it, whose threads a command may still have to set.
        from explorank.errors import USER_ERRORS

        told = str(error) if isinstance(error, USER_ERRORS) else refusal_of(error)
        if told is None:
            raise
        errors.print(f"[red]error[/red] {escape(told)}", soft_wrap=True)
        sys.exit(1)


__all__ = ["main"]
