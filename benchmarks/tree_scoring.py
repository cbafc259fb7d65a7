"""How much faster the compiled forest scores than LightGBM, on one thread, for the same scores.

    python -m benchmarks.tree_scoring [--quick] [--json PATH]      (or `make bench-trees`)

**What is measured.** `LightGBMRanker.score`, checks included, beside `Booster.predict(num_threads=1)` on the same
float32 rows. The model is binary, trained here on 20,000 generated rows whose outcome depends on a few products
and sums of normal features; 63 leaves a tree. One size varies at a time; the last lines have missing values and
categories. Before anything is timed, both must give the same scores to the last bit.

**How.** One process, one thread. The two take turns in every round and in the opposite order every other round;
times are CPU times, medians over the rounds, with the quartiles in brackets. The ratio is the median of the
ratios within each round. Within a turn the same rows are scored again and again, so caches are warm for both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from benchmarks.timing import Contestant, measure, repeated
from explorank.rankers import LightGBMRanker

ROWS: Final = 500
FEATURES: Final = 50
TREES: Final = 300
LEAVES: Final = 63
LEAST_RATIO: Final = 6.0
"""What is asked of the compiled forest at 500 rows of 50 features and 300 trees of 63 leaves."""


@dataclass(frozen=True)
class Case:
    """Rows scored by a model."""

    kind: str
    """What the features are: `numbers`, a third of them `missing`, or a fifth of them `categories`."""
    rows: int = ROWS
    features: int = FEATURES
    trees: int = TREES


@dataclass(frozen=True)
class Result:
    """What was measured of a case; times in microseconds, of one call."""

    case: Case
    forest_us: float
    forest_quartiles_us: tuple[float, float]
    booster_us: float
    booster_quartiles_us: tuple[float, float]
    ratio: float


def cases(*, quick: bool) -> Iterator[Case]:
    """Yield what is measured, one size varied at a time."""
    if quick:
        yield from (
            Case(kind, rows=40, features=10, trees=5) for kind in ("numbers", "missing", "categories")
        )
        return
    yield from (Case("numbers", rows=rows) for rows in (100, ROWS, 1_000, 5_000))
    yield from (Case("numbers", trees=trees) for trees in (50, 1_000))
    yield from (Case("numbers", features=features) for features in (10, 500))
    yield from (Case(kind) for kind in ("missing", "categories"))


def generate(kind: str, rows: int, features: int, seed: int) -> NDArray[np.float32]:
    """Return rows (n, d): normal, a third of the values missing or a fifth of the columns codes where asked."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, features), np.float32)
    if kind == "missing":
        matrix[rng.random(matrix.shape) < 1 / 3] = np.nan
    elif kind == "categories":
        matrix[:, ::5] = rng.integers(0, 100, (rows, len(range(0, features, 5))))
    return matrix


@cache
def train(kind: str, features: int, trees: int, *, quick: bool) -> lightgbm.Booster:
    """Return a model trained on generated rows."""
    rng = np.random.default_rng(1)
    matrix = generate(kind, 1_000 if quick else 20_000, features, seed=2)
    known = np.nan_to_num(matrix)
    codes = list(range(0, features, 5)) if kind == "categories" else []
    effects = rng.standard_normal((100, len(codes)))
    for column, code in enumerate(codes):
        known[:, code] = effects[known[:, code].astype(np.int64), column]
    weights = rng.standard_normal(features) / np.sqrt(features)
    outcome = known @ weights + np.sin(2.0 * known[:, 0]) * known[:, 1] + known[:, 2] * known[:, 3]
    labels = rng.random(len(matrix)) < 1.0 / (1.0 + np.exp(-outcome))
    options = {"objective": "binary", "num_leaves": LEAVES, "verbosity": -1, "num_threads": 1, "seed": 3}
    return lightgbm.train(options, lightgbm.Dataset(matrix, labels, categorical_feature=codes), trees)


def run(case: Case, *, quick: bool) -> Result:
    """Measure one case."""
    most_trees = max(each.trees for each in cases(quick=quick) if each.features == case.features)
    trained = train(
        case.kind, case.features, most_trees if case.kind == "numbers" else case.trees, quick=quick
    )
    booster = lightgbm.Booster(model_str=trained.model_to_string(num_iteration=case.trees))
    ranker = LightGBMRanker.from_booster(booster)
    rows = generate(case.kind, case.rows, case.features, seed=4)
    ours, theirs = partial(ranker.score, rows), partial(booster.predict, rows, num_threads=1)
    if ranker.scoring.method != "lockstep" or not np.array_equal(ours(), theirs()):
        raise RuntimeError(f"{case}: scores differ, or no compiled forest: {ranker.scoring.reason}")
    contestants = [Contestant(repeated(ours)), Contestant(repeated(theirs))]
    forest_s, booster_s = measure(contestants, rounds=3 if quick else 40, sample_s=0.0 if quick else 0.02)
    ours_us, theirs_us = (np.percentile(seconds, (25, 50, 75)) * 1e6 for seconds in (forest_s, booster_s))
    return Result(
        case=case,
        forest_us=float(ours_us[1]),
        forest_quartiles_us=(float(ours_us[0]), float(ours_us[2])),
        booster_us=float(theirs_us[1]),
        booster_quartiles_us=(float(theirs_us[0]), float(theirs_us[2])),
        ratio=float(np.median(booster_s / forest_s)),
    )


def report(results: Sequence[Result], facts: dict[str, Any], console: Console) -> None:
    """Print the environment, the table, and whether the target is met."""
    tell_facts(facts, console)
    table = markdown_table(
        ("features are", "rows", "features", "trees", "forest µs", "Booster µs", "times faster")
    )
    for result in results:
        case = result.case
        table.add_row(
            *(case.kind, f"{case.rows:,}", f"{case.features:,}", f"{case.trees:,}"),
            _spread(result.forest_us, result.forest_quartiles_us),
            _spread(result.booster_us, result.booster_quartiles_us),
            f"{result.ratio:.2f}",
        )
    console.print(table, highlight=False)
    for result in results:
        if result.case == Case("numbers"):
            verdict = "met" if result.ratio >= LEAST_RATIO else "MISSED"
            console.print(
                f"Target: at least {LEAST_RATIO:g} times faster at {ROWS} rows, {FEATURES} features, {TREES} "
                f"trees: {result.ratio:.2f}, {verdict}",
                highlight=False,
            )


def _spread(median: float, quartiles: tuple[float, float]) -> str:
    return f"{median:,.0f} ({quartiles[0]:,.0f} to {quartiles[1]:,.0f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.tree_scoring", __doc__, quick="small models, to see that it runs")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    facts = {**environment.describe(), "lightgbm": lightgbm.__version__}
    results = [run(case, quick=options.quick) for case in cases(quick=options.quick)]
    report(results, facts, Console(width=None if sys.stdout.isatty() else 120))
    write_results(options, facts, results)


if __name__ == "__main__":
    main()
