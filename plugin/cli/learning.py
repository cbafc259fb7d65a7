"""Commands about what was learnt."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from explorank.cli.console import errors, output
from explorank.cli.options import DEFAULT_CONFIG, Config


def forget_user(
    user: Annotated[str, typer.Argument(help="The user id, as requests name it.")],
    wait_s: Annotated[float, typer.Option(help="How long a running server has to do it, in seconds.")] = 30.0,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Erase a user from the log, and what was learnt from them; safe while servers run."""
    from explorank.assembly import clock_of, learner_at_rest
    from explorank.settings import load_settings

    settings = load_settings(config)
    learner = learner_at_rest(settings)
    try:
        with errors.status("erasing"):
            decisions = learner.forget(user, clock_of(settings)(), wait_s=wait_s)
    finally:
        learner.close()
    output.print(
        f"user {escape(user)}: {decisions:,} decisions erased, with what was shown, earned and learnt"
        if decisions
        else f"user {escape(user)}: no decision in the log"
    )
