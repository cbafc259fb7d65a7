"""Regret curves: each library's best, with intervals over the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats

from benchmarks import plotting
from benchmarks.regret import theory
from benchmarks.regret.play import checkpoints
from benchmarks.regret.summary import LEVEL, best_of_each
from benchmarks.regret.tournament import Outcome
from benchmarks.regret.worlds import LABELLED, RARE, SPACED, Numbers

FIGURES: Final[dict[str, tuple[str, ...]]] = {
    "arms": ("spaced", "rare", "many", "late"),
    "linear": ("linear", "churning", "batches", "clicks"),
    "contexts": ("disjoint", "abrupt", "slow"),
    "classes": tuple(LABELLED),
}


def draw(outcomes: Mapping[str, Outcome], folder: Path) -> list[Path]:
    """Write a figure for each group of worlds that was played, and return the paths."""
    written = []
    for figure, names in FIGURES.items():
        played = [name for name in names if name in outcomes]
        if not played:
            continue
        path = folder / f"{figure}.svg"
        with plotting.panels(path, [outcomes[name].recipe.title for name in played]) as axes:
            for axis, name in zip(axes, played, strict=True):
                _panel(axis, name, outcomes[name])
        written.append(path)
    return written


def half_widths(regret: Numbers) -> Numbers:
    """Return half the interval of the mean at each checkpoint, (C,)."""
    seeds = len(regret)
    width: Numbers = stats.t.ppf((1.0 + LEVEL) / 2.0, seeds - 1) * regret.std(axis=0, ddof=1) / np.sqrt(seeds)
    return width


def _panel(axis: Any, name: str, outcome: Outcome) -> None:
    at = checkpoints(outcome.rounds)
    ends = []
    for result in best_of_each(outcome):
        colour = plotting.COLOURS[result.library]
        mean = result.regret.mean(axis=0)
        plotting.curve(axis, at, mean, half_widths(result.regret), colour)
        ends.append((float(mean[-1]), f"{result.library}:\n{result.contestant}", colour))
    known = {"spaced": SPACED, "rare": RARE}.get(name)
    highest = 3.0 * float(np.median([end for end, _, _ in ends]))
    line = np.zeros(1) if known is None else theory.lai_robbins(known) * np.log(at)
    if known is not None and line[-1] < highest:  # else T is too small for it to say anything
        axis.plot(at, line, color=plotting.GREY, linestyle=":")
        ends.append((float(line[-1]), "Lai-Robbins c·ln T", plotting.GREY))
    axis.set_ylim(0, min(axis.get_ylim()[1], highest))
    axis.set_xlabel("rounds")
    axis.set_ylabel("regret")
    low, high = axis.get_ylim()
    plotting.label_ends(
        axis, float(at[-1]), [(min(max(end, low), high), text, colour) for end, text, colour in ends], 0.17
    )
