"""Commands that start and inspect an installation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from explorank.cli.console import errors, output
from explorank.cli.options import DEFAULT_CONFIG, Config


def init(folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path()) -> None:
    """Write a commented explorank.yaml and a Feast repository."""
    from explorank.errors import SettingsError
    from explorank.retrieval.features import copy_repository
    from explorank.settings import template

    config = folder / DEFAULT_CONFIG
    if config.exists():
        raise SettingsError(f"{config} exists already and is kept. Remove it, or name another folder.")
    copy_repository(folder / "feature_repo")
    config.write_text(template(), encoding="utf-8")
    output.print(f"Wrote {escape(str(config))} and {escape(str(folder / 'feature_repo'))}. Next:")
    output.print("  explorank features --interactions A.parquet --items B.parquet", highlight=False)
    output.print("  explorank build && explorank train --interactions A.parquet", highlight=False)
    output.print("  explorank check && explorank serve", highlight=False)


def check(config: Config = DEFAULT_CONFIG) -> None:
    """Check settings, plugins, features, index, ranker and log; exit with 1 where something is wrong."""
    from explorank.checks import run_checks
    from explorank.settings import load_settings

    table = Table("check", "result", "", box=None)
    wrong = False
    with errors.status("checking"):
        results = list(run_checks(load_settings(config)))
    for result in results:
        mark = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "wrong": "[red]wrong[/red]"}
        table.add_row(escape(result.name), mark[result.verdict], escape(result.detail))
        wrong |= result.verdict == "wrong"
    output.print(table)
    if wrong:
        raise typer.Exit(1)


def plugins(config: Config = DEFAULT_CONFIG) -> None:
    """List the plugins: name, version, hooks and how each fares."""
    from explorank.assembly import collect_components
    from explorank.settings import Settings, load_settings

    settings = load_settings(config) if config.exists() else Settings(version=1)
    manager, _ = collect_components(settings)
    table = Table("plugin", "version", "status", "hooks", box=None)
    for plugin in manager.status():
        origin = f"{plugin.distribution or ''} {plugin.version or ''}".strip()
        state = plugin.state if plugin.last_error is None else f"{plugin.state}: {plugin.last_error}"
        table.add_row(escape(plugin.name), escape(origin), escape(state), escape(", ".join(plugin.hooks)))
    output.print(table)


def schema() -> None:
    """Print the JSON Schema of explorank.yaml, for editors."""
    from explorank.assembly import collect_components
    from explorank.settings import Settings, json_schema

    _, registry = collect_components(Settings(version=1))
    sys.stdout.buffer.write(orjson.dumps(json_schema(registry), option=orjson.OPT_INDENT_2) + b"\n")
