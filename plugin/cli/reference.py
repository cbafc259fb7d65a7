"""Writes the reference page of the command line from the commands themselves.

Use: `python -m explorank.cli.reference > docs/cli.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup
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
    return "\n".join([_INTRODUCTION, *_sections(group, context, "explorank")])


def _sections(group: TyperGroup, context: typer.Context, path: str) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert isinstance(command, TyperCommand | TyperGroup)  # noqa: S101 - the name is one that the group lists
        inside = typer.Context(command, info_name=name, parent=context)
        if isinstance(command, TyperGroup):
            yield from _sections(command, inside, f"{path} {name}")
        else:
            yield _section(command, inside, f"{path} {name}")


def _section(command: TyperCommand, context: typer.Context, path: str) -> str:
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    rows = [
        f"| `{_cell(given)}` | {_cell(said)} |"
        for parameter in command.get_params(context)
        if "--help" not in parameter.opts and (record := parameter.get_help_record(context)) is not None
        for given, said in (record,)
    ]
    table = ["", "| option | meaning |", "|---|---|", *rows] if rows else []
    return "\n".join([f"## `{path}`", "", command.help or "", "", f"    {usage}", *table, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
