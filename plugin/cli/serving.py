"""Commands that run an installation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from explorank.cli.console import errors, loading, output
from explorank.cli.options import DEFAULT_CONFIG, Config

if TYPE_CHECKING:
    from explorank.decision import Decision


def rank(
    user: Annotated[str | None, typer.Option(help="User id; an anonymous visitor by default.")] = None,
    slots: Annotated[int, typer.Option(help="How many items to show.")] = 10,
    surface: Annotated[str, typer.Option(help="Where they are shown.")] = "default",
    similar_to: Annotated[str | None, typer.Option(help="Ask for items like this one.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Item not to show; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the decision as JSON.")] = False,  # noqa: FBT002 - a flag
    profile: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option("--profile", help="Say what each step takes, once a first request has filled caches."),
    ] = False,
    repeat: Annotated[
        int, typer.Option(min=1, help="Ask so often, for --profile; each is a decision of its own.")
    ] = 1,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Answer one request, as a table."""
    from explorank.process import pin_threads

    pin_threads()  # before what follows imports numpy, and as `serve` does: times are to be those of serving

    from explorank.stage import load

    with loading():
        stage = load(config)
    with stage:
        ask = partial(
            stage.rank,
            user_id=user,
            slots=slots,
            surface=surface,
            exclude=exclude or (),
            similar_to=similar_to,
        )
        if profile:
            ask()
        decisions = [ask() for _ in range(repeat)]
    decision = decisions[-1]
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(decision.to_dict(), option=orjson.OPT_INDENT_2) + b"\n")
        return
    table = Table("slot", "item", "score", "propensity", "method", "sources", box=None)
    for slot, item in enumerate(decision.items):
        table.add_row(
            str(slot),
            escape(item),
            f"{decision.scores[slot]:.4f}",
            f"{decision.propensities[slot]:.4f}",
            decision.methods[slot],
            ", ".join(decision.sources[slot]),
        )
    output.print(table)
    output.print(
        f"decision {decision.decision_id}, policy {decision.policy} version {decision.policy_version}, "
        f"mode {decision.mode}, arm {decision.arm}"
    )
    for fallback in decision.fallbacks:
        output.print(
            f"[yellow]fallback[/yellow] {fallback.step} of {escape(fallback.plugin)}: {escape(fallback.action)} "
            f"({escape(fallback.reason)})"
        )
    if profile:
        output.print(_profile(decisions))


def _profile(decisions: Sequence[Decision]) -> Table:
    """Return what each step took, its share of the whole, and percentiles where there are several decisions."""
    import numpy as np

    steps = list(dict.fromkeys(step for decision in decisions for step in decision.timings_us))
    ms = np.array([[decision.timings_us.get(step, 0.0) for step in steps] for decision in decisions]) / 1e3
    rows = [*zip([*steps, "total"], [*ms.T, ms.sum(axis=1)], strict=True)]
    table = Table("step", box=None)
    for heading in ("ms", "share") if len(decisions) == 1 else ("p50 ms", "p99 ms", "share"):
        table.add_column(heading, justify="right")
    for name, taken in rows:
        percentiles = [50] if len(decisions) == 1 else [50, 99]
        shown = [f"{value:.3f}" for value in np.percentile(taken, percentiles)]
        table.add_row(name, *shown, f"{taken.sum() / ms.sum():.0%}")
    return table


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; overrides the settings.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on; overrides the settings.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer; overrides the settings.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Serve the stage over HTTP until interrupted."""
    from explorank.process import pin_threads

    pin_threads()  # before what follows imports numpy

    from explorank.host import Tokens
    from explorank.host.runner import app_of, require_closed, require_free, serve_app
    from explorank.settings import load_settings
    from explorank.workers import serve_workers, worker_app

    settings = load_settings(config)
    server = settings.server
    address, listening = host or server.host, server.port if port is None else port
    tokens = Tokens.of(server.tokens)
    require_closed(address, tokens)
    require_free(address, listening)
    if (processes := workers or server.workers) > 1:
        _say_how_to_ask(address, listening, open_to_all=tokens.open)
        serve_workers(partial(worker_app, config), address, listening, workers=processes)
        return
    from explorank.stage import load

    with loading():
        stage = load(settings)
    for part, problem in stage.readiness().items():
        errors.print(f"[yellow]not ready[/yellow] {escape(part)}: {escape(problem)}")
    if unexplored := stage.status()["unexplored_because"]:
        errors.print(f"[yellow]not exploring[/yellow] {escape(unexplored)}")
    _say_how_to_ask(address, listening, open_to_all=tokens.open)
    serve_app(app_of(settings, stage), address, listening)


def _say_how_to_ask(address: str, port: int, *, open_to_all: bool) -> None:
    if port == 0:
        return  # any that is free, which uvicorn names once it has it
    bearer = "" if open_to_all else "-H 'Authorization: Bearer TOKEN' "
    at = f"[{address}]" if ":" in address else address
    question = '{"user_id": "1", "slots": 5}'
    errors.print(
        f"ask it: curl -s {bearer}--json '{question}' http://{at}:{port}/v1/rank",
        highlight=False,
        soft_wrap=True,
    )


class Switch(StrEnum):
    """What to do with the kill switch."""

    STATUS = "status"
    ENGAGE = "engage"
    RELEASE = "release"


def kill_switch(
    action: Annotated[
        Switch, typer.Argument(help="Stop all exploration, resume it, or say which holds.")
    ] = Switch.STATUS,
    reason: Annotated[str, typer.Option(help="Kept with the switch, for others to read.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Stop all exploration at once, in every running process, without a restart."""
    from explorank.hooks.feedback import KillSwitch
    from explorank.settings import load_settings

    switch = KillSwitch(load_settings(config).folder_path / "exploration.off")
    if action is Switch.ENGAGE:
        switch.engage(reason)
    elif action is Switch.RELEASE:
        switch.release()
    output.print(f"engaged: {escape(switch.reason or 'no reason given')}" if switch.engaged else "released")
