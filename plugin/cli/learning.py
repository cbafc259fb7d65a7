"""Commands about what was learnt."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from explorank.cli.console import errors, output, progress
from explorank.cli.options import DEFAULT_CONFIG, Config


class Shape(StrEnum):
    """How a score may stand for a reward."""

    AUTO = "auto"
    ISOTONIC = "isotonic"
    LOGISTIC = "logistic"
    LINEAR = "linear"


def calibrate(
    method: Annotated[
        Shape, typer.Option(help="The shape of the map; auto takes the one truest of the later rewards.")
    ] = Shape.AUTO,
    minimum: Annotated[float, typer.Option(help="How many rewards of equal weight there must be.")] = 500.0,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Fit what a score stands for in rewards to the log, and publish it; a running server takes it up."""
    from explorank.hooks.exploration.calibration import METHODS
    from explorank.pipeline.calibrate import CalibrateOptions
    from explorank.pipeline.calibrate import calibrate as fit
    from explorank.settings import load_settings

    options = CalibrateOptions(method=next((one for one in METHODS if one == method), None), minimum=minimum)
    with progress("reading the log") as report:
        _, fitted = fit(load_settings(config), options=options, progress=report)
    table = Table("scores from", "to", "rewards", "expected", "observed", box=None)
    for one in fitted.later.bins:
        table.add_row(
            f"{one.lowest_score:.4g}", f"{one.highest_score:.4g}", f"{one.count:,}",
            f"{one.expected:.4f}", f"{one.observed:.4f}",
        )  # fmt: skip
    output.print("the latest fifth of the rewards, by a map that was fitted to those before:")
    output.print(table)
    output.print(
        f"calibration {fitted.version}: {fitted.method}, of {fitted.rewards:,} rewards ({fitted.effective:,.0f} of "
        f"equal weight) of {fitted.decisions:,} decisions, mean {fitted.mean_reward:.4f}; calibration error "
        f"{fitted.later.error:.4f} on the latest"
    )


def examination(config: Config = DEFAULT_CONFIG) -> None:
    """Estimate from explored slots how likely each slot is looked at, whatever the policy put there."""
    from explorank.pipeline.examination import estimate_examination
    from explorank.settings import load_settings

    with progress("reading the log") as report:
        curve = estimate_examination(load_settings(config), progress=report)
    table = Table("slot", "looked at", "95 % interval", "decisions", "of equal weight", box=None)
    for slot, share in enumerate(curve.probabilities.tolist()):
        told = [f"{curve.decisions[slot - 1]:,}", f"{curve.effective[slot - 1]:,.0f}"] if slot else ["", ""]
        table.add_row(f"{slot}", f"{share:.3f}", f"{curve.low[slot]:.3f} to {curve.high[slot]:.3f}", *told)
    output.print(table)
    if curve.left_out:
        output.print(f"{curve.left_out:,} pairs of slots were left out: a guard or a cap told them apart")
    shares = ", ".join(f"{share:.3g}" for share in curve.probabilities.tolist())
    output.print("to let the policy allow for it, under `feedback`, and the LightGBM ranker, under `ranker`:")
    output.print(f"  examination: {{use: position_based, probabilities: [{shares}]}}", markup=False)
    output.print(f"  position_bias: weights\n  examination: [{shares}]", markup=False)


def forget_user(
    user: Annotated[str, typer.Argument(help="The user id, as requests name it.")],
    wait_s: Annotated[float, typer.Option(help="How long a running server has to do it, in seconds.")] = 30.0,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Erase a user from the log and the ledger, and what was learnt from them; safe while servers run."""
    from explorank.assembly import clock_of, learner_at_rest
    from explorank.budgets import forget_visitor
    from explorank.settings import load_settings

    settings = load_settings(config)
    learner = learner_at_rest(settings)
    try:
        with errors.status("erasing"):
            decisions = learner.forget(user, clock_of(settings)(), wait_s=wait_s)
        forget_visitor(settings, user)
    finally:
        learner.close()
    output.print(
        f"user {escape(user)}: {decisions:,} decisions erased, with what was shown, earned and learnt"
        if decisions
        else f"user {escape(user)}: no decision in the log"
    )
