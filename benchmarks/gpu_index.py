"""What a copy of the index on a GPU brings beside the index on the CPU.

    python -m benchmarks.gpu_index [--items 1000000] [--kinds KIND …] [--quick] [--json PATH]

**Vectors** are those of `benchmarks.index`. An index of each kind that has a GPU form is built and saved on the CPU,
and loaded with `device="gpu"`, in full and in half precision.

**Alone** is one query at a time for 500 neighbours, times of the wall: `FaissIndex.search` with its hop to the thread
that owns the copy, the bare GPU index, and `FaissIndex.search` on one thread of the CPU. **Together** is what 16
threads get done that ask so side by side. **Recall** is the share of the 500 nearest by exact search on the CPU. The
copy's memory is what the driver says has gone meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.index import Vectors, names, topics
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from explorank.retrieval import FaissIndex, GpuOptions
from explorank.retrieval._faiss import gpu_count, load_faiss
from explorank.retrieval._gpu import GpuMirror
from explorank.retrieval._index_kinds import GPU_KINDS
from explorank.retrieval.catalogue import VECTORS_FILE

_K: Final = 500
_THREADS: Final = 16
_QUERIES: Final = 1_000
_PATIENCE_S: Final = 120.0


@dataclass(frozen=True)
class Result:
    """One kind of index in one precision; times in ms."""

    kind: str
    precision: str
    built_s: float
    copied_s: float
    mib: float
    gpu_ms: tuple[float, float]
    """Median and 99th percentile."""
    bare_ms: tuple[float, float]
    cpu_ms: tuple[float, float]
    gpu_per_s: float
    cpu_per_s: float
    recall: float
    cpu_recall: float


def run(
    kind: Any, vectors: NDArray[np.float32], queries: NDArray[np.float32], seconds: float
) -> list[Result]:
    """Measure one kind."""
    begun = time.perf_counter()
    index = FaissIndex.build(vectors, names(range(len(vectors))), kind, "cpu", tune_s=15.0)
    built_s = time.perf_counter() - begun
    truth = _exact(vectors, queries[:100])
    results = []
    with tempfile.TemporaryDirectory() as name:
        index.save(name)
        cpu = FaissIndex.load(name, "cpu")
        cpu_ms, cpu_per_s = _alone(_asked(cpu), queries, seconds), _together(_asked(cpu), queries, seconds)
        cpu_recall = _recall(cpu, queries[:100], truth)
        for float16 in (False, True):
            options = GpuOptions(float16=float16, wait_ms=1e3 * _PATIENCE_S)
            free = _used_mib()
            begun = time.perf_counter()
            gpu = FaissIndex.load(name, "gpu", gpu=options)
            _wait_for_copy(gpu, queries[0])
            copied_s = time.perf_counter() - begun
            mib = _used_mib() - free
            bare = GpuMirror(cpu._index, options)
            results.append(
                Result(
                    kind=kind,
                    precision="float16" if float16 else "float32",
                    built_s=built_s,
                    copied_s=copied_s,
                    mib=mib,
                    gpu_ms=_alone(_asked(gpu), queries, seconds),
                    bare_ms=_alone(partial(bare.search, k=_K), queries, seconds),
                    cpu_ms=cpu_ms,
                    gpu_per_s=_together(_asked(gpu), queries, seconds),
                    cpu_per_s=cpu_per_s,
                    recall=_recall(gpu, queries[:100], truth),
                    cpu_recall=cpu_recall,
                )
            )
            if gpu.gpu_error is not None:
                raise gpu.gpu_error
            del gpu, bare
    return results


def _asked(index: FaissIndex) -> Callable[[NDArray[np.float32]], object]:
    return lambda query: index.search(query, _K)


def _alone(
    search: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32], seconds: float
) -> tuple[float, float]:
    """Return the median and the 99th percentile of single searches, ms."""
    for query in queries[:20]:
        search(query[None, :])
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        search(queries[len(taken) % len(queries)][None, :])
        taken.append(time.perf_counter() - begun)
    median, late = np.percentile(taken, (50, 99)) * 1e3
    return float(median), float(late)


def _together(
    search: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32], seconds: float
) -> float:
    """Return how many searches a second all threads get done."""
    barrier = threading.Barrier(_THREADS)

    def ask(thread: int) -> int:
        barrier.wait()
        end, done = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            search(queries[(thread + _THREADS * done) % len(queries)][None, :])
            done += 1
        return done

    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(ask, range(_THREADS))) / seconds


def _exact(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    faiss = load_faiss()
    labels: NDArray[np.int64] = faiss.knn(queries, vectors, _K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return labels


def _recall(index: FaissIndex, queries: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    found = index.search(queries, _K)[0]
    return float(
        np.mean([np.isin(names(true.tolist()), row).mean() for true, row in zip(truth, found, strict=True)])
    )


def _wait_for_copy(index: FaissIndex, query: NDArray[np.float32]) -> None:
    index.search(query, 1)
    end = time.monotonic() + _PATIENCE_S
    searcher = index._gpu
    assert searcher is not None  # noqa: S101 - loaded for a GPU
    while searcher.generation != index._generation:
        if searcher.error is not None:
            raise searcher.error
        if time.monotonic() > end:
            raise SystemExit(f"No copy of the index was on the GPU after {_PATIENCE_S:.0f} s.")
        time.sleep(0.005)


def _used_mib() -> float:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - its own words
    return sum(float(line) for line in said.split())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.gpu_index", __doc__, quick="few vectors, to see that it runs")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="+", choices=GPU_KINDS, default=GPU_KINDS, metavar="KIND")
    options = parser.parse_args(arguments)
    if gpu_count() == 0:
        raise SystemExit(
            "FAISS sees no GPU here, and this compares one with the CPU. Install `explorank[gpu]` where there is one."
        )
    items, seconds = (20_000, 0.3) if options.quick else (options.items, 2.0)
    facts = environment.describe()
    with tempfile.TemporaryDirectory() as folder:
        Vectors.to_folder(Path(folder), items)
        vectors = np.load(Path(folder) / VECTORS_FILE)
    queries = Vectors(2, topics(items)).draw(_QUERIES)
    results = [result for kind in options.kinds for result in run(kind, vectors, queries, seconds)]
    console = Console(width=None if sys.stdout.isatty() else 160)
    tell_facts(facts, console)
    headings = (
        "index", "on the GPU", "built in s", "copied in s", "MiB", "alone, ms (p99)", "bare GPU", "CPU",
        "16 threads, /s", "CPU, /s", "recall", "CPU",
    )  # fmt: skip
    table = markdown_table(headings)
    for one in results:
        table.add_row(
            one.kind, one.precision, f"{one.built_s:.0f}", f"{one.copied_s:.2f}", f"{one.mib:,.0f}",
            *(f"{median:.2f} ({late:.2f})" for median, late in (one.gpu_ms, one.bare_ms, one.cpu_ms)),
            f"{one.gpu_per_s:,.0f}", f"{one.cpu_per_s:,.0f}", f"{one.recall:.4f}", f"{one.cpu_recall:.4f}",
        )  # fmt: skip
    console.print(table, highlight=False)
    write_results(options, facts, results)


if __name__ == "__main__":
    main()
