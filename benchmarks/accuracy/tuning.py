"""Where the defaults of the first stage and of the full system's trees come from.

    python -m benchmarks.accuracy.tuning

Options are compared by NDCG@10 on the last fold of the training part of MovieLens-100K under `user75`, seed 0: no
test interaction is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.accuracy import two_stage
from benchmarks.accuracy.__main__ import CACHE
from benchmarks.accuracy.metrics import accuracy, best_of
from benchmarks.accuracy.protocols import PROTOCOLS, Split
from benchmarks.accuracy.worlds import world
from explorank.demo.data import movielens
from explorank.rankers import LightGBMOptions, LightGBMRanker
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


def validated(model: Any, options: Any, fold: Fold) -> float:
    """Return the mean NDCG@10 of a model on what the fold holds out."""
    users = np.intersect1d(fold.known.users, fold.held_out.users)
    taken = fold.known.matrix[users]
    scores = model.fit(fold.known, options=options).scores_of_many(taken)
    return float(np.nanmean(accuracy(best_of(scores, taken, 10), fold.held_out.matrix[users]).ndcg))


def main() -> None:
    """Compare, and print the best first."""
    environment.restart_with_one_thread()
    data = world(movielens(), CACHE)
    split = PROTOCOLS["user75"].split(data.interactions, 0)
    *_, last = folds_by_user(split.train, 4, 0)
    found = [(validated(model, options, last), repr(options)) for model, options in models()]
    _tell("models", found)
    rows = two_stage.gather(Split(last.known, last.held_out), data.side, FirstStageOptions(), 0)
    found = []
    for leaves in (4, 7, 15, 31):
        params = {**two_stage.LIGHTGBM["params"], "num_leaves": leaves}
        own = LightGBMOptions(**{**two_stage.LIGHTGBM, "params": params})
        ranker = LightGBMRanker.fit(rows.train, valid=rows.valid, options=own)
        scores = np.full(last.known.matrix.shape, -np.inf)
        scores[rows.asked.users, rows.asked.items] = ranker.score(rows.asked.features)
        users = np.intersect1d(last.known.users, last.held_out.users)
        lists = best_of(scores[users], last.known.matrix[users], 10)
        ndcg = float(np.nanmean(accuracy(lists, last.held_out.matrix[users]).ndcg))
        found.append((ndcg, f"num_leaves={leaves}"))
    _tell("trees", found)


def _tell(what: str, found: list[tuple[float, str]]) -> None:
    sys.stdout.write(f"\n{what}\n" + "".join(f"{ndcg:.4f} {told}\n" for ndcg, told in sorted(found)[::-1]))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
