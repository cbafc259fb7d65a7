"""What the order of a history is worth: `SequenceRanker` with and without it, leave-last-out on MovieLens-100K.

    python -m benchmarks.sequence [--seeds 3] [--json PATH]

**Protocol.** Each user's interactions in order of time (those of one second in order of the file). The last one is
the test, the one before it the validation, and up to 20 before that are training requests, each ranked by what came
before it, against 20 items drawn evenly among those that the user had not taken up by the end of training. The test
ranks *all items* of the catalogue but those that the user had taken up before. Item ids are all that either model
reads: no dense features. Both have the same options but `ordered`; training stops on the NDCG@10 of the validation
against 100 drawn items. Intervals are over users, resampled, of each user's mean over the seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.report import markdown_table, tell_facts
from explorank.demo.data import movielens
from explorank.pipeline.metrics import Interval, bootstrap
from explorank.rankers import RankingData, SequenceOptions, SequenceRanker, TrainingOptions

REQUESTS_PER_USER: Final = 20
NEGATIVES: Final = 20
VALIDATION_NEGATIVES: Final = 100
LENGTH: Final = 30
K: Final = 10


@dataclass(frozen=True)
class Histories:
    """What each user took up, oldest first, and the catalogue."""

    of_user: tuple[tuple[str, ...], ...]
    items: NDArray[np.str_]

    @classmethod
    def load(cls) -> Histories:
        """Read MovieLens-100K from its installed package."""
        rows = movielens().interactions
        rows = rows.sort_values("timestamp", kind="stable")
        users = rows.groupby("user_id", sort=True)["item_id"]
        return cls(
            tuple(tuple(map(str, items)) for _, items in users), np.unique(rows["item_id"].astype(str))
        )

    def training(self, seed: int) -> RankingData:
        """Return requests with one item taken up and `NEGATIVES` that were not."""
        requests = [
            (user, place)
            for user, items in enumerate(self.of_user)
            for place in range(max(1, len(items) - 2 - REQUESTS_PER_USER), len(items) - 2)
        ]
        return self._requests(requests, NEGATIVES, seed, held_out=2)

    def validation(self, seed: int) -> RankingData:
        """Return the last but one item of each user."""
        requests = [(user, len(items) - 2) for user, items in enumerate(self.of_user)]
        return self._requests(requests, VALIDATION_NEGATIVES, seed, held_out=1)

    def _requests(
        self, requests: Sequence[tuple[int, int]], negatives: int, seed: int, *, held_out: int
    ) -> RankingData:
        rng = np.random.default_rng(seed)
        others = [np.setdiff1d(self.items, items[:-held_out]) for items in self.of_user]
        ids = [
            [self.of_user[user][place], *rng.choice(others[user], negatives, replace=False)]
            for user, place in requests
        ]
        return RankingData(
            features=np.empty((len(requests) * (1 + negatives), 0), np.float32),
            feature_names=(),
            labels=np.tile([1.0, *[0.0] * negatives], len(requests)),
            groups=np.full(len(requests), 1 + negatives),
            item_ids=np.array(ids).ravel(),
            histories=tuple(self.of_user[user][max(0, place - LENGTH) : place] for user, place in requests),
        )

    def ranks(self, user: int, scores: NDArray[np.float64]) -> int:
        """Return how many new items score as well as the last one or better, itself left out."""
        *before, last = self.of_user[user]
        new = ~np.isin(self.items, before)
        return int((scores[new] >= scores[np.searchsorted(self.items, last)]).sum()) - 1


def accuracy(ranks: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return NDCG@10 and hits@10 of each user with one relevant item at a rank from 0."""
    hits = ranks < K
    return np.where(hits, 1.0 / np.log2(ranks + 2.0), 0.0), hits.astype(np.float64)


def popularity(histories: Histories) -> NDArray[np.int64]:
    """Return the ranks that the items' counts in training give."""
    counts = Counter(item for items in histories.of_user for item in items[:-2])
    scores = np.array([counts[item] for item in histories.items.tolist()], np.float64)
    return np.array([histories.ranks(user, scores) for user in range(len(histories.of_user))])


def options(*, ordered: bool) -> SequenceOptions:
    """Return the options, which differ in the order alone."""
    return SequenceOptions(
        history=LENGTH,
        ordered=ordered,
        attention_width=8,
        training=TrainingOptions(epochs=6, batch_rows=4_000, learning_rate=5e-3, dropout=0.2, patience=2),
    )


def learnt(histories: Histories, *, ordered: bool, seed: int) -> tuple[NDArray[np.int64], SequenceRanker]:
    """Return the ranks that a ranker trained with a seed gives, and the ranker."""
    ranker = SequenceRanker.fit(
        histories.training(seed),
        valid=histories.validation(seed),
        options=options(ordered=ordered),
        seed=seed,
    )
    catalogue = histories.items.tolist()
    ranks = [
        histories.ranks(user, ranker.score(ranker.read_ids(catalogue, items[:-1])))
        for user, items in enumerate(histories.of_user)
    ]
    return np.array(ranks), ranker


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, rank, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.sequence", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")
    chosen = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    console = Console(width=None if sys.stdout.isatty() else 120)
    histories = Histories.load()
    by_model: dict[str, list[NDArray[np.int64]]] = {"popularity": [popularity(histories)]}
    for seed in range(chosen.seeds):
        for name, ordered in (("ordered", True), ("without order", False)):
            began = time.process_time()
            ranks, ranker = learnt(histories, ordered=ordered, seed=seed)
            by_model.setdefault(name, []).append(ranks)
            seconds = time.process_time() - began
            console.print(
                f"{name}, seed {seed}: NDCG@10 {accuracy(ranks)[0].mean():.4f}, {seconds:.0f} s of CPU time, "
                f"{dict(ranker.manifest.metrics)}",
                highlight=False,
            )
    facts = environment.describe()
    tell_facts(facts, console)
    table = markdown_table(["", "NDCG@10", "hits@10"])
    results: dict[str, dict[str, Interval]] = {}
    each = {
        name: [np.mean(m, axis=0) for m in zip(*map(accuracy, runs), strict=True)]
        for name, runs in by_model.items()
    }
    for name, metrics in each.items():
        results[name] = {
            title: bootstrap(m, seed=0) for title, m in zip(("NDCG@10", "hits@10"), metrics, strict=True)
        }
    gains = [one - other for one, other in zip(each["ordered"], each["without order"], strict=True)]
    results["gain of order"] = {
        title: bootstrap(m, seed=0) for title, m in zip(("NDCG@10", "hits@10"), gains, strict=True)
    }
    for name, intervals in results.items():
        table.add_row(name, *(f"{interval:.4f}" for interval in intervals.values()))
    console.print(table, highlight=False)
    if chosen.json is not None:
        written = {
            "environment": facts,
            "results": {n: {t: str(i) for t, i in r.items()} for n, r in results.items()},
        }
        chosen.json.write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
