"""What adapting the text encoder to behaviour is worth, on MovieLens-100K.

    python -m benchmarks.encoders [--only NAME ...] [--seeds N] [--device cpu|cuda] [--keep FOLDER] [--quick]
                                  [--json PATH]

**Data.** Ratings of 4 and more are likes. A tenth of the films, drawn with seed 0, are *cold*: their ratings are in no
training pair, no history and no popularity count. Of each user's other likes, in order of time, the first 80 % train,
the next 10 % choose the best moment of a training, and the last 10 % are the *warm* test. The encoder reads title and
genres.

**Task.** A user is the mean of the vectors of their first 90 %, each weighing 0.9 of the next newer one. All 1,682
films but those that the user rated in that time are ranked by cosine. *Warm* is the recall@100 and NDCG@10 of the last
10 %; *cold* is that of the cold films that the user likes at any time, ranked among all others. Users are averaged;
those without such likes are left out. Users with fewer than ten warm likes are too. Splits by user look into other
users' future, as all such splits do; they are the same for all rows.

**Rows.** Each is an option, or a step, added to or taken from the untouched encoder or the head. Means over seeds of
training; intervals are percentile bootstraps over users, of the mean over seeds. Popularity and EASE (λ = 500) stand
beside them for scale: they need no text, and know nothing of cold films.

**Cross-encoder.** It is trained on the training pairs, and costs a pass of the model per candidate; so it orders anew
the 50 best of the MLP head's vectors by itself, or by its log-odds added to the head's own logits (cosines times the
scale of its loss). *Taught* heads learn from its log-odds of some training pairs with eight candidates each
(MarginMSE); one cross-encoder, of seed 0, teaches all seeds.

**Sizes.** Where the model itself is trained, `--device cpu` takes what two cores can do in minutes, and orders the
candidates of the first 100 users anew; `--device cuda` takes what a GPU can, and orders those of all users.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.options import parser_of
from benchmarks.report import markdown_table, tell_facts
from explorank.demo.data import movielens
from explorank.pipeline.metrics import Interval, bootstrap, ndcg_at, recall_at
from explorank.retrieval import Encoder
from explorank.retrieval.encoding import (
    Behaviour,
    FineTuning,
    Lessons,
    Pretraining,
    TextRanker,
    TextRanking,
    concatenate,
    fine_tune_encoder,
    fuse,
    knowledge_vectors,
    pretrain_encoder,
    teach,
)

DECAY: Final = 0.9
LIKED_FROM: Final = 4.0
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """What a row achieved."""

    name: str
    seeds: int
    dims: int
    warm_recall: Interval
    warm_ndcg: Interval
    cold_recall: Interval
    cold_ndcg: Interval
    seconds: float
    """Of training, per seed; next to nothing where the adapter was trained for another row."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much the model itself is trained, which is what takes time."""

    lora: FineTuning
    lora_history: int
    words: Pretraining
    cross_encoder: TextRanking
    lessons: int
    """Training pairs that the cross-encoder is asked about."""
    reranked: int | None
    """The first users, whose candidates it orders anew; `None` for all."""


class Task:
    """The films, the split, and who liked what."""

    def __init__(self, folder: Path, *, device: str, quick: bool) -> None:
        data = movielens()
        self.folder = folder
        self.device = device
        self.sizes = SIZES[device]
        self.quick = quick
        self.items = data.items["item_id"].tolist()
        self.texts = dict(zip(self.items, data.items["text"], strict=True))
        self.encoder = Encoder(cache=folder / "embeddings.db", device=device)
        drawn = np.random.default_rng(0).permutation(len(self.items))[: len(self.items) // 10]
        self.cold = {self.items[row] for row in drawn}
        self.row = {item: row for row, item in enumerate(self.items)}
        self.train: list[list[str]] = []
        self.known: list[list[str]] = []
        self.seen: list[list[int]] = []
        self.warm_test: list[set[str]] = []
        self.cold_test: list[set[str]] = []
        events = data.interactions.sort_values("timestamp", kind="stable")
        for number, (_, rated) in enumerate(events.groupby("user_id", sort=True)):
            if quick and number >= 60:
                break
            self._split(rated)

    def _split(self, rated: pd.DataFrame) -> None:
        likes = rated["item_id"][rated["value"] >= LIKED_FROM].tolist()
        warm = [item for item in likes if item not in self.cold]
        if len(warm) < 10:
            return
        trained, known = int(0.8 * len(warm)), int(0.9 * len(warm))
        last = rated["item_id"].tolist().index(warm[known - 1])
        seen = [item for item in rated["item_id"].tolist()[: last + 1] if item not in self.cold]
        self.train.append(warm[:trained])
        self.known.append(warm[:known])
        self.seen.append([self.row[item] for item in seen])
        self.warm_test.append(set(warm[known:]))
        self.cold_test.append({item for item in likes if item in self.cold})

    def pairs(self, history: int) -> Behaviour:
        """Return the training pairs with at most that many items before each."""
        return Behaviour.from_histories(self.train, self.texts, history=history)

    @cached_property
    def valid(self) -> Behaviour:
        """The pairs that choose the best moment."""
        starts = [len(items) for items in self.train]
        return Behaviour.from_histories(self.known, self.texts, history=50, from_event=starts)

    @cached_property
    def teacher(self) -> TextRanker:
        """A cross-encoder that has learnt from the training pairs."""
        folder = self.folder / "teacher"
        if not folder.exists():
            options = self.sizes.cross_encoder
            options = replace(options, steps=2) if self.quick else options
            TextRanker.fit(self.encoder, self.pairs(options.history), options=options, seed=0).save(folder)
        return TextRanker.load(folder, device=self.device)

    @cached_property
    def lessons(self) -> Lessons:
        """What the cross-encoder says of some training pairs, of the histories that heads are trained on."""
        pairs = 5 if self.quick else self.sizes.lessons
        return teach(self.teacher, self.pairs(10), pairs=pairs, candidates=8, seed=0)

    @cached_property
    def untouched(self) -> Vectors:
        """The vectors of the encoder as it is."""
        return self.encoder.encode(list(self.texts.values()))

    @cached_property
    def knowledge(self) -> Vectors:
        """The vectors of the films by Freebase's facts, from the package's `.kg` and `.link`."""
        package = find_spec("recbole")
        if package is None or package.origin is None:
            raise RuntimeError("MovieLens-100K comes with recbole==1.2.1, which is not installed.")
        root = Path(package.origin).parent / "dataset_example" / "ml-100k"
        triples = pd.read_csv(root / "ml-100k.kg", sep="\t", dtype=str)
        links = pd.read_csv(root / "ml-100k.link", sep="\t", dtype=str)
        entities = dict(links.itertuples(index=False, name=None))
        rows = [(head, relation, tail) for head, relation, tail in triples.itertuples(index=False, name=None)]
        return knowledge_vectors(rows, self.items, entities, dim=128)

    def interests(self, vectors: Vectors) -> Vectors:
        """Return what each user was interested in, (u, d)."""
        found = []
        for items in self.known:
            weights = DECAY ** np.arange(len(items) - 1, -1, -1)
            found.append(weights @ vectors[[self.row[item] for item in items]])
        return np.array(found, np.float32)

    def measure(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return warm recall@100 and NDCG@10 and cold ones of each user, (4, u), NaN without such likes."""
        measured = []
        for user, row in enumerate(np.array(scores, np.float64)):
            row[self.seen[user]] = -np.inf
            top = [self.items[place] for place in np.argsort(-row, kind="stable")[:100]]
            warm, cold = self.warm_test[user], self.cold_test[user]
            measured.append(
                [
                    recall_at(top, warm, 100),
                    ndcg_at(top, warm, 10),
                    recall_at(top, cold, 100),
                    ndcg_at(top, cold, 10),
                ]
            )
        return np.array(measured).T


Row = Callable[[Task, int], Vectors]


class Before(Enum):
    """What an adapter begins as."""

    NOTHING = "nothing"
    LORA = "LoRA"
    WORDS = "masked words"


def _adapted(
    options: FineTuning,
    *,
    history: int = 10,
    dims: int | None = None,
    before: Before = Before.NOTHING,
    taught: bool = False,
) -> Row:
    """Return what trains an adapter of the untouched encoder, or of what is trained `before`, and encodes with it."""

    def row(task: Task, seed: int) -> Vectors:
        adapter = _trained(task, seed, options, history, before, taught=taught)
        return _encoder(task, adapter, dims).encode(list(task.texts.values()))

    return row


def _lora(task: Task, seed: int) -> Vectors:
    return _encoder(task, _lora_adapter(task, seed)).encode(list(task.texts.values()))


def _words(task: Task, seed: int) -> Vectors:
    return _encoder(task, _words_adapter(task, seed)).encode(list(task.texts.values()))


def _lora_adapter(task: Task, seed: int) -> Path:
    return _trained(task, seed, task.sizes.lora, task.sizes.lora_history, Before.NOTHING)


def _words_adapter(task: Task, seed: int) -> Path:
    options = replace(task.sizes.words, steps=3) if task.quick else task.sizes.words
    folder = _folder(task, options, seed)
    if not folder.exists():
        pretrain_encoder(task.encoder, list(task.texts.values()), folder, options=options, seed=seed)
    return folder


def _trained(
    task: Task,
    seed: int,
    options: FineTuning,
    history: int,
    before: Before,
    *,
    taught: bool = False,
) -> Path:
    """Return the folder of the adapter; one that was trained for another row is used again."""
    folder = _folder(task, options, history, before, seed, taught)
    if folder.exists():
        return folder
    start = task.encoder
    if before is not Before.NOTHING:
        start = _encoder(task, (_lora_adapter if before is Before.LORA else _words_adapter)(task, seed))
    fine_tune_encoder(
        start,
        task.pairs(history),
        folder,
        valid=task.valid,
        lessons=task.lessons if taught else None,
        options=replace(options, steps=3) if task.quick else options,
        seed=seed,
    )
    return folder


def _folder(task: Task, *identity: object) -> Path:
    return task.folder / hashlib.sha256(repr((task.device, *identity)).encode()).hexdigest()


def _encoder(task: Task, adapter: Path, dims: int | None = None) -> Encoder:
    cache = task.folder / "embeddings.db"
    return Encoder(adapter=adapter, truncate_dim=dims, cache=cache, device=task.device)


def _fused(options: FineTuning, history: int = 10) -> Row:
    def row(task: Task, seed: int) -> Vectors:
        chosen = replace(options, steps=3) if task.quick else options
        pairs = task.pairs(history)
        others = {"graph": task.knowledge}
        return fuse(task.untouched, others, pairs, valid=task.valid, options=chosen, seed=seed)

    return row


def _with_graph(row_of_text: Row, weight: float) -> Row:
    return lambda task, seed: concatenate(
        row_of_text(task, seed), {"graph": task.knowledge}, {"graph": weight}
    )


def _with_untouched(row: Row, weight: float) -> Row:
    return lambda task, seed: concatenate(
        row(task, seed), {"untouched": task.untouched}, {"untouched": weight}
    )


LINEAR: Final = FineTuning(head="linear")
MLP: Final = FineTuning(head="mlp")
MATRYOSHKA: Final = replace(MLP, dims=(384, 128, 64))
SIZES: Final = {
    "cpu": Sizes(
        lora=FineTuning(
            body="lora", head="none", steps=50, batch_size=48, learning_rate=1e-3, looks=2, max_tokens=32
        ),
        lora_history=2,
        words=Pretraining(steps=60, max_tokens=32),
        cross_encoder=TextRanking(history=3, steps=120, batch_size=8, learning_rate=1e-4, max_tokens=64),
        lessons=500,
        reranked=100,
    ),
    "cuda": Sizes(
        lora=FineTuning(
            body="lora", head="none", steps=600, batch_size=128, mini_batch=256, learning_rate=1e-3,
            looks=6, max_tokens=32,
        ),
        lora_history=5,
        words=Pretraining(steps=600, max_tokens=32),
        cross_encoder=TextRanking(
            negatives=7, history=5, steps=2_000, batch_size=64, learning_rate=1e-4, max_tokens=128
        ),
        lessons=2_000,
        reranked=None,
    ),
}  # fmt: skip
ROWS: Final[dict[str, tuple[Row, bool]]] = {
    "untouched": (lambda task, _: task.untouched, False),
    "untouched, first 128": (lambda task, _: _cut(task.untouched, 128), False),
    "untouched, first 64": (lambda task, _: _cut(task.untouched, 64), False),
    "linear head": (_adapted(LINEAR), True),
    "MLP head": (_adapted(MLP), True),
    "MLP head, half untouched": (_with_untouched(_adapted(MLP), 0.5), True),
    "MLP head, first 128": (_adapted(MLP, dims=128), True),
    "MLP head, first 64": (_adapted(MLP, dims=64), True),
    "MLP head and graph": (_with_graph(_adapted(MLP), 0.3), True),
    "LoRA": (_lora, True),
    "LoRA, half untouched": (_with_untouched(_lora, 0.5), True),
    "LoRA, then MLP head": (_adapted(MLP, before=Before.LORA), True),
    "masked words": (_words, True),
    "masked words, then MLP head": (_adapted(MLP, before=Before.WORDS), True),
    "MLP head, Matryoshka": (_adapted(MATRYOSHKA), True),
    "MLP head, Matryoshka, first 128": (_adapted(MATRYOSHKA, dims=128), True),
    "MLP head, Matryoshka, first 64": (_adapted(MATRYOSHKA, dims=64), True),
    "MLP head, noise 0.5": (_adapted(replace(MLP, noise=0.5)), True),
    "MLP head, no popularity correction": (_adapted(replace(MLP, popularity_correction=False)), True),
    "MLP head, 4 hard negatives": (_adapted(replace(MLP, hard_negatives=4)), True),
    "MLP head, taught": (_adapted(MLP, taught=True), True),
    "MLP head, item to next item": (_adapted(MLP, history=1), True),
    "untouched and graph": (_with_graph(lambda task, _: task.untouched, 0.3), False),
    "graph alone": (_with_graph(lambda task, _: task.untouched, 0.999), False),
    "gated fusion with graph": (_fused(MLP), True),
}
"""What is measured: how vectors (n, d) come about, and whether a seed matters."""


def _cut(vectors: Vectors, dims: int) -> Vectors:
    kept: Vectors = vectors[:, :dims] / np.linalg.norm(vectors[:, :dims], axis=1, keepdims=True)
    return kept


def references(task: Task) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the scores (u, n) of popularity and of EASE (Steck, 2019), which know likes and no text."""
    liked = np.zeros((len(task.known), len(task.items)))
    for user, items in enumerate(task.known):
        liked[user, [task.row[item] for item in items]] = 1.0
    yield "popularity", np.tile(liked.sum(axis=0), (len(liked), 1))
    inverse = np.linalg.inv(liked.T @ liked + 500.0 * np.eye(len(task.items)))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    yield "EASE", liked @ weights


RERANKED: Final = "MLP head, users asked", "its 50 best by the cross-encoder", "its 50 best by both"


def reranked(task: Task) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield what of each user was found, (4, u), by the head of seed 0 and with the cross-encoder after it."""
    users = range(3 if task.quick else task.sizes.reranked or len(task.known))
    vectors = ROWS["MLP head"][0](task, 0)
    interests = task.interests(vectors)[users]
    head = MLP.scale * (interests / np.linalg.norm(interests, axis=1, keepdims=True)) @ vectors.T
    alone, both = head.astype(np.float64), head.astype(np.float64)
    texts = list(task.texts.values())
    for user in users:
        masked = head[user].copy()
        masked[task.seen[user]] = -np.inf
        best = np.argsort(-masked, kind="stable")[:50]
        history = [task.texts[item] for item in task.known[user]]
        log_odds = task.teacher.log_odds(history, [texts[row] for row in best])
        # The 50 stay before all others, in an order of their own.
        alone[user, best] = 1e6 + log_odds
        both[user, best] = 1e6 + log_odds + head[user, best]
    for name, scores in zip(RERANKED, (head, alone, both), strict=True):
        yield name, task.measure(scores)


def run(task: Task, names: Sequence[str], seeds: int) -> Iterator[Result]:
    """Yield the result of each row as it is there."""
    for name, scores in references(task):
        if name in names:
            yield _result(name, [task.measure(scores)], dims=0, seconds=0.0)
    if set(RERANKED) & set(names):
        for name, measured_once in reranked(task):
            if name in names:
                yield _result(name, [measured_once], dims=0, seconds=0.0)
    for name, (row, seeded) in ROWS.items():
        if name not in names:
            continue
        measured, dims = [], 0
        began = time.monotonic()
        for seed in range(seeds if seeded else 1):
            vectors = row(task, seed)
            dims = vectors.shape[1]
            measured.append(task.measure(task.interests(vectors) @ vectors.T))
        yield _result(name, measured, dims, (time.monotonic() - began) / len(measured) if seeded else 0.0)


def _result(name: str, measured: list[NDArray[np.float64]], dims: int, seconds: float) -> Result:
    of_user = np.mean(measured, axis=0)
    warm_recall, warm_ndcg, cold_recall, cold_ndcg = (bootstrap(values, seed=0) for values in of_user)
    return Result(
        name=name,
        seeds=len(measured),
        dims=dims,
        warm_recall=warm_recall,
        warm_ndcg=warm_ndcg,
        cold_recall=cold_recall,
        cold_ndcg=cold_ndcg,
        seconds=round(seconds, 1),
    )


def report(results: Sequence[Result], facts: dict[str, Any], console: Console) -> None:
    """Print the environment and the table."""
    tell_facts(facts, console)
    table = markdown_table(
        ("", "seeds", "d", "warm recall@100", "warm NDCG@10", "cold recall@100", "cold NDCG@10", "s")
    )
    for one in results:
        table.add_row(
            one.name,
            str(one.seeds),
            str(one.dims or ""),
            *(f"{value}" for value in (one.warm_recall, one.warm_ndcg, one.cold_recall, one.cold_ndcg)),
            f"{one.seconds:.0f}" if one.seconds else "",
        )
    console.print(table, highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.encoders", __doc__, quick="60 users and 3 steps, to see that it runs")
    names = ["popularity", "EASE", *RERANKED, *ROWS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these rows alone")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row; 3 by default")
    parser.add_argument(
        "--device", choices=list(SIZES), default="cpu", help="where the model is trained, and so how much"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="leave adapters there, and use those of before"
    )
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    import torch  # noqa: PLC0415 - after the restart

    torch.set_num_threads(1)
    facts = {**environment.describe(), "torch": torch.__version__}
    if options.device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
        facts["gpu"] = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        results = []
        for result in run(
            Task(folder, device=options.device, quick=options.quick), options.only, options.seeds
        ):
            results.append(result)
            print(result, file=sys.stderr, flush=True)  # noqa: T201 - long runs tell how far they are
            if options.json is not None:
                written = {
                    "environment": facts,
                    "quick": options.quick,
                    "results": [asdict(one) for one in results],
                }
                options.json.write_text(json.dumps(written, indent=1), encoding="utf-8")
    report(results, facts, Console(width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main()
