"""All commands, by what they are for."""

from __future__ import annotations

from typing import Annotated

import typer

from explorank import __version__
from explorank.cli import demo, explain, learning, models, prepare, project, serving

app = typer.Typer(
    name="explorank",
    help="Bandit exploration, with true propensities, for a ranking stage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - the shape of a typer callback
    if wanted:
        typer.echo(f"explorank {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    pass


START, PREPARE, RUN = "Start", "Prepare", "Run"
app.command("demo", rich_help_panel=START)(demo.demo)
app.command("init", rich_help_panel=START)(project.init)
app.command("check", rich_help_panel=START)(project.check)
app.command("plugins", rich_help_panel=START)(project.plugins)
app.command("schema", rich_help_panel=START)(project.schema)
app.command("check-data", rich_help_panel=PREPARE)(prepare.check_data)
app.command("features", rich_help_panel=PREPARE)(prepare.features)
app.command("adapt", rich_help_panel=PREPARE)(prepare.adapt)
app.command("build", rich_help_panel=PREPARE)(prepare.build)
app.command("train", rich_help_panel=PREPARE)(prepare.train)
app.command("examination", rich_help_panel=PREPARE)(learning.examination)
app.command("calibrate", rich_help_panel=PREPARE)(learning.calibrate)
app.add_typer(models.app, name="models", rich_help_panel=PREPARE)
app.command("rank", rich_help_panel=RUN)(serving.rank)
app.command("explain", rich_help_panel=RUN)(explain.explain)
app.command("serve", rich_help_panel=RUN)(serving.serve)
app.command("kill-switch", rich_help_panel=RUN)(serving.kill_switch)
app.command("forget-user", rich_help_panel=RUN)(learning.forget_user)
