"""Draws what each policy does, for its page in docs/policies: `python -m benchmarks.policy_plots`.

Every plot is computed by the policy itself, in a small request that its title and axes describe. With tens of
thousands of posterior draws the propensities are smooth; the same code gives the same files.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import special, stats

from explorank.hooks.exploration import (
    EXP3,
    UCB1,
    BetaThompson,
    BootstrappedThompson,
    DisjointLinearThompson,
    DisjointLinUCB,
    EpsilonGreedy,
    GaussianThompson,
    Greedy,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralLinear,
    PlackettLuce,
    Policy,
    RankingBatch,
    RewardBatch,
    SlotStrategies,
    Softmax,
    SquareCB,
    Uniform,
    position_propensities,
)
from explorank.hooks.types import FloatArray

FOLDER: Final = Path(__file__).parents[1] / "docs" / "policies" / "plots"
# Okabe and Ito, *Color Universal Design* (2008): told apart by the colour-blind, and legible on white.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#666666"
COLOURS: Final = (BLUE, VERMILION, GREEN, PURPLE)
MANY: Final = 20_000
# They bring lists and float64 to their own types.
candidates: Final[Callable[..., RankingBatch]] = RankingBatch
rewards_of: Final[Callable[..., RewardBatch]] = RewardBatch
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 8,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    # The same plot is the same file.
    "svg.hashsalt": "explorank",
}
PLOTS: Final[dict[str, Callable[[], Figure]]] = {}
Plot = Callable[[], Figure]


def plot_of(policy: type[Policy[Any]]) -> Callable[[Plot], Plot]:
    """Register the plot of a policy's page."""

    def register(draw: Plot) -> Plot:
        PLOTS[policy.name] = draw
        return draw

    return register


def panels(
    *titles: str, height: float = 2.5, rows: int = 1, heights: Sequence[float] = (1,), share: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a pair of axes under each title, `rows` of them."""
    columns = len(titles) // rows
    figure = Figure(figsize=(7.4, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights, sharex=share).ravel().tolist()
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
    return figure, axes


def say(axis: Axes, x: float, y: float, text: str, colour: str, **options: Any) -> None:
    """Write a label at (x, y) of the data, a little to the right unless said otherwise."""
    given = {"xytext": (4, 0), "va": "center", "ha": "left", **options}
    axis.annotate(text, (x, y), textcoords="offset points", color=colour, **given)


def shares(policy: Policy[Any], state: Any, batch: RankingBatch) -> FloatArray:
    """Return the probability of each candidate for the first slot, (n,)."""
    everyone = np.ones(len(batch), dtype=np.bool_)
    contest = policy.contest(state, batch, everyone, np.random.Generator(np.random.PCG64(1)))
    return contest.distribution(everyone)


# Policies around the ranker's scores: ten candidates, the two best of which nearly tie.

SCORES: Final = np.array([0.100, 0.097, 0.085, 0.070, 0.062, 0.055, 0.040, 0.031, 0.020, 0.012])


def around_scores(
    options: Sequence[tuple[str, Policy[Any], int]], slate_of: Policy[Any], named: str, *, tie: bool = False
) -> Figure:
    """Draw p by score for each policy, each labelled at one candidate, and where a slate puts whom."""
    scores = np.where(SCORES == 0.097, 0.100, SCORES) if tie else SCORES
    batch = candidates(np.arange(len(scores)), scores=scores)
    figure, (left, right) = panels("In the first slot", f"Over five slots: percent, {named}", height=2.7)
    for (label, policy, at), colour in zip(options, COLOURS, strict=False):
        p = shares(policy, policy.initial_state(), batch)
        left.plot(scores, p, "o", color=colour, markersize=4)
        left.plot(scores, p, color=colour, linewidth=0.6, alpha=0.4)
        say(left, scores[at], p[at], label, colour, xytext=(-6, 6), ha="right")
    left.set(xlabel="score", ylabel="propensity", xlim=(0.005, 0.107), ylim=(0.0, None))
    left.margins(y=0.2)
    percent = (
        100.0
        * position_propensities(slate_of, slate_of.initial_state(), batch, 5, samples=4_000).probabilities
    )
    cells(right, percent, "candidate, best first")
    return figure


def cells(axis: Axes, percent: FloatArray, xlabel: str) -> None:
    """Draw a table of percentages, (slots, n), shaded."""
    axis.pcolormesh(
        percent, cmap="Blues", vmin=0.0, vmax=max(60.0, percent.max()), edgecolors="white", linewidth=0.8
    )
    for (slot, row), value in np.ndenumerate(percent):
        dark = value > 40.0
        text = f"{value:.0f}" if value >= 0.5 or value == 0.0 else "<1"
        axis.text(
            row + 0.5, slot + 0.52, text, ha="center", va="center", color="white" if dark else "black", size=7
        )
    axis.set(xlabel=xlabel, ylabel="slot", ylim=(len(percent), 0))
    axis.set_xticks(np.arange(percent.shape[1]) + 0.5, [str(1 + row) for row in range(percent.shape[1])])
    axis.set_yticks(np.arange(len(percent)) + 0.5, [str(slot) for slot in range(len(percent))])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


@plot_of(Greedy)
def greedy() -> Figure:
    """Show that only a tie leaves anything to chance."""
    return around_scores([("two that tie", Greedy(), 0)], Greedy(), "two that tie", tie=True)


@plot_of(Uniform)
def uniform() -> Figure:
    """Show that every candidate is alike in every slot."""
    return around_scores([("1 / 10 each", Uniform(), 4)], Uniform(), "all alike")


@plot_of(EpsilonGreedy)
def epsilon_greedy() -> Figure:
    """Show that the best has what chance leaves it."""
    options = [(f"epsilon = {epsilon}", EpsilonGreedy(epsilon), 0) for epsilon in (0.9, 0.5, 0.1)]
    return around_scores(options, EpsilonGreedy(0.5), "epsilon = 0.5")


@plot_of(Softmax)
def softmax() -> Figure:
    """Show that near misses are shown nearly as often."""
    options = [(f"T = {t}", Softmax(t), at) for t, at in ((0.005, 0), (0.02, 2), (0.1, 6))]
    return around_scores(options, Softmax(0.02, floor=0.05), "T = 0.02, floor = 0.05")


@plot_of(PlackettLuce)
def plackett_luce() -> Figure:
    """Show the head of a random ranking."""
    options = [(f"T = {t}", PlackettLuce(t), at) for t, at in ((0.005, 0), (0.02, 2), (0.1, 6))]
    return around_scores(options, PlackettLuce(0.005), "T = 0.005")


@plot_of(SquareCB)
def square_cb() -> Figure:
    """Show that shares fall with the inverse of the gap."""
    options = [
        (f"gamma = {gamma:,}", SquareCB(gamma), at) for gamma, at in ((10_000, 0), (1_000, 0), (100, 0))
    ]
    return around_scores(options, SquareCB(1_000.0), "gamma = 1,000")


# Policies that know items one by one.


@plot_of(UCB1)
def ucb1() -> Figure:
    """Show an index of mean and width, and how it falls."""
    policy = UCB1(floor=0.1)
    counts, means = np.array([4_000.0, 900.0, 250.0, 60.0]), np.array([0.30, 0.33, 0.20, 0.10])
    ids = np.arange(4)
    rewards = rewards_of(
        np.repeat(ids, 2), [1.0, 0.0] * 4, weights=np.array([counts * means, counts * (1 - means)]).T.ravel()
    )
    state = policy.learn(policy.initial_state(), rewards)
    index, p = policy.indices(state, ids.tolist()), shares(policy, state, candidates(ids))
    figure, (left, right) = panels("Four items, floor = 0.1", "An item of mean 0.1, as its rewards come")
    left.vlines(ids, means, index, color=BLUE, linewidth=1.2)
    left.plot(ids, means, "o", color=BLUE, markersize=4)
    left.plot(ids, index, "_", color=BLUE, markersize=10)
    for row in range(4):
        say(
            left,
            row,
            index[row],
            f"p = {p[row]:.3f}",
            VERMILION if p[row] == p.max() else GREY,
            xytext=(0, 7),
            ha="center",
        )
    say(left, 0, means[0], "mean", GREY, xytext=(6, -2))
    say(left, 0, index[0], "index", GREY, xytext=(7, -3))
    left.set_xticks(ids, [f"{count:,.0f}" for count in counts])
    left.set(xlabel="rewards of the item", ylabel="reward", xlim=(-0.7, 3.5), ylim=(0, index.max() * 1.15))
    n = np.geomspace(10, 10_000, 60)
    for total, colour in ((1e6, VERMILION), (1e4, BLUE)):
        width = np.sqrt(2.0 * np.log(total) / n)
        right.plot(n, 0.1 + width, color=colour)
        say(right, n[0], 0.1 + width[0], f"N = {total:,.0f}", colour, xytext=(22, 2 if total > 1e5 else -24))
    right.axhline(0.1, color=GREY, linewidth=0.8)
    say(right, 10, 0.1, "mean", GREY, xytext=(2, 6))
    right.set(xscale="log", xlabel="rewards of the item", ylabel="index", ylim=(0, None))
    return figure


def as_evidence_comes(axis: Axes, ms: FloatArray, p: FloatArray, labels: Sequence[str], floor: float) -> None:
    """Draw the propensity of each item, (len(ms), items), over how many rewards each has."""
    for row, (label, colour) in enumerate(zip(labels, COLOURS, strict=False)):
        axis.plot(ms, p[:, row], color=colour)
        # Beside the steepest part: the leader's rises, the others' fall.
        at = int(np.argmax(p[:, row] > 0.62 if row == 0 else p[:, row] < 0.62 * p[0, row]))
        offset, side = ((5, 4), "left") if row == 1 else ((-5, 3 if row == 0 else -4), "right")
        say(axis, ms[at], p[at, row], label, colour, xytext=offset, ha=side)
    axis.axhline(floor / len(labels), color=GREY, linewidth=0.8, linestyle=":")
    say(axis, ms[-1], floor / len(labels), "the floor", GREY, xytext=(0, 6), ha="right")
    axis.set(xscale="log", xlabel="rewards of each item", ylabel="propensity", ylim=(0, 1.02))


@plot_of(BetaThompson)
def beta_thompson() -> Figure:
    """Show posteriors, and what they are worth."""
    policy, rates = BetaThompson(floor=0.05, draws=MANY), np.array([0.10, 0.08, 0.06])
    labels = [f"{rate:.0%}" for rate in rates]
    figure, (left, right) = panels("What is known after 300 rewards each", "As evidence comes, floor = 0.05")
    x = np.linspace(0.0, 0.18, 200)
    for rate, label, colour in zip(rates, labels, COLOURS, strict=False):
        density = stats.beta(1 + 300 * rate, 1 + 300 * (1 - rate)).pdf(x)
        left.plot(x, density, color=colour)
        left.fill_between(x, density, color=colour, alpha=0.12, linewidth=0)
        say(left, x[density.argmax()], density.max(), f"{label} of rewards are 1", colour, xytext=(6, 3))
    left.set(xlabel="success rate", ylabel="density", ylim=(0, None), xlim=(0, 0.18))
    ms, p = np.geomspace(1, 100_000, 40), []
    for m in ms:
        weights = np.array([m * rates, m * (1 - rates)]).T.ravel()
        rewards = rewards_of(np.repeat(np.arange(3), 2), [1.0, 0.0] * 3, weights=weights)
        p.append(shares(policy, policy.learn(policy.initial_state(), rewards), candidates(np.arange(3))))
    as_evidence_comes(right, ms, np.array(p), labels, policy.floor)
    return figure


@plot_of(GaussianThompson)
def gaussian_thompson() -> Figure:
    """Show that the more uncertain a challenger is, the more it is tried."""
    figure, (left, right) = panels(
        "A challenger, against an item known to ±0.05", "As evidence comes, noise 1"
    )
    policy = GaussianThompson(prior_precision=1e-6, floor=0.05, draws=MANY)
    deviations = np.geomspace(0.02, 3.0, 40)
    for gap, colour in zip((0.0, 0.1, 0.3, 1.0), COLOURS, strict=False):
        p = []
        for deviation in deviations:
            rewards = rewards_of([0, 1], [1.0, 1.0 - gap], weights=[0.05**-2, deviation**-2])
            state = policy.learn(policy.initial_state(), rewards)
            p.append(shares(policy, state, candidates(np.arange(2)))[1])
        left.plot(deviations, p, color=colour)
        at = int(np.argmax(np.array(p) > 0.25)) if gap else 8
        label, offset = (f"{gap} worse", (-5, 4)) if gap else ("as good", (0, 7))
        say(left, deviations[at], p[at], label, colour, xytext=offset, ha="right" if gap else "center")
    left.set(
        xscale="log",
        xlabel="standard deviation of the challenger's mean",
        ylabel="its propensity",
        ylim=(0, 0.62),
    )
    means, ms, by_evidence = np.array([1.0, 0.9, 0.7]), np.geomspace(1, 100_000, 40), []
    for m in ms:
        rewards = rewards_of(np.arange(3), means, weights=np.full(3, m))
        by_evidence.append(
            shares(policy, policy.learn(policy.initial_state(), rewards), candidates(np.arange(3)))
        )
    labels = [f"mean {mean}" for mean in means]
    as_evidence_comes(right, ms, np.array(by_evidence), labels, policy.floor)
    return figure


@plot_of(EXP3)
def exp3() -> Figure:
    """Show a world that turns, and how fast the weights follow."""
    figure, (left, right) = panels("A is better until round 1,000, then B", "What a lead is worth")
    rounds = np.arange(0, 2_501, 25)
    gain_a = np.where(rounds < 1_000, 0.6 * rounds, 600 + 0.4 * (rounds - 1_000))
    gain_b = np.where(rounds < 1_000, 0.4 * rounds, 400 + 0.6 * (rounds - 1_000))
    for eta, colour, at in ((0.05, VERMILION, 70), (0.01, BLUE, 26), (0.002, GREEN, 84)):
        policy = EXP3(gamma=0.1, eta=eta)
        p = []
        for both in zip(gain_a, gain_b, strict=True):
            rewards = rewards_of(["a", "b"], [1.0, 1.0], propensities=[0.5, 0.5], weights=np.array(both) / 2)
            p.append(shares(policy, policy.learn(policy.initial_state(), rewards), candidates(["a", "b"]))[0])
        left.plot(rounds, p, color=colour)
        say(
            left,
            rounds[at],
            p[at],
            f"eta = {eta}",
            colour,
            xytext={0.05: (5, 5), 0.01: (8, -8), 0.002: (-8, 9)}[eta],
        )
    left.axvline(1_000, color=GREY, linewidth=0.8, linestyle=":")
    left.set(xlabel="round", ylabel="propensity of A", ylim=(0, 1.02))
    lead = np.linspace(-300, 300, 121)
    for eta, colour, at in ((0.05, VERMILION, 69), (0.01, BLUE, 92), (0.002, GREEN, 108)):
        worth = 0.9 * special.expit(eta * lead) + 0.05
        right.plot(lead, worth, color=colour)
        say(
            right,
            lead[at],
            worth[at],
            f"eta = {eta}",
            colour,
            xytext=(-4, 5) if eta == 0.05 else (3, -8),
            ha="right" if eta == 0.05 else "left",
        )
    right.set(xlabel="gain of A - gain of B", ylabel="propensity of A, gamma = 0.1", ylim=(0, 1.02))
    return figure


# Policies over features: twelve rewards on the left of the axis, candidates all along it.

GRID: Final = np.linspace(-2.0, 2.0, 41)
SEEN: Final = np.linspace(-1.7, 0.2, 12)
HEARD: Final = 0.6 - 0.5 * (SEEN + 0.8) ** 2 + 0.15 * np.cos(7.0 * SEEN)


def lifted(x: FloatArray) -> FloatArray:
    """Return the features of candidates at x: a constant, x and its square, (n, 3)."""
    return np.column_stack((np.ones_like(x), x, x * x))


GRID_BATCH: Final = candidates(np.arange(len(GRID)), lifted(GRID))


def belief(axis: Axes, policy: Any, state: Any, of: Callable[[FloatArray], FloatArray] = lambda z: z) -> None:
    """Draw the mean and two standard deviations of what is expected along the axis."""
    mean, covariance = policy.posterior(state)
    x = lifted(GRID)
    middle, spread = x @ mean, 2.0 * np.sqrt(np.vecdot(x @ covariance, x))
    axis.plot(GRID, of(middle), color=BLUE)
    axis.fill_between(GRID, of(middle - spread), of(middle + spread), color=BLUE, alpha=0.15, linewidth=0)


def bars(axis: Axes, p: FloatArray, colour: str = BLUE) -> None:
    """Draw the propensity of each candidate along the axis."""
    gaps = np.full_like(GRID, np.nan)
    # One path for all bars: a patch each would be most of the file.
    x, y = (np.column_stack(ends).ravel() for ends in ((GRID, GRID, gaps), (0.0 * p, p, gaps)))
    axis.plot(x, y, color=colour, linewidth=3.4, solid_capstyle="butt")
    axis.set(
        xlabel="x of the candidate; its features are 1, x, x²", ylabel="propensity", ylim=(0, p.max() * 1.15)
    )


def columns(left: str, right: str) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure with two columns over the axis, each with axes for what is expected and for who is shown."""
    figure, axes = panels(left, right, "", "", rows=2, heights=(3, 2), height=3.6, share=True)
    return figure, list(zip(axes[:2], axes[2:], strict=True))


def heard(axis: Axes, x: FloatArray, values: FloatArray, size: float) -> None:
    """Draw rewards as dots."""
    axis.plot(x, values, "o", color=GREY, markersize=size)


def as_rewards_come(
    policy: Any,
    stages: Sequence[tuple[str, RewardBatch]],
    dots: tuple[FloatArray, FloatArray, float],
    of: Callable[[FloatArray], FloatArray] = lambda z: z,
    **axis: Any,
) -> tuple[Figure, Axes]:
    """Draw what `policy` expects, and whom it shows, after each of two `stages`; return the axes of the first too."""
    figure, drawn = columns(*(title for title, _ in stages))
    for (top, below), (_, rewards) in zip(drawn, stages, strict=True):
        state = policy.learn(policy.initial_state(), rewards)
        belief(top, policy, state, of)
        heard(top, *dots)
        top.set(**axis)
        bars(below, shares(policy, state, GRID_BATCH))
    return figure, drawn[0][0]


@plot_of(LinearThompson)
def linear_thompson() -> Figure:
    """Show that where little is known, much is tried."""
    stages = [
        (title, rewards_of(np.arange(12), HEARD, lifted(SEEN), weights=np.full(12, times)))
        for title, times in (("After 12 rewards (dots)", 1.0), ("After 120 such rewards", 10.0))
    ]
    policy = LinearThompson(dim=3, noise=0.3, draws=MANY, floor=0.1)
    figure, first = as_rewards_come(policy, stages, (SEEN, HEARD, 3), ylim=(-1.6, 2.4), ylabel="reward")
    say(first, 1.0, 0.65, "mean ± 2 sd", BLUE, xytext=(-40, 34))
    return figure


@plot_of(LinUCB)
def lin_ucb() -> Figure:
    """Show that the highest index has all but the floor."""
    figure, drawn = columns("alpha = 1", "alpha = 0: greedy")
    rewards = rewards_of(np.arange(12), HEARD, lifted(SEEN))
    for (top, below), alpha in zip(drawn, (1.0, 0.0), strict=True):
        policy = LinUCB(dim=3, noise=0.3, prior_precision=1.0, alpha=alpha, floor=0.2)
        state = policy.learn(policy.initial_state(), replace(rewards, weights=np.full(12, 0.2)))
        mean, covariance = policy.posterior(state)
        x = lifted(GRID)
        index = x @ mean + alpha * np.sqrt(np.vecdot(x @ covariance, x))
        belief(top, policy, state)
        heard(top, SEEN, HEARD, 3)
        top.plot(GRID, index, color=VERMILION, linewidth=1.2)
        top.plot(GRID[index.argmax()], index.max(), "o", color=VERMILION, markersize=5)
        top.set(ylim=(-2.0, 2.4), ylabel="reward")
        bars(below, shares(policy, state, GRID_BATCH), VERMILION)
    first, _ = drawn[0]
    say(first, 0.9, 1.2, "index", VERMILION, xytext=(-4, 8), ha="right")
    say(first, 1.45, -1.7, "mean ± 2 sd", BLUE, xytext=(0, 0), ha="center")
    return figure


@plot_of(LogisticThompson)
def logistic_thompson() -> Figure:
    """Show clicks, whose noise follows from their rate."""
    seen = np.linspace(-1.7, 0.2, 60)
    clicks = np.isin(np.arange(60), (14, 27, 38, 46, 51, 57)).astype(np.float64)
    stages = [
        (title, rewards_of(np.arange(60 * times), np.tile(clicks, times), lifted(np.tile(seen, times))))
        for title, times in (("After 60 views, 6 clicks (dots)", 1), ("After 600 views, 60 clicks", 10))
    ]
    policy = LogisticThompson(dim=3, draws=MANY, floor=0.1)
    figure, first = as_rewards_come(
        policy, stages, (seen, clicks, 2.5), special.expit, ylim=(-0.05, 1.05), ylabel="P(click)"
    )
    say(first, 1.0, 0.6, "mean ± 2 sd", BLUE, xytext=(-78, 6))
    return figure


@plot_of(BootstrappedThompson)
def bootstrapped_thompson() -> Figure:
    """Show replicates of a parabola, and of any smooth curve."""
    figure, drawn = columns("scorer: linear", "scorer: fourier")
    rng = np.random.default_rng(3)
    seen = np.linspace(-1.7, 1.2, 45)
    values = np.exp(-4.0 * (seen + 0.6) ** 2) + 0.08 * rng.standard_normal(45)
    for (top, below), scorer in zip(drawn, ("linear", "fourier"), strict=True):
        made = BootstrappedThompson(dim=3, noise=0.2, floor=0.1)
        policy = (
            made if scorer == "linear" else replace(made, scorer="fourier", components=48, length_scale=0.6)
        )
        state: Any = policy.learn(policy.initial_state(), rewards_of(np.arange(45), values, lifted(seen)))
        x = lifted(GRID)
        linear = scorer == "linear"
        lines = state.coefficients @ x.T if linear else policy._scored.scorer.predict(state.model, x)
        top.plot(GRID, lines[:12].T, color=BLUE, linewidth=0.5, alpha=0.5)
        heard(top, seen, values, 2)
        top.set(ylim=(-1.3, 2.2), ylabel="reward")
        bars(below, shares(policy, state, GRID_BATCH))
    say(drawn[1][0], 1.3, 1.2, "12 of 64 replicates", BLUE, xytext=(-88, 16))
    return figure


@plot_of(NeuralLinear)
def neural_linear() -> Figure:
    """Show that the noise is learnt, and with it how much is explored."""
    figure, drawn = columns("Rewards close to a line", "The same line, rewards far from it")
    policy = NeuralLinear(dim=3, draws=MANY, floor=0.1, noise_shape=2.0)
    seen = np.linspace(-1.7, 0.2, 40)
    # Signs that no line through the points can follow.
    signs = np.where(np.arange(40) // 2 % 2 == 0, 1.0, -1.0)
    x = lifted(GRID)
    for (top, below), scatter in zip(drawn, (0.1, 1.0), strict=True):
        values = 0.1 - 0.2 * seen + scatter * signs
        state = policy.learn(policy.initial_state(), rewards_of(np.arange(40), values, lifted(seen)))
        covariance = state.belief.factor @ state.belief.factor.T * state.noise**2
        middle, spread = x @ state.belief.mean, 2.0 * np.sqrt(np.vecdot(x @ covariance, x))
        top.plot(GRID, middle, color=BLUE)
        top.fill_between(GRID, middle - spread, middle + spread, color=BLUE, alpha=0.15, linewidth=0)
        heard(top, seen, values, 2.5)
        top.set(ylim=(-2.2, 2.4), ylabel="reward")
        say(top, 0.3, 1.9, f"noise learnt: {state.noise:.2f}", BLUE)
        bars(below, shares(policy, state, GRID_BATCH))
    return figure


HOURS: Final = np.linspace(0.0, 24.0, 97)


def by_hour(hours: FloatArray) -> FloatArray:
    """Return a constant and the hour as a point on a circle, (n, 3)."""
    angle = hours * (2.0 * np.pi / 24.0)
    return np.column_stack((np.ones_like(hours), np.cos(angle), np.sin(angle)))


def disjoint(policy: Any) -> Figure:
    """Draw three arms that answer to the hour, each in its own way, and who is shown when."""
    figure, (left, right) = panels(
        "What each arm is expected to earn, ± 2 sd", "Who is shown, floor = 0.1", height=2.7
    )
    arms = np.array(["news", "film", "song"])
    morning, evening = (
        0.25 + 0.15 * np.cos((HOURS - 8) * np.pi / 12),
        0.25 + 0.15 * np.cos((HOURS - 21) * np.pi / 12),
    )
    seen = {
        "news": (HOURS, morning, 3.0),
        "film": (HOURS, evening, 3.0),
        "song": (HOURS[40:60], np.full(20, 0.2), 0.3),
    }
    state = policy.initial_state()
    for arm, (hours, values, weight) in seen.items():
        m = len(hours)
        state = policy.learn(
            state, rewards_of(np.repeat(arm, m), values, by_hour(hours), weights=np.full(m, weight))
        )
    p = np.array(
        [shares(policy, state, candidates(arms, np.repeat(by_hour(hour[None]), 3, axis=0))) for hour in HOURS]
    )
    for row, (arm, colour) in enumerate(zip(arms, COLOURS, strict=False)):
        mean, covariance = (each[state.item_ids.tolist().index(arm)] for each in policy.posterior(state))
        x = by_hour(HOURS)
        middle, spread = x @ mean, 2.0 * np.sqrt(np.vecdot(x @ covariance, x))
        left.plot(HOURS, middle, color=colour)
        left.fill_between(HOURS, middle - spread, middle + spread, color=colour, alpha=0.15, linewidth=0)
        right.plot(HOURS, p[:, row], color=colour)
        at = {"news": 32, "film": 84, "song": 16}[arm]
        say(left, HOURS[at], middle[at], arm, colour, xytext=(0, 6), ha="center")
        top = {"news": 32, "film": 80, "song": 58}[arm]
        say(right, HOURS[top], p[top, row], arm, colour, xytext=(0, 6), ha="center")
    for axis in (left, right):
        axis.set(xlabel="hour of the day", xlim=(0, 24))
        axis.set_xticks([0, 6, 12, 18, 24])
    left.set_ylabel("reward")
    right.set(ylabel="propensity", ylim=(0, 1.1))
    return figure


@plot_of(DisjointLinearThompson)
def disjoint_linear_thompson() -> Figure:
    """Show that an arm which was tried at noon only is tried at other hours."""
    return disjoint(DisjointLinearThompson(dim=3, noise=0.4, prior_precision=20.0, floor=0.1, draws=MANY))


@plot_of(DisjointLinUCB)
def disjoint_lin_ucb() -> Figure:
    """Show the same arms, by their indices."""
    return disjoint(DisjointLinUCB(dim=3, noise=0.4, prior_precision=20.0, floor=0.1, alpha=1.0))


@plot_of(SlotStrategies)
def slot_strategies() -> Figure:
    """Show what each slot has learnt of each strategy, and follows."""
    named = ("score", "newest", "popular")
    policy = SlotStrategies(named, prior_mean=0.1, prior_precision=50.0, noise=0.4, floor=0.05, draws=MANY)
    slots = np.arange(6)
    means = {
        "score": 0.30 - 0.045 * slots,
        "newest": 0.14 + 0.02 * np.minimum(slots, 2) - 0.012 * slots,
        "popular": 0.12 + 0.012 * slots,
    }
    state = policy.initial_state()
    for strategy, values in means.items():
        rewards = rewards_of(
            np.arange(6), values, slots=slots, strategies=np.repeat(strategy, 6), weights=np.full(6, 60.0)
        )
        state = policy.learn(state, rewards)
    figure, (left, right) = panels(
        "What 60 rewards say of each, mean ± sd", "Which strategy each slot follows"
    )
    rng = np.random.Generator(np.random.PCG64(1))
    known = [policy.posterior(state, int(slot)) for slot in slots]
    drawn = [mean[:, None] + sd[:, None] * rng.standard_normal((3, MANY)) for mean, sd in known]
    followed = np.array([np.bincount(draws.argmax(axis=0), minlength=3) / MANY for draws in drawn])
    for row, (strategy, colour) in enumerate(zip(named, COLOURS, strict=False)):
        mean, sd = (np.array([each[part][row] for each in known]) for part in (0, 1))
        at = slots + 0.12 * (row - 1)
        left.errorbar(at, mean, sd, fmt="o", color=colour, markersize=3.5, linewidth=1.0)
        slot, side, above = ((0, "left", 0.0), (2, "center", -1.0), (5, "center", 1.0))[row]
        height = mean[slot] + above * sd[slot]
        say(left, at[slot], height, strategy, colour, xytext=(0 if above else 6, 6 * above), ha=side)
        right.plot(slots, followed[:, row], "o-", color=colour, markersize=3.5)
        say(right, slots[-1], followed[-1, row], strategy, colour)
    left.set(xlabel="slot", ylabel="reward", ylim=(0, 0.4))
    right.set(xlabel="slot", ylabel="share of the draws", ylim=(0, 1), xlim=(-0.2, 6.1))
    for axis in (left, right):
        axis.set_xticks(slots)
    return figure


def compact(svg: str) -> str:
    """Return the same image with coordinates to a hundredth of a point, and without what nobody sees."""

    def rounded(tag: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{3,}", lambda one: f"{float(one[0]):.2f}".rstrip("0").rstrip("."), tag[0])

    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", rounded, svg)  # between the tags stand the labels
    return re.sub(r"\s*\n\s*", "\n", svg)


def main() -> None:
    """Write all plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--format", choices=["svg", "png"], default="svg", help="png to look at; pages have svg"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name, draw in PLOTS.items():
            written = io.BytesIO()
            draw().savefig(written, format=given.format, dpi=110)
            content = written.getvalue()
            if given.format == "svg":
                content = compact(content.decode()).encode()
            (given.folder / f"{name}.{given.format}").write_bytes(content)


if __name__ == "__main__":
    main()
