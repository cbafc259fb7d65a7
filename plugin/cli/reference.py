"""Writes the reference page of the command line from the commands themselves.

Use: `python -m explorank.cli.reference > docs/cli.md`.
"""

from __future__ import annotations

import sys

import typer
from typer.core import TyperGroup
from typer.main import get_command

from explorank.cli.app import app

_INTRODUCTION = """\
# Commands

`explorank --help` and `explorank COMMAND --help` say the same in the terminal. Results go to standard output,
progress and errors to standard error; a command that fails exits with 1, one that was misspelt with 2.
`python -m explorank` is the same command. `explorank --version` prints the version.

This page is generated from the code: `python -m explorank.cli.reference > docs/cli.md`.
"""


def reference() -> str:
    """Return the page, in Markdown."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)  # noqa: S101 - the application has several commands
    context = typer.Context(group, info_name="explorank")
    sections = (_section(group, context, name) for name in group.list_commands(context))
    return "\n".join([_INTRODUCTION, *sections])


def _section(group: TyperGroup, context: typer.Context, name: str) -> str:
    command = group.get_command(context, name)
    assert command is not None  # noqa: S101 - the name is one that the group lists
    inside = typer.Context(command, info_name=name, parent=context)
    usage = " ".join(["explorank", name, *command.collect_usage_pieces(inside)])
    rows = [
        f"| `{given}` | {_cell(said)} |"
        for parameter in command.get_params(inside)
        if "--help" not in parameter.opts and (record := parameter.get_help_record(inside)) is not None
        for given, said in (record,)
    ]
    table = ["", "| option | meaning |", "|---|---|", *rows] if rows else []
    return "\n".join([f"## `explorank {name}`", "", command.help or "", "", f"    {usage}", *table, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
