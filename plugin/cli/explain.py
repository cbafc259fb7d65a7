"""Why a decision came out as it did: as a table, as JSON, as a plot."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from explorank.cli.console import loading, output
from explorank.cli.options import DEFAULT_CONFIG, Config

if TYPE_CHECKING:
    from explorank.explanation import DecisionExplanation, ItemExplanation

_TEXT: Final = 48
"""Characters of an item's text that are printed."""


def explain(
    decision_id: Annotated[str, typer.Argument(help="The id that the answer carried.")],
    item: Annotated[
        list[str] | None,
        typer.Option(
            help="A candidate to explain, shown or not; may be repeated. The shown items by default."
        ),
    ] = None,
    features: Annotated[int, typer.Option(min=1, help="How many features to print of each item.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,  # noqa: FBT002 - a flag
    plot: Annotated[
        Path | None, typer.Option(help="Draw what each feature adds into this file (.png, .svg, .pdf).")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Explain a decision of the log: what each feature added, the history behind it, what exploration did."""
    from explorank.process import pin_threads

    pin_threads()
    from explorank.stage import load

    with loading():
        stage = load(config)
    with stage:
        explained = stage.explain(decision_id, item)
    if plot is not None:
        from explorank.explanation_plot import draw

        draw(explained, plot, features=features)
    if as_json:
        option = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
        sys.stdout.buffer.write(orjson.dumps(explained.to_dict(), option=option) + b"\n")
        return
    _print_decision(explained)
    for one in explained.items:
        _print_item(one, features)
    for note in explained.notes:
        output.print(f"[yellow]note[/yellow] {escape(note)}")
    if plot is not None:
        output.print(f"drawn: {escape(str(plot))}")


def _print_decision(explained: DecisionExplanation) -> None:
    output.print(
        f"decision {explained.decision_id}: user {explained.user_id or 'anonymous'}, surface {explained.surface}, "
        f"{explained.candidates:,} candidates, ranker {explained.ranker or 'none'}",
        markup=False,
    )
    output.print(
        f"policy {explained.policy} version {explained.policy_version}, mode {explained.mode}, arm {explained.arm}, "
        f"floor {explained.floor:g}" + (f"; held back: {explained.held_back}" if explained.held_back else ""),
        markup=False,
    )
    for fallback in explained.fallbacks:
        output.print(
            f"[yellow]fallback[/yellow] {fallback.step}: {escape(fallback.reason)}; {escape(fallback.action)}"
        )


def _print_item(one: ItemExplanation, features: int) -> None:
    output.print()
    output.print(f"[bold]{escape(_named(one.item_id, one.text))}[/bold]  {escape(_standing(one))}")
    if one.sources:
        output.print(f"  found by {', '.join(one.sources)}", markup=False)
    if one.nearest:
        like = ", ".join(f"{_named(near.item_id, near.text)} ({near.cosine:.2f})" for near in one.nearest)
        output.print(f"  most like, of the history: {like}", markup=False)
    if one.base is None or one.recomputed_score is None:
        return
    table = Table("feature", "value", "adds", box=None, padding=(0, 2))
    for part in one.parts[:features]:
        value = "missing" if part.value is None else part.text or f"{part.value:.4g}"
        table.add_row(escape(part.name), escape(value), f"{part.attribution:+.4f}")
    rest = sum(part.attribution for part in one.parts[features:])
    if one.parts[features:]:
        table.add_row(f"{len(one.parts) - features} others", "", f"{rest:+.4f}")
    table.add_row("base", "", f"{one.base:+.4f}")
    total = one.base + sum(part.attribution for part in one.parts)
    link = "" if one.link == "identity" else f", {one.link} {one.recomputed_score:.4f}"
    same = "the score" if one.as_served else f"the score of now; it was {one.score:.4f}"
    table.add_row("sum", "", f"{total:+.4f}{link} ({same})")
    output.print(table)


def _named(item_id: str, text: str) -> str:
    """Return an id, with the beginning of what it stands for."""
    return f"{item_id} “{shorten(text, _TEXT, placeholder=' …')}”" if text.strip() else item_id


def _standing(one: ItemExplanation) -> str:
    ranked = f"score {one.score:.4f}, number {one.score_rank} by score"
    baseline = "not in the baseline" if one.baseline_slot is None else f"baseline slot {one.baseline_slot}"
    if one.slot is None:
        return f"not shown; {ranked}, {baseline}"
    how = (
        "best by score"
        if one.method == "score"
        else f"drawn with probability {one.propensity:.4f} of {one.choices}"
    )
    strategy = f" by {one.strategy}" if one.strategy else ""
    return f"slot {one.slot}: {how}{strategy}; {ranked}, {baseline}"
