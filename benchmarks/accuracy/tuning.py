"""Where the defaults of the first stage and of the full system's rankers come from.

    python -m benchmarks.accuracy.tuning [--rankers lightgbm dcn sequence]

Options are compared by NDCG@10 on the last fold of the training part of MovieLens-100K under `user75`, seed 0: no
test interaction is looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.accuracy import two_stage
from benchmarks.accuracy.__main__ import CACHE
from benchmarks.accuracy.metrics import accuracy, best_of
from benchmarks.accuracy.protocols import PROTOCOLS, Split
from benchmarks.accuracy.worlds import World, world
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


def validated(model: Any, options: Any, fold: Fold) -> float:
    """Return the mean NDCG@10 of a model on what the fold holds out."""
    users = np.intersect1d(fold.known.users, fold.held_out.users)
    taken = fold.known.matrix[users]
    scores = model.fit(fold.known, options=options).scores_of_many(taken)
    return float(np.nanmean(accuracy(best_of(scores, taken, 10), fold.held_out.matrix[users]).ndcg))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the best first."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.accuracy.tuning", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--rankers", nargs="+", choices=sorted({name for name, *_ in rankers()}), metavar="NAME",
        help="compare these alone; default: all rankers, and the models before them",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    data = world(movielens(), CACHE)
    split = PROTOCOLS["user75"].split(data.interactions, 0)
    *_, last = folds_by_user(split.train, 4, 0)
    if options.rankers is None:
        _tell("models", [(validated(model, its, last), repr(its)) for model, its in models()])
    chosen = [one for one in rankers() if options.rankers is None or one[0] in options.rankers]
    _tell("rankers", list(_ranked(chosen, last, data)))


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
