"""Simulates what the limits on exploration promise, and draws it: `python -m benchmarks.safety`.

Many installations at once, looked at after each block of decisions, as a learner does. The bounds, the budget and
the stop's tests are those of `explorank.hooks.limits`; only the guess of a mean that a bound needs is
renewed once a block rather than once a decision, which is valid too and a little wider. Rewards are 0 or 1. Seeds are
fixed: the same code prints the same table and draws the same files.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from explorank.hooks.limits.confidence import deviation
from explorank.hooks.limits.conservative import affordable
from explorank.hooks.limits.visitors import BUCKETS, fallen
from explorank.hooks.types import FloatArray

FOLDER: Final = Path(__file__).parents[1] / "docs" / "safety"
DAY: Final = 20_000
"""Decisions in a simulated day, where a world has one."""
# Okabe and Ito, *Color Universal Design* (2008): told apart by the colour-blind.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#666666"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "svg.fonttype": "none",
    "svg.hashsalt": "explorank",
    "figure.constrained_layout.use": True,
}

Counts: TypeAlias = NDArray[np.int64]
World: TypeAlias = Callable[[int], float]
"""The baseline's mean per decision, by how many decisions came before."""


def steady(mean: float) -> World:
    """Return a world that never changes."""
    return lambda _: mean


def days(mean: float, swing: float) -> World:
    """Return a world whose mean goes up and down once a day, by `swing` either way."""
    return lambda before: mean * (1.0 + swing * math.sin(2.0 * math.pi * before / DAY))


@dataclass
class Sums:
    """What `BoundedMean` knows, for many installations at once (runs,)."""

    runs: int
    count: FloatArray = field(init=False)
    total: FloatArray = field(init=False)
    squares: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.count, self.total, self.squares = (np.zeros(self.runs) for _ in range(3))

    def add(self, count: FloatArray, ones: FloatArray) -> None:
        """Add `count` (runs,) values, of which `ones` are 1 and the others 0."""
        guess = (0.5 + self.total) / (self.count + 1.0)
        self.squares += ones * (1.0 - guess) ** 2 + (count - ones) * guess**2
        self.count += count
        self.total += ones

    def lower(self, error: float) -> FloatArray:
        """Return the lower bounds on the totals."""
        bound: FloatArray = np.maximum(self.total - deviation(self.squares, error), 0.0)
        return bound

    def upper(self, error: float) -> FloatArray:
        """Return the upper bounds on the totals."""
        bound: FloatArray = np.minimum(self.total + deviation(self.squares, error), self.count)
        return bound


# ---- conservative exploration -------------------------------------------------------------------------


@dataclass(frozen=True)
class Budgeted:
    """What many installations under a budget did, block by block."""

    violated: float
    """The share of installations that were ever below the bound, by their true means."""
    spent: FloatArray
    """(blocks,) what the explore arm had lost by its true means, as a share of the baseline's earnings; the mean over
    installations."""
    worst: float
    """The largest such share that any installation ever had after a fifth of the run."""
    explored: FloatArray
    """(blocks,) the mean share of the explore arm's decisions that explored, in that block."""


def budgeted(
    world: World,
    worth: float,
    *,
    alpha: float = 0.1,
    confidence: float = 0.95,
    baseline: float = 0.25,
    runs: int = 500,
    blocks: int = 400,
    block: int = 250,
    delay: int = 2,
    visitors: float = math.inf,
    seed: int = 0,
) -> Budgeted:
    """Run installations whose policy earns `worth` times the baseline; rewards settle `delay` blocks later.

    With so many regular `visitors`, each worth something else (Beta with 5 pseudo-counts), the arms differ by the
    luck of the deal for as long as the run lasts.
    """
    chance, error = np.random.default_rng(seed), 1.0 - confidence
    base, explored = Sums(runs), Sums(runs)
    still_open, held, lost, due = (np.zeros(runs) for _ in range(4))
    violated, waiting = np.zeros(runs, np.bool_), list[tuple[float, Counts, FloatArray]]()
    spent, share, worst = list[float](), list[float](), 0.0
    level = world(0)
    each = math.sqrt(level * (1.0 - level) / 6.0) / level
    mine = 1.0 + each * chance.standard_normal(runs) / math.sqrt(visitors * (1.0 - baseline))
    theirs = 1.0 + each * chance.standard_normal(runs) / math.sqrt(visitors * baseline)
    for number in range(blocks):
        mean = world(number * block)
        known = np.maximum(base.count, 1.0)
        high = np.where(base.count > 0, base.upper(error / 4) / known, 1.0)
        can = affordable(
            earned=explored.lower(error / 2),
            still_open=still_open,
            explored=explored.count + still_open,
            held_back=held,
            low=base.lower(error / 4) / known,
            high=high,
            minimum=0.0,
            alpha=alpha,
        )
        others = chance.binomial(block, baseline, size=runs)
        now = np.minimum(can, block - others)
        still_open, held = still_open + now, held + (block - others - now)
        lost = lost + now * mean * mine * (1.0 - worth)
        due = due + (block - others) * mean * mine
        violated |= lost > alpha * due + 1e-9
        waiting.append((mean, others, now))
        if len(waiting) > delay:
            then, these, those = waiting.pop(0)
            base.add(these.astype(np.float64), chance.binomial(these, then * theirs).astype(np.float64))
            ones = chance.binomial(those.astype(np.int64), np.minimum(then * mine * worth, 1.0))
            explored.add(those, ones.astype(np.float64))
            still_open = still_open - those
        spent.append(float((lost / due).mean()))
        share.append(float((now / (block - others)).mean()))
        if number >= blocks / 5:
            worst = max(worst, float((lost / due).max()))
    return Budgeted(float(violated.mean()), np.array(spent), worst, np.array(share))


# ---- the automatic stop -------------------------------------------------------------------------------

Traffic: TypeAlias = Callable[[np.random.Generator, int, float, float], tuple[Counts, Counts]]
"""Draws a block for so many runs, with the baseline's mean and what the explore arm earns of it: decisions and ones,
each (runs, 2 arms, buckets)."""

BLOCK: Final = 500


def strangers(baseline: float = 0.3, *, visits: int = 1, spread: float = 5.0) -> Traffic:
    """Return traffic of ever new visitors, each of whom comes `visits` times; `baseline` is that arm's share.

    Where they come more than once, what each is worth varies as Beta with `spread` pseudo-counts.
    """
    shares = np.array([1.0 - baseline, baseline])[:, None]

    def block(chance: np.random.Generator, runs: int, mean: float, worth: float) -> tuple[Counts, Counts]:
        visitors = chance.poisson(np.broadcast_to(BLOCK / visits * shares / BUCKETS, (runs, 2, BUCKETS)))
        means = np.array([min(mean * worth, 1.0), mean])[:, None]
        if visits == 1:
            return visitors, chance.binomial(visitors, means)
        ones = np.zeros_like(visitors)
        for number in range(int(visitors.max())):
            each = chance.beta(means * spread, (1.0 - means) * spread, size=visitors.shape)
            ones += np.where(number < visitors, chance.binomial(visits, each), 0)
        return visitors * visits, ones

    return block


def regulars(*, explore: int = 14, baseline: int = 6, spread: float = 5.0) -> Traffic:
    """Return traffic of the same visitors for ever, so many of each arm in each bucket, dealt by chance once."""
    dealt: list[FloatArray] = []

    def block(chance: np.random.Generator, runs: int, mean: float, worth: float) -> tuple[Counts, Counts]:
        if not dealt:
            dealt.extend(
                chance.beta(mean * spread, (1.0 - mean) * spread, (runs, BUCKETS, number))
                for number in (explore, baseline)
            )
        often = BLOCK / ((explore + baseline) * BUCKETS)
        counts, ones = [], []
        for each, times in zip(dealt, (worth, 1.0), strict=True):
            came = chance.poisson(often, each.shape)
            counts.append(came.sum(axis=-1))
            ones.append(chance.binomial(came, np.minimum(each * times, 1.0)).sum(axis=-1))
        return np.stack(counts, axis=1), np.stack(ones, axis=1)

    return block


class Compared:
    """What a comparison knows, for many installations at once; they share its looks."""

    def __init__(self, runs: int) -> None:
        self.arms = Sums(runs), Sums(runs)
        self.buckets = np.zeros((runs, 2, 2, BUCKETS))
        self.looks, self.count, self._looked_at = 0, 0.0, 0.0

    def add(self, counts: Counts, ones: Counts) -> None:
        """Add a block."""
        for arm, sums in enumerate(self.arms):
            sums.add(counts[:, arm].sum(axis=-1).astype(float), ones[:, arm].sum(axis=-1).astype(float))
        self.buckets[:, :, 0] += counts
        self.buckets[:, :, 1] += ones
        self.count += float(counts.sum(axis=(1, 2)).mean())

    def fires(self, drop: float, error: float, *, with_buckets: bool) -> NDArray[np.bool_]:
        """Return which installations the rule stops now."""
        if 10 * self.count < 11 * self._looked_at:
            return np.zeros(len(self.buckets), np.bool_)
        self.looks, self._looked_at = self.looks + 1, self.count
        explore, base = self.arms
        upper = explore.upper(error / 2) / np.maximum(explore.count, 1.0)
        lower = base.lower(error / 2) / np.maximum(base.count, 1.0)
        verdict: NDArray[np.bool_] = (explore.count > 0) & (upper < (1.0 - drop) * lower)
        if with_buckets:
            verdict &= fallen(self.buckets, drop, error / (self.looks * (self.looks + 1)))
        return verdict


def stopped(
    traffic: Traffic,
    world: World,
    worth: float,
    *,
    drop: float = 0.05,
    false_alarm: float = 0.01,
    runs: int = 1000,
    blocks: int = 200,
    recent: int = 20_000,
    falls_at: int = 0,
    with_buckets: bool = True,
    seed: int = 1,
) -> FloatArray:
    """Return after how many decisions (runs,) each installation was stopped; `inf` where it never was.

    From decision `falls_at` on, the explore arm earns `worth` times the baseline. `with_buckets=False` leaves the
    second condition of the rule out.
    """
    chance, after = np.random.default_rng(seed), np.full(runs, np.inf)
    whole, stretch, number = Compared(runs), Compared(runs), 1
    for at in range(blocks):
        block = traffic(chance, runs, world(at * BLOCK), worth if at * BLOCK >= falls_at else 1.0)
        whole.add(*block)
        stretch.add(*block)
        errors = false_alarm / 2.0, false_alarm / (2.0 * number * (number + 1))
        for comparison, error in zip((whole, stretch), errors, strict=True):
            fires = comparison.fires(drop, error, with_buckets=with_buckets)
            after = np.minimum(after, np.where(fires, (at + 1.0) * BLOCK, np.inf))
        if stretch.count >= recent:
            stretch, number = Compared(runs), number + 1
        if np.isfinite(after).all():
            break
    return after


# ---- tables and plots -----------------------------------------------------------------------------------


def _share(values: NDArray[np.bool_]) -> str:
    """Return a share in per cent with its 95 % interval (Wilson)."""
    n, p = len(values), float(values.mean())
    z = 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{100 * p:.2f} % ({100 * max(middle - half, 0.0):.2f} to {100 * (middle + half):.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def budget_study(*, runs: int, blocks: int) -> tuple[str, dict[str, Budgeted]]:
    """Return the table of what installations under a budget of 10 % did, and their courses."""
    cases: dict[str, tuple[World, float, float]] = {
        "half as good": (steady(0.3), 0.5, 0.25),
        "20 % worse": (steady(0.3), 0.8, 0.25),
        "5 % worse": (steady(0.3), 0.95, 0.25),
        "as good": (steady(0.3), 1.0, 0.25),
        "10 % better": (steady(0.3), 1.1, 0.25),
        "as good, 5 % baseline": (steady(0.3), 1.0, 0.05),
        "as good, mean 0.03": (steady(0.03), 1.0, 0.25),
        "half as good, days of ±50 %": (days(0.3, 0.5), 0.5, 0.25),
    }
    found = {
        name: budgeted(world, worth, baseline=share, runs=runs, blocks=blocks)
        for name, (world, worth, share) in cases.items()
    }
    found["half as good, the same 1,280 visitors for ever"] = budgeted(
        steady(0.3), 0.5, visitors=1280, runs=runs, blocks=blocks
    )
    rows = []
    for name, result in found.items():
        open_ = np.flatnonzero(result.explored >= 0.95)
        rows.append(
            [
                name,
                f"{100 * result.violated:.1f} %",
                f"{100 * result.spent.max():.1f} % ({100 * result.worst:.1f} %)",
                f"{100 * result.explored[-20:].mean():.0f} %",
                f"{(int(open_[0]) + 1) * 250:,}" if len(open_) else "not within the run",
            ]
        )
    head = [
        "policy",
        "ever below",
        "lost at most (the worst run)",
        "explores at the end",
        "95 % explore after",
    ]
    return _table(head, rows), found


def stop_study(*, runs: int, blocks: int) -> str:
    """Return the table of false alarms and of how long falls take to be found."""
    strict: dict[str, Any] = {"drop": 0.0, "false_alarm": 0.1}
    alike: list[tuple[str, Callable[[], Traffic], World]] = [
        ("alike", strangers, steady(0.3)),
        ("alike, mean 0.03", strangers, steady(0.03)),
        ("alike, days of ±50 %", strangers, days(0.3, 0.5)),
        ("alike, everybody comes 50 times", lambda: strangers(visits=50), steady(0.3)),
        ("alike, the same 1,280 visitors for ever", regulars, steady(0.3)),
    ]
    rows = []
    for name, traffic, world in alike:
        both, bounds = (
            np.isfinite(
                stopped(traffic(), world, 1.0, **strict, runs=runs, blocks=blocks, with_buckets=with_buckets)
            )
            for with_buckets in (True, False)
        )
        rows.append([name, "0", "0.1", _share(both), _share(bounds), ""])
    falls: list[tuple[str, Traffic, World, float, int]] = [
        ("10 % less", strangers(), steady(0.3), 0.9, 0),
        ("20 % less", strangers(), steady(0.3), 0.8, 0),
        ("half", strangers(), steady(0.3), 0.5, 0),
        ("half, mean 0.03", strangers(), steady(0.03), 0.5, 0),
        ("half, 5 % baseline", strangers(0.05), steady(0.3), 0.5, 0),
        ("half, after 50,000 as good", strangers(), steady(0.3), 0.5, 50_000),
        ("half, the same 1,280 visitors for ever", regulars(), steady(0.3), 0.5, 0),
    ]
    for name, traffic_, world, worth, falls_at in falls:
        few = min(runs, 300)
        after = stopped(traffic_, world, worth, falls_at=falls_at, runs=few, blocks=2 * blocks, seed=2)
        tenth, middle, ninth = (
            f"{after_:,.0f}" if math.isfinite(after_) else "later"
            for after_ in np.quantile(after - falls_at, [0.1, 0.5, 0.9], method="higher")
        )
        took = f"{middle} ({tenth} to {ninth})"
        rows.append([name, "0.05", "0.01", _share(np.isfinite(after)), "", took])
    head = [
        "explore arm",
        "`drop`",
        "`false_alarm`",
        "stopped",
        "by the bounds alone",
        "after decisions (10 to 90 %)",
    ]
    return _table(head, rows)


def draw_budget(found: dict[str, Budgeted], folder: Path) -> None:
    """Draw what was lost and what explored, over time."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, 2.6))
        left, right = figure.subplots(1, 2)
        names = ("half as good", "20 % worse", "as good", "10 % better")
        for name, colour in zip(names, (VERMILION, PURPLE, BLUE, GREEN), strict=True):
            result = found[name]
            x = (np.arange(len(result.spent)) + 1) * 0.25
            left.plot(x, 100 * result.spent, color=colour)
            right.plot(x, 100 * result.explored, color=colour, label=name)
        left.axhline(10, color=GREY, linestyle="--", linewidth=0.8)
        left.annotate("alpha", (x[-1], 10), ha="right", va="bottom", color=GREY)
        left.set(
            title="Lost so far, % of the baseline's earnings", xlabel="thousand decisions", ylim=(-11, 11)
        )
        right.set(title="Explore arm's decisions that explore, %", xlabel="thousand decisions", ylim=(0, 102))
        right.legend(frameon=False)
        _save(figure, folder / "budget.svg")


def draw_stop(folder: Path, *, runs: int, blocks: int) -> None:
    """Draw how many installations are stopped by when, for falls of several sizes."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, 2.6))
        axes = figure.subplots()
        for worth, name, colour in (
            (0.5, "half", VERMILION),
            (0.8, "20 % less", PURPLE),
            (0.85, "15 % less", BLUE),
            (1.0, "alike", GREEN),
        ):
            after = np.sort(stopped(strangers(), steady(0.3), worth, runs=runs, blocks=blocks, seed=3))
            reached = after[np.isfinite(after)] / 1000
            x = np.concatenate(([0.0], reached, [blocks * 0.5]))
            y = np.concatenate(([0.0], (np.arange(len(reached)) + 1) / runs, [len(reached) / runs]))
            axes.step(x, 100 * y, where="post", color=colour, label=name)
        axes.set(
            title="Installations that were stopped, %",
            xlabel="thousand decisions (30 % of them the baseline's), mean 0.3, drop 0.05, false_alarm 0.01",
            ylim=(-2, 102),
        )
        axes.legend(frameon=False, title="explore arm earns", loc="center left", bbox_to_anchor=(1.0, 0.5))
        _save(figure, folder / "stop.svg")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    # A tenth of a pixel is enough, and coordinates are most of the file.
    text = re.sub(r"(\d+\.\d)\d+", r"\1", drawn.getvalue())
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def main() -> None:
    """Print the tables and draw the plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few installations and short runs, to try it")
    parser.add_argument("--plots", type=Path, default=FOLDER, help="where to draw")
    arguments = parser.parse_args()
    runs, blocks = (50, 40) if arguments.quick else (1000, 400)
    table, found = budget_study(runs=min(runs, 500), blocks=blocks)
    sys.stdout.write(f"{table}\n\n{stop_study(runs=runs, blocks=blocks // 2)}\n")
    draw_budget(found, arguments.plots)
    draw_stop(arguments.plots, runs=min(runs, 300), blocks=blocks // 4)


if __name__ == "__main__":
    main()
