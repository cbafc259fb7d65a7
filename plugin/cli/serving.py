"""Commands that run an installation."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from explorank.cli.console import errors, output
from explorank.cli.options import DEFAULT_CONFIG, Config


def rank(
    user: Annotated[str | None, typer.Option(help="User id; an anonymous visitor by default.")] = None,
    slots: Annotated[int, typer.Option(help="How many items to show.")] = 10,
    surface: Annotated[str, typer.Option(help="Where they are shown.")] = "default",
    similar_to: Annotated[str | None, typer.Option(help="Ask for items like this one.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Item not to show; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the decision as JSON.")] = False,  # noqa: FBT002 - a flag
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Answer one request, as a table."""
    from explorank.stage import load

    with load(config) as stage:
        decision = stage.rank(
            user_id=user, slots=slots, surface=surface, exclude=exclude or (), similar_to=similar_to
        )
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


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; overrides the settings.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; overrides the settings.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Serve the stage over HTTP until interrupted."""
    from explorank.host import Limits, Tokens, build_server
    from explorank.settings import load_settings
    from explorank.stage import load

    settings = load_settings(config)
    server = settings.server
    address, listening = host or server.host, server.port if port is None else port
    stage = load(settings)
    app = build_server(
        stage,
        address,
        listening,
        tokens=Tokens.of(server.tokens),
        limits=Limits(body_bytes=settings.limits.body_bytes, slots=settings.limits.slots),
    )
    for part, problem in stage.readiness().items():
        errors.print(f"[yellow]not ready[/yellow] {escape(part)}: {escape(problem)}")
    bearer = (
        ""
        if server.tokens.rank is None and server.tokens.admin is None
        else "-H 'Authorization: Bearer TOKEN' "
    )
    question = '{"user_id": "1", "slots": 5}'
    errors.print(
        f"ask it: curl -s {bearer}--json '{question}' http://{address}:{listening}/v1/rank",
        highlight=False,
        soft_wrap=True,
    )
    app.run()


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
