"""What the index costs beside bare FAISS, and how it builds, loads and is shared.

    python -m benchmarks.index [--sizes 10000 100000] [--quick] [--json PATH]

**Vectors.** 384 dimensions: topics of unequal size in 48 directions of falling weight, and a little noise in all, so
that neighbourhoods overlap as those of embedded texts do. Drawn with a fixed seed, in parts, into a file.

**A search** is one query, CPU time of one thread, beside FAISS's own Python call on the same index with the same
parameters and no filter, and NumPy's to compare again where codes are short; both have their turn in each round, and
the difference is the median over the rounds.
Excluded ids are new strings in each call, as a request brings them.

**Building** is `Catalogue.build` and `save` from the file, in a process of its own on all cores, with the time of the
wall. Its recall is measured by exact search for 200 queries that are not among the vectors. Memory is the most that
was not mapped from files (`RssAnon`). **Loading** is `Catalogue.load`, with checksums and without, and the first
search. **Sharing** is what each of some processes takes (`Pss`: shared pages count by their share) once each has
made 300 searches and read the vectors found.

**Encoding** is `Encoder.encode` with an empty cache beside sentence-transformers' own `encode`, texts per second of
one thread; texts are 5 to 40 random words.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.options import parser_of
from benchmarks.report import markdown_table, tell_facts
from benchmarks.timing import Contestant, measure
from explorank.retrieval import Catalogue, Encoder, FaissIndex
from explorank.retrieval._faiss import load_faiss
from explorank.retrieval._files import file_digest
from explorank.retrieval.catalogue import VECTORS_FILE, vectors_to_fill

Row: TypeAlias = tuple[str, ...]
_Search: TypeAlias = Callable[[NDArray[np.float32]], object]

_DIM: Final = 384
_DIRECTIONS: Final = 48
_ROWS_AT_ONCE: Final = 50_000
_QUERIES: Final = 200
_SEARCHES: Final = 300
_EXCLUDED: Final = (0, 10, 100, 300)
_PROCESSES: Final = (1, 3)


@dataclass(frozen=True)
class Figures:
    """A table: what it is about, its headings, its rows."""

    title: str
    headings: tuple[str, ...]
    rows: list[Row]


class Vectors:
    """Draws rows (n, 384) of length 1; two objects with the same seed draw the same."""

    def __init__(self, seed: int, topics: int) -> None:
        fixed = np.random.default_rng(0)
        self._directions = np.linalg.qr(fixed.standard_normal((_DIM, _DIRECTIONS)))[0].T.astype(np.float32)
        self._directions *= (1.0 + np.arange(_DIRECTIONS, dtype=np.float32))[:, None] ** -0.5
        self._centres = fixed.standard_normal((topics, _DIRECTIONS)).astype(np.float32)
        sizes = 1.0 / (10.0 + np.arange(topics))
        self._shares = sizes / sizes.sum()
        self._rng = np.random.default_rng(seed)

    def draw(self, count: int) -> NDArray[np.float32]:
        """Return the next `count` rows."""
        topics = self._rng.choice(len(self._centres), count, p=self._shares)
        within = self._rng.standard_normal((count, _DIRECTIONS), np.float32)
        rows = (self._centres[topics] + 0.7 * within) @ self._directions
        rows += 0.01 * self._rng.standard_normal((count, _DIM), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    @classmethod
    def to_folder(cls, folder: Path, count: int) -> None:
        """Write `count` rows to where a catalogue in `folder` will have them, as `explorank build` does."""
        vectors = cls(1, topics(count))
        rows = vectors_to_fill(folder, (count, _DIM))
        for start in range(0, count, _ROWS_AT_ONCE):
            rows[start : start + _ROWS_AT_ONCE] = vectors.draw(min(_ROWS_AT_ONCE, count - start))


def topics(count: int) -> int:
    """Return in how many topics so many vectors are."""
    return max(10, count // 1_000)


def names(rows: Sequence[int] | range) -> list[str]:
    """Return new strings, one for each row."""
    return [f"item-{row:07d}" for row in rows]


def build(folder: Path, count: int) -> dict[str, Any]:
    """Build and save a catalogue of the vectors in `folder`, and say how it went."""
    steps: list[tuple[str, float]] = []
    with _Peak() as peak:
        start = time.perf_counter()
        vectors = np.load(folder / VECTORS_FILE, mmap_mode="r+")
        catalogue = Catalogue.build(
            names(range(count)),
            vectors,
            progress=lambda step: steps.append((step, time.perf_counter() - start)),
        )
        steps.append(("saving", time.perf_counter() - start))
        catalogue.save(folder)
        seconds = time.perf_counter() - start
    queries = Vectors(2, topics(count)).draw(_QUERIES)
    faiss = load_faiss()
    _, truth = faiss.knn(queries, vectors, 100, metric=faiss.METRIC_INNER_PRODUCT)
    found, _ = catalogue.index.search(queries, 100)
    tuning = catalogue.index.tuning
    assert tuning is not None  # noqa: S101 - the catalogue is not empty
    ends = [*(begun for _, begun in steps[1:]), seconds]
    return {
        "kind": catalogue.index.kind,
        "effort": str(catalogue.index.effort),
        "seconds": seconds,
        "recall": float(
            np.mean(
                [
                    np.isin(catalogue.item_ids[true], seen).mean()
                    for true, seen in zip(truth, found, strict=True)
                ]
            )
        ),
        "tuned_recall": tuning.recall,
        "us_per_search": tuning.chosen.us_per_search,
        "mib": peak.mib,
        "steps": {step: end - begun for (step, begun), end in zip(steps, ends, strict=True)},
    }


def load(folder: Path, count: int) -> dict[str, Any]:
    """Load the catalogue in `folder`, say how long that took, search, and say what memory it took."""
    before = _pss()
    start = time.perf_counter()
    checksums = {
        path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()
    }
    checked = time.perf_counter()
    catalogue = Catalogue.load(folder, checksums=checksums)
    loaded = time.perf_counter()
    queries = Vectors(3, topics(count)).draw(_SEARCHES)
    first = time.perf_counter()
    catalogue.index.search(queries[0], 100)
    searched = time.perf_counter()
    for query in queries:
        ids, _ = catalogue.index.search(query, 100)
        np.sum(catalogue.vectors[catalogue.rows(ids)])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()  # until all processes have come this far
    after = _pss()
    sys.stdin.readline()  # until all have looked
    return {
        "checked_s": loaded - start,
        "known_s": loaded - checked,
        "first_search_ms": 1e3 * (searched - first),
        "mib": after["Pss"] - before["Pss"],
        "own_mib": after["Pss_Anon"] - before["Pss_Anon"],
    }


def overhead(folder: Path, count: int, *, quick: bool) -> list[Row]:
    """Return rows of what a search costs beside bare FAISS."""
    vectors = np.load(folder / VECTORS_FILE, mmap_mode="r").view(np.ndarray)
    index = FaissIndex.load(folder / "index", "cpu", vectors=vectors)
    queries = Vectors(4, topics(count)).draw(_SEARCHES)
    rng = np.random.default_rng(5)
    rows: list[Row] = []
    for k in (100, 500):
        search = _bare_search(index, vectors, k)

        def ask_faiss(calls: int, search: _Search = search) -> Callable[[], object]:
            chosen = [queries[row : row + 1] for row in rng.integers(0, _SEARCHES, calls)]
            return lambda: [search(query) for query in chosen]

        def ask_index(calls: int, *, excluded: int, k: int = k) -> Callable[[], object]:
            chosen = [
                (queries[row], frozenset(names(rng.choice(count, excluded, replace=False).tolist())))
                for row in rng.integers(0, _SEARCHES, calls)
            ]
            return lambda: [index.search(query, k, exclude) for query, exclude in chosen]

        contestants = [Contestant(ask_faiss)]
        contestants += [Contestant(partial(ask_index, excluded=excluded)) for excluded in _EXCLUDED]
        plain, *ours = measure(contestants, rounds=3 if quick else 60, sample_s=0.002 if quick else 0.02)
        for excluded, taken in zip(_EXCLUDED, ours, strict=True):
            low, middle, high = np.percentile((taken - plain) * 1e6, (25, 50, 75))
            rows.append(
                (
                    f"{count:,}", str(k), str(excluded), f"{np.median(plain) * 1e6:,.0f}",
                    f"{np.median(taken) * 1e6:,.0f}", f"{middle:.0f} ({low:.0f} to {high:.0f})",
                )
            )  # fmt: skip
    return rows


def _bare_search(index: FaissIndex, vectors: NDArray[np.float32], k: int) -> _Search:
    """Return FAISS's own search for `k` neighbours, and NumPy's comparison of what short codes found."""
    faiss, bare, effort = load_faiss(), index._index, index.effort
    lists = effort.lists
    parameters = faiss.SearchParametersIVF(nprobe=lists) if lists else faiss.SearchParameters()
    if effort.rescored is None:
        return lambda query: bare.search(query, k, params=parameters)
    among = effort.rescored_for(k)

    def search(query: NDArray[np.float32]) -> object:
        labels = bare.search(query, among, params=parameters)[1][0]
        similarities = vectors[labels] @ query[0]
        best = np.argpartition(-similarities, k)[:k]
        best = best[np.argsort(-similarities[best])]
        return similarities[best], labels[best]

    return search


def encoding(texts: int, rounds: int) -> list[Row]:
    """Return a row with what encoding costs beside the bare model."""
    import torch  # noqa: PLC0415 - for this measurement only

    torch.set_num_threads(1)
    rng = np.random.default_rng(6)
    words = np.array(["sea", "story", "crime", "garden", "of", "the", "history", "winter", "machine", "a"])
    batches = [
        [" ".join(rng.choice(words, rng.integers(5, 41))) + f" {turn} {row}" for row in range(texts)]
        for turn in range(rounds)
    ]
    bare_s, ours_s = np.empty(rounds), np.empty(rounds)
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder(cache=Path(folder) / "embeddings.db", device="cpu")
        encoder.encode(["warm"])
        model = encoder._model()
        for turn, batch in enumerate(batches):
            works: list[tuple[NDArray[np.float64], Callable[[], object]]] = [
                (bare_s, partial(model.encode, batch, batch_size=64, show_progress_bar=False)),
                (ours_s, partial(encoder.encode, batch)),
            ]
            for taken, work in works if turn % 2 == 0 else reversed(works):
                start = time.process_time()
                work()
                taken[turn] = time.process_time() - start
    return [
        (
            f"{texts:,}", f"{texts / np.median(bare_s):.1f}", f"{texts / np.median(ours_s):.1f}",
            f"{np.median(bare_s / ours_s):.3f}",
        )
    ]  # fmt: skip


class _Peak:
    """The most anonymous memory that this process had meanwhile, looked at a hundred times a second."""

    mib = 0.0

    def __enter__(self) -> _Peak:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
            self.mib = max(self.mib, int(found[1]) / 1024 if found else 0.0)


def _pss() -> dict[str, float]:
    found = re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    return {name: int(kib) / 1024 for name, kib in found}


def _in_processes(work: str, folder: Path, count: int, processes: int = 1) -> list[dict[str, Any]]:
    """Do `build` or `load` in processes of their own, with as many threads as there are cores."""
    command = [sys.executable, "-m", "benchmarks.index", "--work", work, str(folder), str(count)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(os.cpu_count()))
    workers = [
        subprocess.Popen(  # noqa: S603 - this very module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads}
        )
        for _ in range(processes)
    ]
    if work == "load":
        for stage in ("ready", "looked"):
            for worker in workers:
                assert worker.stdin is not None  # noqa: S101 - a pipe
                assert worker.stdout is not None  # noqa: S101 - a pipe
                if stage == "ready":
                    worker.stdout.readline()
            for worker in workers:
                assert worker.stdin is not None  # noqa: S101 - a pipe
                worker.stdin.write("\n")
                worker.stdin.flush()
            time.sleep(1.0)
    answers = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit(f"`{' '.join(command)}` failed; its error stands above.")
    return [json.loads(answer) for answer in answers]


def run(sizes: Sequence[int], *, quick: bool) -> list[Figures]:
    """Measure all there is to measure."""
    built: list[Row] = []
    loaded: list[Row] = []
    shared: list[Row] = []
    searched: list[Row] = []
    for count in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            Vectors.to_folder(folder, count)
            [facts] = _in_processes("build", folder, count)
            steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in facts["steps"].items())
            built.append(
                (
                    f"{count:,}", f"{facts['kind']}, {facts['effort']}", f"{facts['seconds']:.1f}",
                    f"{facts['tuned_recall']:.4f}", f"{facts['recall']:.4f}", f"{facts['us_per_search']:,.0f}",
                    f"{facts['mib']:,.0f}", steps,
                )
            )  # fmt: skip
            for processes in _PROCESSES:
                answers = _in_processes("load", folder, count, processes)
                mean = {fact: float(np.mean([answer[fact] for answer in answers])) for fact in answers[0]}
                if processes == 1:
                    seconds = (f"{mean['checked_s']:.2f}", f"{mean['known_s']:.3f}")
                    loaded.append((f"{count:,}", *seconds, f"{mean['first_search_ms']:.2f}"))
                shared.append(
                    (f"{count:,}", str(processes), f"{mean['mib']:,.0f}", f"{mean['own_mib']:,.0f}")
                )
            searched.extend(overhead(folder, count, quick=quick))
    return [
        Figures(
            "A search beside bare FAISS, CPU µs",
            ("items", "k", "excluded", "FAISS", "Explorank", "difference (quartiles)"),
            searched,
        ),
        Figures(
            "Building for a recall of 0.99 at 100, seconds on all cores",
            (
                "items",
                "index",
                "s",
                "recall, tuning's",
                "recall, new queries",
                "µs per search",
                "MiB",
                "steps",
            ),
            built,
        ),
        Figures("Loading", ("items", "with checksums, s", "checked before, s", "first search, ms"), loaded),
        Figures("Memory of each process", ("items", "processes", "MiB", "of which its own"), shared),
        Figures(
            "Encoding, texts per CPU second",
            ("texts", "sentence-transformers", "Explorank", "ratio"),
            encoding(16 if quick else 512, 2 if quick else 5),
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.index", __doc__, quick="small and few, to see that it runs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], metavar="ITEMS")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        work, folder, count = options.work
        sys.stdout.write(json.dumps((build if work == "build" else load)(Path(folder), int(count))) + "\n")
        return
    environment.restart_with_one_thread()
    facts = environment.describe()
    figures = run([2_000] if options.quick else options.sizes, quick=options.quick)
    console = Console(width=None if sys.stdout.isatty() else 160)
    tell_facts(facts, console)
    for figure in figures:
        table = markdown_table(figure.headings, left=("index", "steps"))
        for row in figure.rows:
            table.add_row(*row)
        console.print(f"\n### {figure.title}", table, highlight=False)
    if options.json is not None:
        written = {
            "environment": facts,
            "figures": [
                {
                    "title": figure.title,
                    "rows": [dict(zip(figure.headings, row, strict=True)) for row in figure.rows],
                }
                for figure in figures
            ],
        }
        options.json.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
