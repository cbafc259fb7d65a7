"""What learning from use adds to retrieval, and a column of it to the ranker, in a running stage on MovieLens-100K.

    python -m benchmarks.by_use [--part retrieval|embeddings|ranker|stage] [--seeds 1 2 3] [--shares 0 0.5] [--earlier]
                                [--models als two_tower sasrec] [--learnt by_use|learned_embeddings|both] [--json PATH]

**Protocol.** One global split in time, 80 % of the interactions before it; features, catalogue, table and rankers are
built on the past alone. *Retrieval*: each user known by then who liked something later is asked about once, at the
split, by `Stage.rank` with what they had met excluded; the candidates of the logged decision are compared with what
they liked later. *Embeddings*: the same for `learned_embeddings`; a user's recall is the mean over spaces learnt by
each seed. *Ranker*: LightGBM on what `explorank train` learns from, with and without the columns; NDCG@10 over
the sampled candidates of the latest fifth of the requests. *Stage*: what is answered to the users above in ten slots,
by the default retrievers and a ranker that `explorank train` made, and by the same with the retriever and the column;
for each share of negatives from retrieval, and each beyond the first share. `--earlier` takes the past for all there
is and splits it anew, so that a share can be chosen without a look at what it is judged by.
Intervals are bootstraps over users; "beyond" is the difference user by user.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.report import markdown_table, tell_facts
from explorank import load
from explorank.builtin.retrieval import SIMILARITY_BY_USE, SIMILARITY_LEARNED
from explorank.demo.accuracy import held_out_queries
from explorank.demo.data import DemoData, movielens
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.evidence import accuracy, compared
from explorank.pipeline.features import feature_access, prepare_features
from explorank.pipeline.metrics import Interval, bootstrap, ndcg_at, recall_at
from explorank.pipeline.past_data import PastData, past_data
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.train import train_ranker
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import LightGBMOptions, LightGBMRanker, score_data
from explorank.retrieval.features import copy_repository
from explorank.settings import Settings, parse_settings


@dataclass(frozen=True, slots=True)
class Mix:
    """Some retrievers, each with how many candidates it is asked for, and how many the stage keeps."""

    name: str
    retrievers: tuple[tuple[str, int], ...]
    candidates: int
    beyond: str = ""
    """The mix that it is compared with."""


MIXES: Final = (
    Mix("popular", (("popular", 100),), 100),
    Mix("similar_to_history", (("similar_to_history", 100),), 100),
    Mix("similar_by_use", (("similar_by_use", 100),), 100, "popular"),
    Mix(
        "similar_by_use and similar_to_history, half each",
        (("similar_by_use", 50), ("similar_to_history", 100)),
        100,
        "similar_to_history",
    ),
    Mix(
        "the default retrievers", (("similar_to_history", 200), ("popular", 100), ("new_items", 50)), 300
    ),
    Mix(
        "similar_by_use before them",
        (("similar_by_use", 100), ("similar_to_history", 200), ("popular", 100), ("new_items", 50)),
        300,
        "the default retrievers",
    ),
)  # fmt: skip
EMBEDDING_MIXES: Final = (
    *(mix for mix in MIXES if mix.candidates == 300),
    Mix("popular", (("popular", 100),), 100),
    Mix("similar_to_history", (("similar_to_history", 100),), 100),
    Mix("similar_by_use", (("similar_by_use", 100),), 100),
    Mix("learned_embeddings", (("learned_embeddings", 100),), 100, "popular"),
    Mix(
        "learned_embeddings and similar_to_history, half each",
        (("learned_embeddings", 50), ("similar_to_history", 100)),
        100,
        "similar_to_history",
    ),
    Mix(
        "learned_embeddings and similar_by_use, half each",
        (("learned_embeddings", 50), ("similar_by_use", 100)),
        100,
        "similar_by_use",
    ),
    Mix(
        "learned_embeddings before the default retrievers",
        (("learned_embeddings", 100), ("similar_to_history", 200), ("popular", 100), ("new_items", 50)),
        300,
        "the default retrievers",
    ),
    Mix(
        "learned_embeddings and similar_by_use before them",
        (
            ("learned_embeddings", 100),
            ("similar_by_use", 100),
            ("similar_to_history", 200),
            ("popular", 100),
            ("new_items", 50),
        ),
        300,
        "similar_by_use before them",
    ),
)
MODELS: Final = ("ease", "item_knn")
EMBEDDING_MODELS: Final = ("als", "two_tower", "sasrec")
LEARNT_COLUMNS: Final = (SIMILARITY_BY_USE, SIMILARITY_LEARNED)
LEARNT: Final[dict[str, tuple[Mix, dict[str, Any]]]] = {
    "by_use": (MIXES[-1], {"by_use": {}}),
    "learned_embeddings": (EMBEDDING_MIXES[-2], {"learned_embeddings": {"column": True}}),
    "both": (EMBEDDING_MIXES[-1], {"by_use": {}, "learned_embeddings": {"column": True}}),
}
"""What a whole stage may learn, with its retrievers."""
LIGHTGBM: Final = {"use": "lightgbm", "num_threads": 1, "budget_ms": 5_000.0}


@dataclass(frozen=True, slots=True)
class Found:
    """What share of what users liked later was among their candidates."""

    model: str
    """What was fitted for it, apart from what other mixes read; empty where nothing was."""
    mix: str
    candidates: int
    recall: Interval
    beyond: str
    gain: Interval | None


@dataclass(frozen=True, slots=True)
class Ranked:
    """What use changed in NDCG@10, by one seed."""

    seed: int
    without: Interval
    with_use: Interval
    difference: Interval
    learnt: str
    """The columns or the section of the settings that it was learnt by."""


@dataclass(frozen=True, slots=True)
class Staged(Ranked):
    """The same of what a stage answers, by a ranker with some of its negatives from retrieval."""

    share: float
    """Of the negatives."""
    without_beyond: Interval | None
    """What the share changes from the first of the shares without use; None for that one."""
    with_use_beyond: Interval | None


def settings_of(
    data: DemoData, folder: Path, ranker: dict[str, Any] | None = None, **retrieval: Any
) -> Settings:
    """Return the settings of a stage in `folder` whose clock stands at the split."""
    return parse_settings(
        {
            "version": 1,
            "features": {"as_of": data.split.isoformat(), "positive_from": data.positive_from},
            "exploration": {"mode": "off", "policy": {"use": "uniform"}},
            "ranker": ranker,
            "retrieval": retrieval,
        },
        folder,
    )


def retrieved(settings: Settings, queries: pd.DataFrame, candidates: int) -> NDArray[np.float64]:
    """Return the recall (u,) of the candidates of each query, as the stage logs them."""
    recall = []
    with load(settings) as stage:
        for user, seen, positives in zip(
            queries["user_id"], queries["seen"], queries["positives"], strict=True
        ):
            decision = stage.rank(user_id=user, slots=10, exclude=seen)
            found = stage.decision(decision.decision_id).item_ids.tolist()
            assert not decision.fallbacks, decision.fallbacks  # noqa: S101 - a retriever that fails measures nothing
            recall.append(recall_at(found, set(positives) - set(seen), candidates))
    return np.array(recall)


def measure_retrieval(data: DemoData, folder: Path, queries: pd.DataFrame) -> Iterator[Found]:
    """Yield what each mix finds; what reads the table once for each model."""
    measured: dict[str, NDArray[np.float64]] = {}
    for model in MODELS:
        by_use = {"model": model}
        build_catalogue(settings_of(data, folder, by_use=by_use), interactions=data.past, until=data.split)
        for mix in MIXES:
            reads_table = any(name == "similar_by_use" for name, _ in mix.retrievers)
            if mix.name in measured and not reads_table:
                continue
            retrievers = [{"use": name, "k": k} for name, k in mix.retrievers]
            settings = settings_of(
                data, folder, by_use=by_use, candidates=mix.candidates, retrievers=retrievers
            )
            measured[mix.name] = recall = retrieved(settings, queries, mix.candidates)
            yield Found(
                model if reads_table else "",
                mix.name,
                mix.candidates,
                bootstrap(recall, seed=0),
                mix.beyond,
                bootstrap(recall - measured[mix.beyond], seed=0) if mix.beyond else None,
            )


def measure_embeddings(
    data: DemoData, folder: Path, queries: pd.DataFrame, seeds: Sequence[int], models: Sequence[str]
) -> Iterator[Found]:
    """Yield what each mix finds, the mean over `seeds` of a space; what reads a space once for each model."""
    measured: dict[str, NDArray[np.float64]] = {}
    for model in models:
        drawn: dict[str, list[NDArray[np.float64]]] = {}
        for seed in seeds:
            learnt = {"by_use": {}, "learned_embeddings": {"model": model, "seed": seed}}
            build_catalogue(settings_of(data, folder, **learnt), interactions=data.past, until=data.split)
            for mix in EMBEDDING_MIXES:
                if mix.name in measured and not _reads_space(mix):
                    continue
                retrievers = [{"use": name, "k": k} for name, k in mix.retrievers]
                settings = settings_of(
                    data, folder, **learnt, candidates=mix.candidates, retrievers=retrievers
                )
                recall = retrieved(settings, queries, mix.candidates)
                if _reads_space(mix):
                    drawn.setdefault(mix.name, []).append(recall)
                else:
                    measured[mix.name] = recall
                    yield Found("", mix.name, mix.candidates, bootstrap(recall, seed=0), "", None)
        for mix in EMBEDDING_MIXES:
            if _reads_space(mix):
                recall = np.mean(drawn[mix.name], axis=0)
                gain = bootstrap(recall - measured[mix.beyond], seed=0)
                yield Found(model, mix.name, mix.candidates, bootstrap(recall, seed=0), mix.beyond, gain)


def _reads_space(mix: Mix) -> bool:
    return any(name == "learned_embeddings" for name, _ in mix.retrievers)


def measure_ranker(data: DemoData, folder: Path, seeds: Sequence[int]) -> Iterator[Ranked]:
    """Yield what each column changes, seed by seed; a seed draws the requests, their other items and the trees."""
    settings = settings_of(data, folder, by_use={}, learned_embeddings={"column": True})
    _, catalogue = build_catalogue(settings, interactions=data.past, until=data.split)
    access = feature_access(settings)
    for seed in seeds:
        options = TrainOptions(queries=QueryOptions(positive_from=data.positive_from), seed=seed)
        past = past_data(settings, data.past, catalogue, access, options)
        plain = [name for name in past.training.feature_names if name not in LEARNT_COLUMNS]
        both = _ndcg(past, [*plain, *LEARNT_COLUMNS], seed)
        by_use, learned = (_ndcg(past, [*plain, name], seed) for name in LEARNT_COLUMNS)
        without = _ndcg(past, plain, seed)
        for columns, before, after in (
            (SIMILARITY_BY_USE, without, by_use),
            (SIMILARITY_LEARNED, without, learned),
            (f"{SIMILARITY_LEARNED} beside {SIMILARITY_BY_USE}", by_use, both),
        ):
            yield Ranked(
                seed,
                bootstrap(before, seed=seed, users=past.later_users),
                bootstrap(after, seed=seed, users=past.later_users),
                compared(after, before, past.later_users, seed=seed),
                columns,
            )


def _ndcg(past: PastData, columns: Sequence[str], seed: int) -> NDArray[np.float64]:
    """Return NDCG@10 of each later request, (h,), by a ranker that was trained on `columns`."""
    places = [past.training.feature_names.index(name) for name in columns]
    training, later = (
        replace(part, features=part.features[:, places], feature_names=tuple(columns))
        for part in (past.training, past.later)
    )
    ranker = LightGBMRanker.fit(training, valid=later, options=LightGBMOptions(num_threads=1), seed=seed)
    return accuracy(score_data(ranker, later), later)["ndcg@10"]


def measure_stage(
    data: DemoData,
    folder: Path,
    queries: pd.DataFrame,
    seeds: Sequence[int],
    shares: Sequence[float],
    learnt: str,
) -> Iterator[Staged]:
    """Yield what retriever and column together change in what is answered, seed by seed and share by share."""
    mix, sections = LEARNT[learnt]
    told: dict[str, Any] = {
        **sections,
        "candidates": mix.candidates,
        "retrievers": [{"use": name, "k": k} for name, k in mix.retrievers],
    }
    build_catalogue(settings_of(data, folder, **sections), interactions=data.past, until=data.split)
    for seed in seeds:
        first: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        for share in shares:
            without, with_use = (
                _answered(settings_of(data, folder, LIGHTGBM, **retrieval), data, queries, seed, share)
                for retrieval in ({}, told)
            )
            yield Staged(
                seed,
                bootstrap(without, seed=seed),
                bootstrap(with_use, seed=seed),
                bootstrap(with_use - without, seed=seed),
                learnt,
                share,
                None if first is None else bootstrap(without - first[0], seed=seed),
                None if first is None else bootstrap(with_use - first[1], seed=seed),
            )
            first = first or (without, with_use)


def _answered(
    settings: Settings, data: DemoData, queries: pd.DataFrame, seed: int, share: float
) -> NDArray[np.float64]:
    """Return NDCG@10 (u,) of the ten that a stage answers to each query, with a ranker trained for it."""
    options = TrainOptions(
        queries=QueryOptions(positive_from=data.positive_from),
        retrieved_share=share,
        seed=seed,
        promote="always",
    )
    train_ranker(settings, data.past, options=options)
    ndcg = []
    with load(settings) as stage:
        for user, seen, positives in zip(
            queries["user_id"], queries["seen"], queries["positives"], strict=True
        ):
            decision = stage.rank(user_id=user, slots=10, exclude=seen)
            assert not decision.fallbacks, decision.fallbacks  # noqa: S101 - a part that fails measures nothing
            ndcg.append(ndcg_at(decision.items, set(positives) - set(seen), 10))
    return np.array(ndcg)


def earlier(data: DemoData) -> DemoData:
    """Return the past of `data` as if it were all there is, with 80 % of it before a split of its own."""
    past = data.past
    return replace(
        data, interactions=past, split=past["timestamp"].iloc[int(0.8 * len(past))].to_pydatetime()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print Markdown, and write JSON where asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks.by_use", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--part", choices=("retrieval", "embeddings", "ranker", "stage"), help="measure this alone"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the rankers and the spaces"
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.0, 0.5],
        help="of negatives from retrieval, for the stage",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=EMBEDDING_MODELS,
        default=EMBEDDING_MODELS,
        help="that learn the spaces",
    )
    parser.add_argument("--learnt", choices=LEARNT, default="by_use", help="what the whole stage learns")
    parser.add_argument(
        "--earlier", action="store_true", help="split the past alone, to choose by what is not judged by"
    )
    parser.add_argument("--cache", type=Path, help="where embeddings are kept for another run")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")
    options = parser.parse_args(arguments)
    console = Console(width=200)
    data = earlier(movielens()) if options.earlier else movielens()
    queries = held_out_queries(data)
    # Others were not known at the split: features of their first events are not in the store.
    queries = queries[queries["event_timestamp"] == pd.Timestamp(data.split)]
    facts = environment.describe() | {"data": data.name, "users": len(queries)}
    tell_facts(facts, console)
    parts = ("retrieval", "embeddings", "ranker", "stage") if options.part is None else (options.part,)
    results: dict[str, Sequence[Found] | Sequence[Ranked] | Sequence[Staged]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.cache is not None:
            options.cache.touch()
            (folder / ".explorank").mkdir()
            (folder / ".explorank" / "embeddings.db").symlink_to(options.cache.absolute())
        copy_repository(folder / "feature_repo")
        prepare_features(
            settings_of(data, folder), data.interactions, data.items, data.users, until=data.split
        )
        if "retrieval" in parts:
            results["retrieval"] = found = list(measure_retrieval(data, folder, queries))
            tell_retrieval(found, console)
        if "embeddings" in parts:
            spaces = measure_embeddings(data, folder, queries, options.seeds, options.models)
            results["embeddings"] = near = list(spaces)
            tell_retrieval(near, console)
        if "ranker" in parts:
            results["ranker"] = ranked = list(measure_ranker(data, folder, options.seeds))
            tell_ranked(ranked, console)
        if "stage" in parts:
            staged = measure_stage(data, folder, queries, options.seeds, options.shares, options.learnt)
            results["stage"] = answered = list(staged)
            tell_staged(answered, console)
    if options.json is not None:
        written = {part: [asdict(one) for one in measured] for part, measured in results.items()}
        options.json.write_text(json.dumps({"environment": facts, **written}, indent=1), encoding="utf-8")
    return 0


def tell_retrieval(found: Sequence[Found], console: Console) -> None:
    """Print a row for each mix."""
    table = markdown_table(("retrievers", "learnt by", "candidates", "recall", "beyond"), left=("beyond",))
    for one in found:
        gain = "" if one.gain is None else f"{one.gain:+} {one.beyond}"
        table.add_row(one.mix, one.model, str(one.candidates), f"{one.recall}", gain)
    console.print(table, highlight=False)


def tell_staged(staged: Sequence[Staged], console: Console) -> None:
    """Print a row for each seed and share."""
    table = markdown_table(
        ("seed", "share", "NDCG@10 without", "with use", "difference", "beyond the first share")
    )
    for one in staged:
        beyond = ""
        if one.without_beyond is not None and one.with_use_beyond is not None:
            beyond = f"{one.without_beyond:+} without, {one.with_use_beyond:+} with use"
        table.add_row(
            str(one.seed),
            f"{one.share:g}",
            f"{one.without}",
            f"{one.with_use}",
            f"{one.difference:+}",
            beyond,
        )
    console.print(table, highlight=False)


def tell_ranked(ranked: Sequence[Ranked], console: Console) -> None:
    """Print a row for each seed."""
    table = markdown_table(("column", "seed", "NDCG@10 without", "with", "difference"), left=("column",))
    for one in ranked:
        table.add_row(one.learnt, str(one.seed), f"{one.without}", f"{one.with_use}", f"{one.difference:+}")
    console.print(table, highlight=False)


if __name__ == "__main__":
    environment.restart_with_one_thread()
    sys.exit(main())
