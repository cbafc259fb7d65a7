"""Commands about the trained rankers that were published."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Column, Table

from explorank.cli.console import output
from explorank.cli.options import DEFAULT_CONFIG, Config

if TYPE_CHECKING:
    from explorank.pipeline.models import Model, Models, Promoted

app = typer.Typer(no_args_is_help=True, help="List the trained rankers, and choose which one serves.")

Version = Annotated[
    str,
    typer.Argument(help="A version that `models list` shows, or the beginning of one that fits no other."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Even if nobody but a plugin could serve some of its columns.")
]


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print the versions as JSON.")] = False,  # noqa: FBT002 - a flag
    config: Config = DEFAULT_CONFIG,
) -> None:
    """List the trained rankers: version, time, name, metrics, calibration, and which one serves."""
    models = _models(config).list()
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(models, option=orjson.OPT_INDENT_2) + b"\n")
        return
    if not models:
        output.print("no ranker is trained yet; run `explorank train`")
        return
    table = Table(Column("version", no_wrap=True), Column("", no_wrap=True), "ranker", box=None)
    for model in models:
        table.add_row(*_row(model))
    output.print(table)


@app.command()
def show(
    version: Version,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,  # noqa: FBT002 - a flag
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Print the model card of a version: data, metrics with intervals, for whom, options."""
    from rich.markdown import Markdown

    from explorank.errors import UnknownArtefact
    from explorank.model_card import CARD_FILE, ModelCard

    models = _models(config)
    resolved = models.resolve(version)
    folder = models.folder(resolved)
    card = ModelCard.read(folder)
    if card is None:
        raise UnknownArtefact(
            f"{resolved} was published without a model card, so nothing is known of its training. `explorank train` "
            "writes one."
        )
    if as_json:
        sys.stdout.write((folder / CARD_FILE).read_text(encoding="utf-8") + "\n")
        return
    output.print(Markdown(card.to_markdown()))


@app.command()
def promote(version: Version, force: Force = False, config: Config = DEFAULT_CONFIG) -> None:  # noqa: FBT002 - a flag
    """Make a version serve, once it is found intact and its columns served; a running server takes it up."""
    _tell(_models(config).promote(version, force=force))


@app.command()
def rollback(force: Force = False, config: Config = DEFAULT_CONFIG) -> None:  # noqa: FBT002 - a flag
    """Make the version serve that did so before the current one; a running server takes it up."""
    _tell(_models(config).roll_back(force=force))


def _models(config: Config) -> Models:
    from explorank.pipeline.models import Models
    from explorank.settings import load_settings

    return Models(load_settings(config))


def _row(model: Model) -> list[str]:
    state = "[green]current[/green]" if model.current else "before" if model.previous else ""
    return [model.version, state, escape("\n".join(_lines(model)))]


def _lines(model: Model) -> Iterator[str]:
    card = model.card
    if card is None:
        yield model.problem or "no card"
    else:
        yield f"{card.ranker} {card.version}, NDCG@10 {card.metrics.get('ndcg@10', 'not measured')}"
        if card.probabilities is not None:
            yield f"calibration error {card.probabilities.error:.4f}"
        if model.calibration is not None:
            yield "its scores are mapped to rewards"
    yield "was never current" if model.promoted is None else f"became current {model.promoted}"


def _tell(promoted: Promoted) -> None:
    former = "" if promoted.former is None else f", {promoted.former} did"
    output.print(
        f"ranker {promoted.version} serves"
        + (", as before" if promoted.former == promoted.version else former)
    )
    if promoted.calibration is not None:
        output.print(f"calibration {promoted.calibration}: the map of its scores to rewards")
