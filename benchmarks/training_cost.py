"""How long each ranker trains on two cores, and how much memory that takes.

    python -m benchmarks.training_cost [--quick] [--only NAME …] [--threads 2] [--json PATH]

**What is measured.** `fit` of each ranker on one made-up frame of 5,000 requests with 10 candidates each, 50 numbers,
ids of 50,000 items and histories of 60 of them, as `explorank train` calls it but for reading tables. Trees grow to
their 400, networks are trained for 5 epochs; what is made of others has two members. No later slice ends it early.

**How.** A process for each ranker, which has trained one on a few rows before, so that libraries are loaded and code is
compiled. Wall-clock time of one `fit`, and the most memory that the process held beyond what it held before, looked at
a hundred times a second. Data and libraries stand in a column of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, Final

from rich.console import Console

from benchmarks import environment
from benchmarks.accuracy import meter
from benchmarks.accuracy.two_stage import trained
from benchmarks.neural_scoring import generate
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from explorank.rankers import RankingData

_TREES: Final = {"use": "lightgbm"}
_NETWORK: Final = {"use": "dcn"}
RANKERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "lightgbm": {},
    "dcn": {},
    "sequence": {},
    "calibrated": {"member": {**_TREES, "objective": "binary"}, "folds": 2},
    "bagging": {"member": _TREES, "bags": 5},
    "blend": {"members": [_TREES, _NETWORK], "folds": 2},
    "stack": {"members": [_TREES, _NETWORK], "folds": 2},
    "reciprocal_rank": {"members": [_TREES, _NETWORK]},
}
_EPOCHS: Final = 5


@dataclass(frozen=True)
class Result:
    """What one ranker took."""

    name: str
    rows: int
    seconds: float
    mib: float
    """Beyond what the process held before."""
    before_mib: float
    """Data and libraries."""


def options_of(name: str, threads: int, epochs: int) -> dict[str, Any]:
    """Return a ranker's options, those of its members included, with so many threads."""

    def threaded(use: str, options: Mapping[str, Any]) -> dict[str, Any]:
        changed = dict(options)
        if use == "lightgbm":
            changed["num_threads"] = threads
        if use in {"dcn", "sequence"}:
            changed["training"] = {"num_threads": threads, "epochs": epochs}
        if "member" in changed:
            changed["member"] = threaded(changed["member"]["use"], changed["member"])
        if "members" in changed:
            changed["members"] = [threaded(member["use"], member) for member in changed["members"]]
        return changed

    return threaded(name, RANKERS[name])


def frame(requests: int, seed: int) -> RankingData:
    """Return made-up requests of which the first column tells something."""
    data = generate(requests, 50, 0, seed=seed)
    features = data.features.copy()
    features[:, 0] += data.labels
    return replace(data, features=features)


def fit(name: str, requests: int, threads: int) -> Result:
    """Train one ranker in this process, which does nothing else."""
    trained(name, options_of(name, threads, 1), frame(50, seed=1), None, 0)
    data = frame(requests, seed=2)
    before = meter.resident_mib()
    with meter.measured() as effort:
        trained(name, options_of(name, threads, _EPOCHS), data, None, 0)
    return Result(name, len(data), effort.wall_s, effort.mib, before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.training_cost", __doc__, quick="little data, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=list(RANKERS), default=list(RANKERS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    requests, threads = (100, 1) if options.quick else (5_000, options.threads)
    # A new process for each, so that no ranker finds what another one has left allocated.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        results = [pool.submit(fit, name, requests, threads).result() for name in options.only]
    facts = {**environment.describe(), "threads": threads}
    console = Console(width=None if sys.stdout.isatty() else 120)
    tell_facts(facts, console)
    table = markdown_table(["", "rows", "s", "MiB to train", "MiB of data and libraries"])
    for one in results:
        table.add_row(
            one.name, f"{one.rows:,}", f"{one.seconds:.1f}", f"{one.mib:,.0f}", f"{one.before_mib:,.0f}"
        )
    console.print(table, highlight=False)
    write_results(options, facts, results)


if __name__ == "__main__":
    main()
