"""How much of an index has to be looked at for a wanted recall: tried out on the vectors themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import count, dropwhile
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._faiss import load_faiss, one_thread
from explorank.retrieval._full_vectors import FullVectors
from explorank.retrieval._index_kinds import IVF_KINDS, Effort, Kind, Vectors, make
from explorank.retrieval._index_search import IndexSearch
from explorank.retrieval.errors import InvalidOption

Progress: TypeAlias = Callable[[str], None]
"""Called with what begins now."""

_QUERIES: Final = 64
"""So many queries of a sort choose, and so many others check."""
_LEAST_INTERESTS: Final = 2
_SIMILAR_ITEMS: Final = 5
_TIMED_QUERIES: Final = 32
_STEPS_BEYOND: Final = 2
"""So many points are measured beyond the wanted recall, to show what more would cost."""
_RESCORED: Final = (16, 8, 6, 4, 3, 2)
"""So many times the wanted neighbours are compared again in full precision."""
_MOST_RESCORED: Final = 4_000
"""Reading more full vectors takes longer than scanning longer codes."""
_LEAST_GAIN: Final = 0.001
"""More lists that bring less recall are not what is missing: the codes put too much before the true neighbours."""


@dataclass(frozen=True, slots=True)
class TradeOff:
    """What one setting of an index gives and costs."""

    kind: Kind
    effort: Effort
    recall: float
    """The share of the true nearest neighbours that were found, in [0, 1]: for items or for interests, whichever is
    the less."""
    us_per_search: float
    """The median time of a single query on one thread, in microseconds."""
    bytes_per_vector: float
    """What the index takes for each vector; its id left out, and the full vectors that `ivf_pq` reads elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What was tried and what it came to."""

    wanted_recall: float
    neighbours: int
    """The k that recall speaks of."""
    recall: float
    """Of the chosen setting, on other queries than those that chose it; where these said less, it looks at more."""
    reached: bool
    """Whether the chosen setting has the wanted recall on those queries."""
    complete: bool
    """Whether everything was tried that there was to try; False where time ran out."""
    seconds: float
    """How long building and trying took."""
    chosen: TradeOff
    """The cheapest setting that reaches the wanted recall, or else the one that comes closest."""
    curve: tuple[TradeOff, ...]
    """Everything that was measured."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Tuning:
        """Return what `to_dict` made."""
        chosen, curve = _trade_off(facts["chosen"]), tuple(map(_trade_off, facts["curve"]))
        return cls(**{**facts, "chosen": chosen, "curve": curve})


@dataclass(frozen=True, slots=True)
class TunedIndex:
    """A FAISS index over all vectors, under the labels 0 to n - 1, and how to search it."""

    index: Any
    tuning: Tuning

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.tuning.chosen.kind

    @property
    def effort(self) -> Effort:
        """How much of it to look at."""
        return self.tuning.chosen.effort


def tune_index(
    vectors: Vectors,
    kinds: tuple[Kind, ...],
    *,
    recall: float = 0.99,
    neighbours: int = 100,
    budget_s: float = 60.0,
    interests: Vectors | None = None,
    progress: Progress | None = None,
) -> TunedIndex:
    """Return the index of `vectors` (n, d), unit rows, n ≥ 1, that is fastest at the wanted `recall` of `neighbours`.

    `kinds` are built in turn; `ivf_flat` only where none before reaches the recall. Of `ivf_sq8`, `ivf_flat` and
    `hnsw` ever more is looked at until the recall is reached. Of `ivf_pq` too, with ever fewer rows compared again.
    Queries are items, and users' `interests` (u, d), unit rows; where fewer than two are given, means of five items
    stand in for them, similar ones or of two sorts. The recall is to be reached for items and for interests. A choice
    is checked on other queries of the same sorts, and goes on where these find less. Nothing more is tried once
    `budget_s` seconds of trying are over; the exact neighbours and building the first kind do not count, since
    nothing can do without them.

    Raises `InvalidOption` for options outside their range.
    """
    _check(recall, neighbours, budget_s)
    started = time.monotonic()
    report = progress or (lambda _: None)
    report("finding exact neighbours")
    trial = _Trial.of(vectors, min(neighbours, len(vectors)), interests)
    curve = [] if "flat" in kinds else [trial.exhaustive()]
    options: list[_Option] = []
    watch, complete, centroids = _Stopwatch(budget_s), True, None
    for kind in kinds:
        if kind == "ivf_flat" and any(option.reached for option in options):
            break
        if options and watch.over:
            complete = False
            break
        report(f"building {kind}")
        with watch.running() if options else nullcontext():
            index = make(kind, vectors, centroids)
        if kind in IVF_KINDS:
            centroids = index.quantizer.reconstruct_n(0, index.nlist)
        report(f"trying {kind}")
        lists = None
        for rescored in _rescored(kind, trial):
            efforts = _efforts(kind, index, trial.neighbours, rescored, lists)
            beyond = 0 if lists else _STEPS_BEYOND
            option, points, all_tried = _climb(trial, kind, index, efforts, recall, beyond, watch)
            options.append(option)
            curve.extend(points)
            complete = complete and all_tried
            if not option.reached:
                break
            lists = option.point.effort.lists
    chosen = min(options, key=_Option.rank)
    tuning = Tuning(
        wanted_recall=recall,
        neighbours=trial.neighbours,
        recall=chosen.checked_recall,
        reached=chosen.reached,
        complete=complete,
        seconds=time.monotonic() - started,
        chosen=chosen.point,
        curve=tuple(curve),
    )
    return TunedIndex(chosen.index, tuning)


@dataclass(frozen=True, slots=True)
class _Option:
    """One setting of one kind, and what speaks for it."""

    point: TradeOff
    index: Any
    checked_recall: float
    reached: bool

    def rank(self) -> tuple[bool, float]:
        """Return what the best option has least of."""
        return (False, self.point.us_per_search) if self.reached else (True, -self.point.recall)


class _Stopwatch:
    """Adds up how long what runs in it takes."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seconds = 0.0

    @property
    def over(self) -> bool:
        return self._seconds >= self._limit_s

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._seconds += time.monotonic() - start


def _climb(
    trial: _Trial,
    kind: Kind,
    index: Any,
    efforts: Iterator[Effort],
    recall: float,
    steps_beyond: int,
    watch: _Stopwatch,
) -> tuple[_Option, list[TradeOff], bool]:
    """Return the least of `efforts` that reaches `recall`, else the closest; all measured; whether time sufficed."""
    points: list[TradeOff] = []
    taken: _Option | None = None
    beyond = 0
    for effort in efforts:
        with watch.running():
            point, checked = trial.measure(index, kind, effort)
        stands_still = bool(effort.rescored and points) and point.recall < points[-1].recall + _LEAST_GAIN
        points.append(point)
        if taken is not None and taken.reached:
            beyond += 1
        elif taken is None or point.recall >= taken.point.recall:
            taken = _Option(point, index, checked, reached=min(point.recall, checked) >= recall)
        if taken.reached and beyond >= steps_beyond:
            break
        if stands_still and not taken.reached:
            break
        if watch.over:
            return taken, points, taken.reached
    assert taken is not None  # noqa: S101 - every kind has a setting, for the type checker
    return taken, points, True


@dataclass(frozen=True, slots=True)
class _Trial:
    """Queries of two sorts with their true neighbours: of each sort, every other one chooses, the others check."""

    vectors: Vectors
    items: Vectors
    """(i, d)"""
    interests: Vectors
    """(u, d)"""
    truth: NDArray[np.int64]
    """(i + u, neighbours) labels"""

    @classmethod
    def of(cls, vectors: Vectors, neighbours: int, interests: Vectors | None) -> _Trial:
        rng = np.random.default_rng(0)
        items = _drawn(rng, vectors)
        similar = _nearest(items, vectors, neighbours)
        if interests is None or len(interests) < _LEAST_INTERESTS:
            interests = _likely_interests(rng, vectors, items, similar)
        else:
            interests = _drawn(rng, interests)
        truth = np.concatenate([similar, _nearest(interests, vectors, neighbours)])
        return cls(vectors, items, interests, truth)

    @property
    def queries(self) -> Vectors:
        return np.concatenate([self.items, self.interests])

    @property
    def neighbours(self) -> int:
        return int(self.truth.shape[1])

    def exhaustive(self) -> TradeOff:
        """Return what the vectors themselves give and cost, scanned whole."""
        faiss = load_faiss()
        metric = faiss.METRIC_INNER_PRODUCT

        def search(query: Vectors) -> object:
            return faiss.knn(query, self.vectors, self.neighbours, metric=metric)

        us = self._us_per_search(search, _TIMED_QUERIES if len(self.vectors) <= 100_000 else 3)
        return TradeOff("flat", Effort(), 1.0, us, 4.0 * self.vectors.shape[1])

    def measure(self, index: Any, kind: Kind, effort: Effort) -> tuple[TradeOff, float]:
        """Return what a setting gives and costs, and its recall on the queries that check."""
        search = IndexSearch(kind, effort, FullVectors(self.vectors) if kind == "ivf_pq" else None)
        _, found = search.nearest(index, self.queries, self.neighbours)
        hits = np.array([np.isin(true, seen).mean() for true, seen in zip(self.truth, found, strict=True)])
        by_sort = np.split(hits, [len(self.items)])
        chosen_by = min(float(sort[::2].mean()) for sort in by_sort)
        checked_by = min(float(sort[len(sort) > 1 :: 2].mean()) for sort in by_sort)
        us = self._us_per_search(lambda query: search.nearest(index, query, self.neighbours))
        return TradeOff(kind, effort, chosen_by, us, _bytes_per_vector(index, kind)), checked_by

    def _us_per_search(self, search: Callable[[Vectors], object], queries: int = _TIMED_QUERIES) -> float:
        seconds, asked = [], self.interests[:queries]
        with one_thread():
            search(asked[:1])
            for row in range(len(asked)):
                start = time.perf_counter()
                search(asked[row : row + 1])
                seconds.append(time.perf_counter() - start)
        return float(np.median(seconds)) * 1e6


def _drawn(rng: np.random.Generator, rows: Vectors) -> Vectors:
    """Return so many of `rows` (n, d) as a sort of query has, each once."""
    return np.ascontiguousarray(
        rows[np.sort(rng.choice(len(rows), min(2 * _QUERIES, len(rows)), replace=False))]
    )


def _likely_interests(
    rng: np.random.Generator, vectors: Vectors, items: Vectors, similar: NDArray[np.int64]
) -> Vectors:
    """Return what stands in for interests, (i, d): means of some of the neighbours `similar` (i, k) to `items`."""
    members = rng.integers(0, similar.shape[1], (len(items), _SIMILAR_ITEMS))
    liked = np.take_along_axis(similar, members, axis=1)
    # Every other user has a second interest, far from the first: the lists between the two are searched for.
    liked[::2, : _SIMILAR_ITEMS // 2] = np.roll(liked, 1, axis=0)[::2, : _SIMILAR_ITEMS // 2]
    interests = vectors[liked].mean(axis=1)
    lengths = np.linalg.norm(interests, axis=1, keepdims=True)
    # Opposite vectors may cancel out; the item itself takes the place of such a mean.
    unit: Vectors = np.where(lengths > 1e-6, interests / np.maximum(lengths, 1e-6), items).astype(np.float32)
    return unit[rng.permutation(len(unit))]


def _nearest(queries: Vectors, vectors: Vectors, neighbours: int) -> NDArray[np.int64]:
    faiss = load_faiss()
    _, labels = faiss.knn(queries, vectors, neighbours, metric=faiss.METRIC_INNER_PRODUCT)
    found: NDArray[np.int64] = labels
    return found


def _rescored(kind: Kind, trial: _Trial) -> Iterator[int | None]:
    """Yield how many rows are compared again, the most first; None for kinds that do no such thing."""
    if kind != "ivf_pq":
        yield None
        return
    most = min(_MOST_RESCORED, len(trial.vectors))
    for times in _RESCORED:
        if (rescored := times * trial.neighbours) <= most or times == _RESCORED[-1]:
            yield min(rescored, len(trial.vectors))


def _efforts(
    kind: Kind, index: Any, neighbours: int, rescored: int | None, least: int | None
) -> Iterator[Effort]:
    """Yield settings in rising order: 1, 2, 3, 4, 6, 8, 10, … of what there is, from `least` lists on."""
    if kind == "hnsw":
        for step in _steps():
            breadth = 2 * neighbours * step
            yield Effort(breadth=min(breadth, int(index.ntotal)))
            if breadth >= index.ntotal:
                return
    elif kind in IVF_KINDS:
        for lists in dropwhile(lambda lists: lists < (least or 1), _steps()):
            meant_for = None if rescored is None else neighbours
            yield Effort(lists=min(lists, int(index.nlist)), rescored=rescored, neighbours=meant_for)
            if lists >= index.nlist:
                return
    else:
        yield Effort()


def _steps() -> Iterator[int]:
    yield from (1, 2, 3, 4, 6)
    for power in count(1):
        yield from (2**power * quarters for quarters in (4, 5, 6, 7))


def _bytes_per_vector(index: Any, kind: Kind) -> float:
    dim = index.d
    if kind == "hnsw":
        return float(4 * dim + 4 * index.hnsw.neighbors.size() / index.ntotal)
    if kind == "flat":
        return float(4 * dim)
    if kind == "sq8":
        return float(dim)
    in_list = {"ivf_pq": dim / 4, "ivf_sq8": dim, "ivf_flat": 4 * dim}[kind]
    return float(in_list + 4 * dim * index.nlist / index.ntotal)


def _trade_off(facts: dict[str, Any]) -> TradeOff:
    return TradeOff(**{**facts, "effort": Effort(**facts["effort"])})


def _check(recall: float, neighbours: int, budget_s: float) -> None:
    if not 0 < recall <= 1:
        raise InvalidOption(
            f"recall={recall} is not in (0, 1]: it is the share of the true neighbours to be found. 0.99 suits most."
        )
    if neighbours < 1:
        raise InvalidOption(
            f"neighbours={neighbours} leaves nothing to find. Set the k of the searches to come."
        )
    if not budget_s > 0:
        raise InvalidOption(
            f"budget_s={budget_s} leaves no time to try anything. Set seconds above 0; 60 suits most."
        )
