"""What it costs to find a user's best items in a learnt space, and why factors are not searched by an index.

    python -m benchmarks.embedding_search [--items 1700 100000 1000000] [--requests 300] [--json PATH]

**Protocol.** Made-up spaces, seed 0: items in 200 clusters; popularity with a Pareto tail of exponent 1.2. Factors (24
numbers) are as long as the square root of popularity, towers and transformers (64) of length 1. A user took up items of
three clusters, as often as they are popular. A request computes the user's vector from the history and finds the 100
best beside it; "recall" is the share of the exact 100 best that are found. *Augmented*: the same factors after the
augmentation of Bachrach et al. (2014) in a FAISS index tuned for a recall of .99. *Alike*: factors of one length, where
the scan has to read everything. One thread; medians of the requests.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.report import markdown_table, tell_facts
from explorank.retrieval import FaissIndex, TwoTower
from explorank.retrieval.collaborative import (
    EmbeddingModel,
    EmbeddingSpace,
    ImplicitALS,
    ImplicitALSOptions,
    SASRec,
)
from explorank.retrieval.collaborative.length_ordered_scan import LengthOrderedScan
from explorank.retrieval.collaborative.sasrec.model import SASRecArrays
from explorank.retrieval.collaborative.two_tower.model import TowerArrays

_CLUSTERS: Final = 200
_K: Final = 100
_RECALL_OF: Final = 100

Search = Callable[[NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a request for the best items costs and finds."""

    items: int
    search: str
    us: float
    """Median, in microseconds."""
    user_us: float
    """Of which the user's vector takes so many."""
    recall: float
    history: float
    """Items per history, the mean."""


_TUNING_USERS: Final = 128
_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class World:
    """Directions of items, and who takes up which."""

    directions: NDArray[np.float64]  # (n, d) of length 1
    clusters: NDArray[np.int64]  # (n,)
    popularity: NDArray[np.float64]  # (n,)

    @classmethod
    def of(cls, items: int, dim: int) -> World:
        """Draw a world; the same one each time."""
        random = np.random.default_rng(0)
        clusters = random.integers(_CLUSTERS, size=items)
        directions = random.normal(size=(_CLUSTERS, dim))[clusters] + 0.7 * random.normal(size=(items, dim))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return cls(directions, clusters, random.pareto(1.2, items) + 1.0)

    def histories(self, count: int, seed: int = 1) -> list[NDArray[np.int64]]:
        """Return the rows that each of `count` users took up; those of another `seed` are others'."""
        random = np.random.default_rng(seed)
        reach = np.cumsum(self.popularity) / self.popularity.sum()
        taken = []
        for _ in range(count):
            met = np.searchsorted(reach, random.random(2_000))
            liked = np.isin(self.clusters[met], random.choice(_CLUSTERS, 3, replace=False))
            taken.append(np.unique(np.concatenate([met[:5], met[liked][:40]])))
        return taken

    @property
    def factors(self) -> NDArray[np.float64]:
        """(n, d) as long as the square root of popularity, 1 at most."""
        return self.directions * np.minimum(0.02 * np.sqrt(self.popularity), 1.0)[:, None]


def factor_model(factors: NDArray[np.float64]) -> ImplicitALS:
    """Return a model with these factors (n, f)."""
    return ImplicitALS(_ids(len(factors)), factors, ImplicitALSOptions(factors=factors.shape[1]))


def tower_model(directions: NDArray[np.float64]) -> TwoTower:
    """Return towers whose user is the mean of the history's vectors (n, d)."""
    dim, vectors = directions.shape[1], directions.astype(np.float32)
    arrays = TowerArrays(
        item_vectors=vectors,
        content_weights=np.zeros((0, dim), np.float32),
        content_bias=np.zeros(dim, np.float32),
        history_vectors=vectors,
        history_content=np.zeros((0, dim), np.float32),
        hidden_weights=np.zeros((dim, 128), np.float32),
        hidden_bias=np.zeros(128, np.float32),
        output_weights=np.zeros((128, dim), np.float32),
        skip_weights=np.eye(dim, dtype=np.float32),
        output_bias=np.zeros(dim, np.float32),
    )
    return TwoTower(_ids(len(vectors)), arrays, {})


def sequence_model(directions: NDArray[np.float64]) -> SASRec:
    """Return a transformer whose user is about the mean of the history's vectors (n, d)."""
    dim = directions.shape[1]
    zeros = np.zeros((1, dim), np.float32)
    nothing, unchanged = np.zeros((1, dim, dim), np.float32), np.eye(dim, dtype=np.float32)[None]
    plain = np.stack([np.ones(dim), np.zeros(dim)]).astype(np.float32)
    arrays = SASRecArrays(
        item_vectors=directions.astype(np.float32),
        positions=np.zeros((_STEPS, dim), np.float32),
        attention_norm=plain[None],
        attention_weights=np.concatenate([nothing, nothing, unchanged], axis=2),
        attention_bias=np.zeros((1, 3 * dim), np.float32),
        attended_weights=unchanged,
        attended_bias=zeros,
        feed_norm=plain[None],
        hidden_weights=nothing,
        hidden_bias=zeros,
        output_weights=nothing,
        output_bias=zeros,
        final_norm=plain,
    )
    return SASRec(_ids(len(directions)), arrays, 2, {})


def space_search(space: EmbeddingSpace) -> Search:
    """Return a search as the retriever makes it."""
    return lambda history: space.best(history, _K)[0]


def augmented_search(model: ImplicitALS) -> Search:
    """Return a search by an index of the factors with a coordinate more, which makes all of one length."""
    lengths = np.linalg.norm(model.factors, axis=1)
    longest = lengths.max()
    lacking = np.sqrt(np.maximum(longest**2 - lengths**2, 0.0))
    index = FaissIndex.build(
        np.column_stack([model.factors, lacking]) / longest, np.arange(len(lengths)), device="cpu"
    )

    def search(history: NDArray[np.int64]) -> NDArray[np.int64]:
        user = model.user_vector_at(history)
        return index.search(np.append(user, 0.0).astype(np.float32), _K, history)[0]

    return search


def measured(
    name: str, model: EmbeddingModel, search: Search, histories: Sequence[NDArray[np.int64]]
) -> Measured:
    """Time `search` for each history, and compare the first of them with a full product."""
    times, alone, recalls = [], [], []
    vectors = np.asarray(model.item_vectors, np.float32)
    for number, history in enumerate(histories):
        started = time.perf_counter()
        found = search(history)
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
        user = model.user_vector_at(history)
        alone.append(time.perf_counter() - started)
        if number < _RECALL_OF:
            products = vectors @ np.asarray(user, np.float32)
            products[history] = -np.inf
            best = np.argpartition(-products, _K)[:_K]
            recalls.append(len(np.intersect1d(best, found)) / _K)
    return Measured(
        len(vectors), name, float(np.median(times)) * 1e6, float(np.median(alone)) * 1e6, float(np.mean(recalls)),
        float(np.mean([len(history) for history in histories])),
    )  # fmt: skip


def measure(items: int, requests: int) -> Iterator[Measured]:
    """Yield what each way costs among so many items."""
    world = World.of(items, 24)
    histories = world.histories(requests)
    factors, alike = factor_model(world.factors), factor_model(world.directions)
    for name, model in (("als, scanned", factors), ("als, lengths alike", alike)):
        scan = LengthOrderedScan.build(model.factors, np.arange(items))
        yield measured(name, model, space_search(EmbeddingSpace(model, scan)), histories)
    yield measured("als, augmented and indexed", factors, augmented_search(factors), histories)
    directions = World.of(items, 64).directions
    networks: list[EmbeddingModel] = [tower_model(directions), sequence_model(directions)]
    for network in networks:
        space = EmbeddingSpace.build(network, histories=world.histories(_TUNING_USERS, seed=2))
        yield measured(f"{network.name}, {space.search_kind}", network, space_search(space), histories)


def _ids(count: int) -> NDArray[np.str_]:
    return np.arange(count).astype(np.str_)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print Markdown, and write JSON where asked for."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.embedding_search", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--items", type=int, nargs="+", default=[1_700, 100_000, 1_000_000])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")
    options = parser.parse_args(arguments)
    console = Console(width=160)
    facts: dict[str, Any] = environment.describe()
    tell_facts(facts, console)
    results = [one for items in options.items for one in measure(items, options.requests)]
    table = markdown_table(("search", "items", "µs", "of the user's vector", "recall", "history"))
    for one in results:
        table.add_row(
            one.search,
            f"{one.items:,}",
            f"{one.us:,.0f}",
            f"{one.user_us:,.0f}",
            f"{one.recall:.3f}",
            f"{one.history:.0f}",
        )
    console.print(table, highlight=False)
    if options.json is not None:
        written = {"environment": facts, "results": [asdict(one) for one in results]}
        options.json.write_text(json.dumps(written, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    environment.restart_with_one_thread()
    sys.exit(main())
