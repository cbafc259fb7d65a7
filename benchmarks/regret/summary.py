"""What a tournament says: intervals, paired differences, verdicts, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats

from benchmarks.regret import theory
from benchmarks.regret.play import checkpoints
from benchmarks.regret.tournament import OURS, Outcome, Result
from benchmarks.regret.worlds import ARMS, DIM, NOISE, RARE, SPACED, Numbers

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Numbers) -> Interval:
        """Return Student's interval of the mean of `values`, one per seed."""
        mean = float(values.mean())
        if len(values) < 2:
            return cls(mean, -np.inf, np.inf)
        half = float(
            stats.t.ppf((1.0 + LEVEL) / 2.0, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        )
        return cls(mean, mean - half, mean + half)

    def __str__(self) -> str:
        return f"{short(self.mean)} ({short(self.low)} to {short(self.high)})"


@dataclass(frozen=True)
class Comparison:
    """Explorank's best against the best of the libraries, on the same seeds."""

    ours: Result
    theirs: Result
    difference: Interval
    """Ours less theirs: below 0, less regret."""

    @property
    def verdict(self) -> str:
        """What the interval says."""
        if self.difference.high < 0.0:
            return "less"
        return "MORE" if self.difference.low > 0.0 else "no difference shown"


def final(result: Result) -> Numbers:
    """Return the regret at the end of each seed, (seeds,)."""
    ended: Numbers = result.regret[:, -1]
    return ended


def compare(outcome: Outcome) -> Comparison | None:
    """Return the comparison, or `None` where one side has nobody.

    Either side's best is the one that lost least on the very seeds that are compared. Such hindsight flatters the
    side with more contestants, which is the libraries'.
    """
    ours = [result for result in outcome.results if result.library == OURS]
    theirs = [result for result in outcome.results if result.library != OURS]
    if not ours or not theirs:
        return None
    best, rival = (min(side, key=lambda result: float(final(result).mean())) for side in (ours, theirs))
    return Comparison(best, rival, Interval.of(final(best) - final(rival)))


def best_of_each(outcome: Outcome) -> list[Result]:
    """Return each library's best, Explorank's first."""
    best: dict[str, Result] = {}
    for result in sorted(outcome.results, key=lambda result: float(final(result).mean())):
        best.setdefault(result.library, result)
    return sorted(best.values(), key=lambda result: (result.library != OURS, result.library))


def verdicts(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return the lines of the table that says who lost less, world by world."""
    lines = [
        "| world | rounds | Explorank's best | regret | best library | regret | difference, paired | Explorank loses |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes.values():
        found = compare(outcome)
        if found is None:
            continue
        lines.append(
            f"| {outcome.recipe.title} | {outcome.rounds:,} | {_named(found.ours)} | {Interval.of(final(found.ours))} "
            f"| {found.theirs.library} {_named(found.theirs)} | {Interval.of(final(found.theirs))} "
            f"| {found.difference} | {found.verdict} |"
        )
    return lines


def everyone(outcome: Outcome) -> list[str]:
    """Return the lines of one world's table: all contestants, the least regret first."""
    ordered = sorted(outcome.results, key=lambda result: float(final(result).mean()))
    return [
        "| | regret | chosen setting | as it comes, by the chosen one | µs a round |",
        "|---|---|---|---|---|",
        *(
            f"| {result.name} | {Interval.of(final(result))} | {result.setting} | {_unasked(result)} "
            f"| {result.us_per_round:,.0f} |"
            for result in ordered
        ),
        *(f"\n{failure}" for failure in outcome.failures),
    ]


def _unasked(result: Result) -> str:
    """Return how much more the first setting lost on the tuning seeds, as a ratio."""
    first = next(iter(result.tuning.values()))
    return "1" if result.tuned == first else f"{first / max(result.tuned, 1e-9):.2f}"


def against_theory(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return the lines of the table of what is known beforehand."""
    lines = ["| world | policy | measured | known |", "|---|---|---|---|"]
    for name, rates in (("spaced", SPACED), ("rare", RARE)):
        if name not in outcomes:
            continue
        constant = theory.lai_robbins(rates)
        at = checkpoints(outcomes[name].rounds)
        for result in _ours(outcomes[name]):
            slopes = Interval.of(np.array([theory.slope(curve, at) for curve in result.regret]))
            lines.append(
                f"| {outcomes[name].recipe.title} | {_named(result)} | regret per e-fold of rounds, from T/10 to T: "
                f"{slopes} | Lai and Robbins: {short(constant)} as T grows |"
            )
    for name in ("linear", "churning"):
        if name not in outcomes:
            continue
        rounds = outcomes[name].rounds
        at = checkpoints(rounds)
        bound = theory.information_bound(DIM, ARMS, float(np.sqrt(1.0 + NOISE**2)), at)[-1]
        for result in _ours(outcomes[name]):
            mean = result.regret.mean(axis=0)
            known = (
                f"Russo and Van Roy, for Thompson sampling: at most {short(float(bound))}"
                if name == "linear"
                else "exponent 0.5 at most, but for logarithms"
            )
            lines.append(
                f"| {outcomes[name].recipe.title} | {_named(result)} | {Interval.of(final(result))}, growing with the "
                f"power {theory.growth(mean, at):.2f} of T | {known} |"
            )
    return lines


def _ours(outcome: Outcome) -> list[Result]:
    return [result for result in outcome.results if result.library == OURS]


def _named(result: Result) -> str:
    return f"{result.contestant} ({result.setting})"


def short(number: float) -> str:
    """Return a number as a table has it."""
    return f"{number:,.0f}" if abs(number) >= 100.0 else f"{number:.3g}"


def to_dict(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return what is kept as JSON: ends of regret by seed, and what was chosen."""
    return {
        name: {
            "title": outcome.recipe.title,
            "rounds": outcome.rounds,
            "failures": list(outcome.failures),
            "results": [_kept(result) for result in outcome.results],
        }
        for name, outcome in outcomes.items()
    }


def _kept(result: Result) -> dict[str, Any]:
    return {
        "library": result.library,
        "contestant": result.contestant,
        "setting": result.setting,
        "tuning": {setting: round(value, 2) for setting, value in result.tuning.items()},
        "regret": [round(value, 2) for value in final(result).tolist()],
        "us_per_round": round(result.us_per_round, 1),
    }
