"""Where the defaults of the first stage and of the full system's rankers come from.

    python -m benchmarks.accuracy.tuning [--part models|towers|rankers] [--rankers lightgbm dcn sequence] [--jobs N]

Options are compared by NDCG@10 on the last fold of the training part of MovieLens-100K under `user75`, seed 0: no
test interaction is looked at. Towers are trained three times for each, since what their training draws moves them as
much as their options do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any, Final

import numpy as np

from benchmarks import environment
from benchmarks.accuracy import two_stage
from benchmarks.accuracy.__main__ import CACHE
from benchmarks.accuracy.metrics import accuracy, best_of
from benchmarks.accuracy.protocols import PROTOCOLS, Split
from benchmarks.accuracy.worlds import World, known_of_items, known_of_users, world
from explorank.demo.data import movielens
from explorank.retrieval.collaborative import (
    EASE,
    EASEOptions,
    FirstStageOptions,
    Fold,
    ImplicitALS,
    ImplicitALSOptions,
    ItemKNN,
    ItemKNNOptions,
    folds_by_user,
)

PARTS: Final = ("models", "towers", "rankers")
_SEEDS: Final = (0, 1, 2)


def models() -> Iterator[tuple[Any, Any]]:
    """Yield the models and options that are compared."""
    for l2 in (100.0, 200.0, 300.0, 400.0, 500.0, 800.0):
        yield EASE, EASEOptions(l2=l2)
    for factors, l2, confidence in product((12, 24, 32), (10.0, 30.0, 60.0), (1.0, 3.0, 6.0)):
        yield ImplicitALS, ImplicitALSOptions(factors=factors, l2=l2, confidence=confidence)
    for neighbours, shrinkage in product((50, 100, 200), (0.0, 10.0, 50.0)):
        yield ItemKNN, ItemKNNOptions(neighbours=neighbours, shrinkage=shrinkage)


def rankers() -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any]]]:
    """Yield rankers, what of their options differs from those of the full system, and all of their options."""
    for leaves in (4, 7, 15, 31):
        own = two_stage.OPTIONS["lightgbm"]
        yield (
            "lightgbm",
            {"num_leaves": leaves},
            {**own, "params": {**own["params"], "num_leaves": leaves}},
        )
    neural: dict[str, list[dict[str, Any]]] = {
        "dcn": [
            {},
            {"training": {"epochs": 6, "dropout": 0.2}},
            {"training": {"epochs": 10, "learning_rate": 1e-3}},
        ],
        "sequence": [
            {},
            {"training": {"epochs": 3}},
            {"width": 16, "layers": 1, "history": 30, "training": {"epochs": 4, "dropout": 0.3}},
            *({"training": {"adversarial": strength}} for strength in (0.25, 0.5, 1.0, 2.0)),
        ],
    }
    for name, variants in neural.items():
        for variant in variants:
            yield name, variant, {**two_stage.OPTIONS[name], **variant}


def towers() -> Iterator[dict[str, Any]]:
    """Yield what of the towers' options differs from those of the accuracy benchmark."""
    yield {}
    grid: Mapping[str, Sequence[float]] = {
        "dim": (32, 128),
        "hidden": (64, 256),
        "temperature": (0.1, 0.15, 0.3),
        "logq": (0.0, 0.5, 0.75),
        "learning_rate": (0.001, 0.006),
        "weight_decay": (0.0, 1e-3, 1e-2),
        "batch_size": (512, 2048),
        "id_dropout": (0.0, 0.1, 0.4),
        "history": (30, 50),
    }
    for name, values in grid.items():
        yield from ({name: value} for value in values)


def validated(model: Any, options: Any, fold: Fold) -> float:
    """Return the mean NDCG@10 of a model on what the fold holds out."""
    users = np.intersect1d(fold.known.users, fold.held_out.users)
    return _ndcg(model.fit(fold.known, options=options).scores_of_many(fold.known.matrix[users]), users, fold)


def validated_towers(differs: Mapping[str, Any], seed: int) -> float:
    """Return the mean NDCG@10 of towers, trained by `seed`, on what the last fold holds out."""
    from explorank.retrieval.collaborative.two_tower import TwoTower, TwoTowerOptions  # noqa: PLC0415 - torch

    data, fold = _data_and_last_fold()
    users = np.intersect1d(fold.known.users, fold.held_out.users)
    content, people = known_of_items(data.side), known_of_users(data.side)
    options = TwoTowerOptions(**{"history_dropout": 0.0, "device": "cpu", **differs})
    fitted = TwoTower.fit(fold.known, options=options, seed=seed, content=content, user_features=people)
    given = None if people is None else people[users]
    return _ndcg(fitted.scores_of_many(fold.known.matrix[users], given), users, fold)


def _ndcg(scores: Any, users: Any, fold: Fold) -> float:
    lists = best_of(scores, fold.known.matrix[users], 10)
    return float(np.nanmean(accuracy(lists, fold.held_out.matrix[users]).ndcg))


def _data_and_last_fold() -> tuple[World, Fold]:
    data = world(movielens(), CACHE)
    split = PROTOCOLS["user75"].split(data.interactions, 0)
    *_, last = folds_by_user(split.train, 4, 0)
    return data, last


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the best first."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.accuracy.tuning", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument(
        "--rankers", nargs="+", choices=sorted({name for name, *_ in rankers()}), metavar="NAME",
        help="compare these alone, and neither models nor towers",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="train so many towers at once")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    parts = options.part if options.rankers is None else ("rankers",)
    data, last = _data_and_last_fold()
    if "models" in parts:
        _tell("models", [(validated(model, its, last), repr(its)) for model, its in models()])
    if "towers" in parts:
        _tell("towers", _towers_by(options.jobs))
    if "rankers" in parts:
        chosen = [one for one in rankers() if options.rankers is None or one[0] in options.rankers]
        _tell("rankers", list(_ranked(chosen, last, data)))


def _towers_by(jobs: int) -> list[tuple[float, str]]:
    variants = list(towers())
    asked = list(product(variants, _SEEDS))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(validated_towers, *one) for one in asked]
        found = []
        for (differs, seed), one in zip(asked, running, strict=True):
            found.append(one.result())
            sys.stderr.write(f"towers {differs} seed {seed} {found[-1]:.4f}\n")
    by_variant = np.array(found).reshape(len(variants), len(_SEEDS))
    return [
        (float(of_seeds.mean()), f"{differs} {' '.join(f'{one:.4f}' for one in of_seeds)}")
        for differs, of_seeds in zip(variants, by_variant, strict=True)
    ]


def _ranked(
    chosen: Sequence[tuple[str, dict[str, Any], Mapping[str, Any]]], last: Fold, data: World
) -> Iterator[tuple[float, str]]:
    within = Split(last.known, last.held_out)
    rows = two_stage.gather(within, data.side, FirstStageOptions(), 0)
    shape, taken, held_out = last.known.matrix.shape, last.known.matrix, last.held_out.matrix
    for name, differs, options in chosen:
        scores = rows.scored(two_stage.trained(name, options, rows.train, rows.valid, 0), shape)
        lists = best_of(scores[within.users], taken[within.users], 10)
        ndcg = float(np.nanmean(accuracy(lists, held_out[within.users]).ndcg))
        sys.stderr.write(f"{name} {differs} {ndcg:.4f}\n")
        yield ndcg, f"{name} {differs}"


def _tell(what: str, found: list[tuple[float, str]]) -> None:
    sys.stdout.write(f"\n{what}\n" + "".join(f"{ndcg:.4f} {told}\n" for ndcg, told in sorted(found)[::-1]))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
