"""What a search costs among more items than this machine can hold a whole installation of: a made-up index.

    python -m benchmarks.simulated_index [--items 1000000 10000000] [--quick] [--json PATH]

**Simulated.** An `ivf_pq` index of the size that `FaissIndex.build` would choose: as many lists, equally long, with
random centroids, and in them the codes of 65,536 random rows over and over. Its full vectors are a file of zeros in
the system's cache. Nothing it finds means anything; how much it reads, and from where, is what a real one would. It is
asked for 500 neighbours of random queries, with 2,000 compared again, by 112 lists, which found .991 of the nearest
among a million items of `benchmarks.request_path`, and by twice and four times as many.

**Gathered** are 50 columns in float32 of 500 random items, as the columnar store lays them.

Times are of the wall, one thread, medians with the 99th percentile; memory is what the process holds of its own, and
what it maps.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from explorank.retrieval._faiss import load_faiss
from explorank.retrieval._full_vectors import FullVectors
from explorank.retrieval._huge_pages import create_rows, move_lists
from explorank.retrieval._index_kinds import Effort, list_count
from explorank.retrieval._index_search import IndexSearch
from explorank.retrieval._list_finder import find_lists_by_codes, pays

_DIM: Final = 384
_K: Final = 500
_RESCORED: Final = 2_000
_LISTS: Final = (112, 224, 448)
_COLUMNS: Final = 50
_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True)
class Result:
    """One size; times in ms, median and 99th percentile."""

    items: int
    lists: int
    searched: list[tuple[int, float, float]]
    """By how many lists, and how long."""
    gathered: tuple[float, float]
    own_mib: float
    mapped_mib: float


def run(items: int, folder: Path, searches: int) -> Result:
    """Make an index of so many items, and ask it."""
    before = _memory()
    vectors = create_rows(folder / f"{items}.npy", (items, _DIM))
    for start in range(0, items, _ROWS_AT_ONCE):  # into the system's cache
        vectors[start : start + _ROWS_AT_ONCE] = 0.0
    vectors.flush()  # or it goes on being written while searches are timed
    index = _simulated(items)
    move_lists(index)
    full = FullVectors(vectors.view(np.ndarray))
    queries = _unit(np.random.default_rng(1), 1_000)
    searched = []
    for lists in _LISTS:
        effort = Effort(lists=min(lists, int(index.nlist)), rescored=_RESCORED, neighbours=_K)
        search = IndexSearch("ivf_pq", effort, full)
        ask = partial(_ask, search, index, queries)
        searched.append((lists, *_timed(ask, searches)))
    own, mapped = (now - then for now, then in zip(_memory(), before, strict=True))
    columns = np.random.default_rng(2).random((items, _COLUMNS), np.float32)
    rows = np.random.default_rng(3).integers(0, items, (searches, _K))
    out = np.empty((_K, _COLUMNS), np.float32)
    gathered = _timed(
        lambda turn: columns.take(rows[turn % searches], axis=0, out=out, mode="clip"), searches
    )
    return Result(items, int(index.nlist), searched, gathered, own, mapped)


def _simulated(items: int) -> Any:
    """Return an index whose lists hold `items` codes by chance."""
    faiss = load_faiss()
    rng = np.random.default_rng(0)
    lists = list_count(items)
    index = faiss.index_factory(_DIM, f"IVF{lists},PQ{_DIM // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.quantizer.add(_unit(rng, lists))
    rows = _unit(rng, min(items, _ROWS_AT_ONCE))
    index.by_residual = False  # a made-up place has no residual; searches cost the same
    index.train(rows)
    if pays(lists, _DIM):
        find_lists_by_codes(index)
    quantizer = index.quantizer
    index.quantizer = faiss.IndexRandom(_DIM, lists, 5)
    for start in range(0, items, len(rows)):
        part = rows[: items - start]
        index.add_with_ids(part, np.arange(start, start + len(part)))
    index.quantizer = quantizer
    index.by_residual = True
    return index


def _unit(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    rows = rng.standard_normal((count, _DIM), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _ask(search: IndexSearch, index: Any, queries: NDArray[np.float32], turn: int) -> object:
    return search.nearest(index, queries[turn % len(queries)][None], _K)


def _timed(work: Callable[[int], object], calls: int) -> tuple[float, float]:
    for turn in range(20):
        work(turn)
    taken = np.empty(calls)
    for turn in range(calls):
        begun = time.perf_counter()
        work(turn + 20)
        taken[turn] = time.perf_counter() - begun
    median, late = np.percentile(taken, (50, 99)) * 1e3
    return float(median), float(late)


def _memory() -> tuple[float, float]:
    """Return how many MiB this process has of its own, and of files it has mapped."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kib = [re.search(rf"{name}:\s+(\d+) kB", status) for name in ("RssAnon", "RssFile")]
    own, mapped = (int(found[1]) / 1024 if found else 0.0 for found in kib)
    return own, mapped


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.simulated_index", __doc__, quick="few items, to see that it runs")
    parser.add_argument("--items", type=int, nargs="+", default=[1_000_000, 10_000_000])
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    facts = environment.describe()
    results = []
    for items in [50_000] if options.quick else options.items:
        with tempfile.TemporaryDirectory() as folder:
            results.append(run(items, Path(folder), 50 if options.quick else 1_000))
    console = Console(width=None if sys.stdout.isatty() else 160)
    tell_facts(facts, console)
    table = markdown_table(
        [
            "items",
            "lists",
            *(f"{lists} lists, ms (p99)" for lists in _LISTS),
            "gather, ms",
            "own MiB",
            "mapped MiB",
        ]
    )
    for one in results:
        table.add_row(
            f"{one.items:,}", f"{one.lists:,}",
            *(f"{median:.2f} ({late:.2f})" for _, median, late in one.searched),
            f"{one.gathered[0]:.3f} ({one.gathered[1]:.3f})", f"{one.own_mib:,.0f}", f"{one.mapped_mib:,.0f}",
        )  # fmt: skip
    console.print(table, highlight=False)
    write_results(options, facts, results)


if __name__ == "__main__":
    main()
