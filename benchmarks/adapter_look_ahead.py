"""How much it flatters a ranker that its similarities were learnt from likes of its own requests, on MovieLens-100K.

    python -m benchmarks.adapter_look_ahead [--seeds N] [--quick] [--json PATH]

**Protocol.** Ratings of 4 and more are likes. An adapter (the head that `explorank adapt` trains) learns from the first
80 % of the ratings, by time, or from the first 60 %; the encoder as it is stands beside them. LightGBM is trained, as
`explorank train` does it, on requests within the first 80 %, or on those of them after the first 60 %. *In training*:
NDCG@10 of the order by similarity alone on the requests that the ranker learns from. *Card*: the ranker's NDCG@10 on
the later slice, which the card tells. *Afterwards*: of the requests within the last 20 %, which nothing has seen. All
are among the liked items and up to 60 others, drawn evenly.

A seed draws adapter, requests and negatives. Intervals are bootstraps over users, of the mean over seeds. *Beyond* is
card less afterwards, and less the same with the encoder as it is: what the look ahead adds. *Less than all* is
afterwards, less afterwards of the adapter of 80 % with all requests.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from explorank.builtin.retrieval import SIMILARITY
from explorank.demo.data import movielens
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.encoders import AdaptOptions, adapt_encoder, items_to_adapt_to
from explorank.pipeline.evidence import accuracy
from explorank.pipeline.features import feature_access, prepare_features
from explorank.pipeline.metrics import Interval
from explorank.pipeline.past_data import past_data
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import LightGBMOptions, LightGBMRanker, RankingData, score_data
from explorank.retrieval.encoding import FineTuning
from explorank.retrieval.features import copy_repository
from explorank.settings import Settings, parse_settings

SEEN: Final[dict[str, float | None]] = {"nothing": None, "80 %": 0.8, "60 %": 0.6}
"""What share of the ratings the vectors have seen, by time."""
REQUESTS: Final[dict[str, float | None]] = {"all": None, "after 60 %": 0.6}
"""After what share of the ratings the requests stand that the ranker learns from."""
_RESAMPLED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Asked:
    """NDCG@10 of some requests, and whose each is; NaN where nothing was liked."""

    values: NDArray[np.float64]
    users: NDArray[np.str_]

    @classmethod
    def of(cls, scores: NDArray[np.floating[Any]], data: RankingData) -> Asked:
        """Return it of the order by `scores` (n,), a row without one last."""
        assert data.user_ids is not None  # noqa: S101 - past requests know whose they are, for the type checker
        found = accuracy(np.nan_to_num(scores.astype(np.float64), nan=-1.0), data)["ndcg@10"]
        return cls(found, data.user_ids.astype(str))


@dataclass(frozen=True, slots=True)
class Figures:
    """What one kind of vectors and requests came to, a seed each."""

    trained_on: list[int] = field(default_factory=list)
    in_training: list[float] = field(default_factory=list)
    alone_afterwards: list[float] = field(default_factory=list)
    card: list[Asked] = field(default_factory=list)
    afterwards: list[Asked] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the table."""

    seen: str
    requests: str
    trained_on: float
    in_training: float
    alone_afterwards: float
    card: Interval
    afterwards: Interval
    beyond: Interval
    less_than_all: Interval


class World:
    """MovieLens in an installation, cut by time."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        data = movielens()
        events = data.interactions
        if quick:
            events = events[events["user_id"].isin(sorted(events["user_id"].unique())[:80])]
        self.events = events
        self.quick = quick
        self.folder = folder
        copy_repository(folder / "feature_repo")
        self.settings = self.with_adapter(None)
        prepare_features(self.settings, events, data.items, data.users)
        self.access = feature_access(self.settings)
        self.texts, _ = items_to_adapt_to(self.settings)

    def moment(self, share: float) -> pd.Timestamp:
        """Return the moment before which that share of the ratings lies."""
        times = self.events["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
        return pd.Timestamp(int(np.quantile(times, share)), unit="us", tz="UTC")

    def before(self, moment: pd.Timestamp) -> pd.DataFrame:
        """Return the ratings before a moment."""
        return self.events[self.events["timestamp"] < moment]

    def with_adapter(self, adapter: Path | None) -> Settings:
        """Return the settings of the installation with an adapter, or without."""
        features = {"repository": "feature_repo", "positive_from": 4.0}
        features["as_of"] = self.moment(0.8).isoformat()
        retrieval = {"adapter": None if adapter is None else str(adapter), "index": {"kind": "flat"}}
        return parse_settings({"version": 1, "features": features, "retrieval": retrieval}, self.folder)

    def adapted(self, share: float | None, seed: int) -> Settings:
        """Return the settings with an adapter that has seen that share of the ratings."""
        if share is None:
            return self.settings
        tuning = FineTuning(decay=self.settings.retrieval.decay)
        if self.quick:
            tuning = replace(tuning, steps=3)
        options = AdaptOptions(fine_tuning=tuning, positive_from=4.0, seed=seed)
        learnt_from = self.before(self.moment(share))
        _, adapter = adapt_encoder(self.settings, learnt_from, self.texts, options=options)
        return self.with_adapter(adapter.folder)


def measure(world: World, seeds: int) -> dict[tuple[str, str], Figures]:
    """Return the figures by what the vectors have seen and which requests the ranker learns from."""
    figures = {(seen, requests): Figures() for seen in SEEN for requests in REQUESTS}
    for seed in range(seeds):
        for seen, share in SEEN.items():
            settings = world.adapted(share, seed)
            _, catalogue = build_catalogue(settings)
            for requests, after in REQUESTS.items():
                since = None if after is None else world.moment(after).timestamp()
                options = TrainOptions(queries=QueryOptions(positive_from=4.0), seed=seed, since=since)
                split = world.moment(0.8)
                past = past_data(settings, world.before(split), catalogue, world.access, options)
                ranker = LightGBMRanker.fit(
                    past.training, valid=past.later, options=LightGBMOptions(), seed=seed
                )
                options = replace(options, since=split.timestamp(), max_queries=len(world.events))
                future = past_data(settings, world.events, catalogue, world.access, options)
                column = past.training.feature_names.index(SIMILARITY)
                one = figures[seen, requests]
                one.trained_on.append(past.training.requests)
                alone = [
                    Asked.of(data.features[:, column], data)
                    for data in (past.training, future.training, future.later)
                ]
                one.in_training.append(float(np.nanmean(alone[0].values)))
                one.alone_afterwards.append(float(np.nanmean(_joined(alone[1:]).values)))
                one.card.append(Asked.of(score_data(ranker, past.later), past.later))
                parts = [Asked.of(score_data(ranker, data), data) for data in (future.training, future.later)]
                one.afterwards.append(_joined(parts))
                sys.stderr.write(f"seed {seed}, vectors have seen {seen}, requests {requests}: done\n")
    return figures


def _joined(parts: Sequence[Asked]) -> Asked:
    return Asked(np.concatenate([one.values for one in parts]), np.concatenate([one.users for one in parts]))


def results(figures: dict[tuple[str, str], Figures]) -> Iterator[Result]:
    """Yield the table's rows; users are resampled together for all of them, so that differences have intervals."""
    everybody = [asked.users for one in figures.values() for asked in (*one.card, *one.afterwards)]
    users = np.unique(np.concatenate(everybody))
    drawn = np.random.default_rng(0).multinomial(
        len(users), np.full(len(users), 1 / len(users)), size=_RESAMPLED
    )
    counts = np.vstack([np.ones((1, len(users))), drawn])

    def means(seeds: Sequence[Asked]) -> NDArray[np.float64]:
        """Return the mean over seeds, of all users and of each resample."""
        found = []
        for asked in seeds:
            told = np.isfinite(asked.values)
            rows = np.searchsorted(users, asked.users[told])
            sums = np.bincount(rows, asked.values[told], len(users))
            found.append(counts @ sums / (counts @ np.bincount(rows, minlength=len(users))))
        mean: NDArray[np.float64] = np.mean(found, axis=0)
        return mean

    both = {key: (means(one.card), means(one.afterwards)) for key, one in figures.items()}
    for (seen, requests), one in figures.items():
        card, afterwards = both[seen, requests]
        untouched = both["nothing", requests]
        yield Result(
            seen,
            requests,
            float(np.mean(one.trained_on)),
            float(np.mean(one.in_training)),
            float(np.mean(one.alone_afterwards)),
            _interval(card),
            _interval(afterwards),
            _interval(card - afterwards - (untouched[0] - untouched[1])),
            _interval(afterwards - both["80 %", "all"][1]),
        )


def _interval(means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return Interval(float(means[0]), float(low), float(high))


def report(found: Sequence[Result], facts: dict[str, Any], console: Console) -> None:
    """Print the environment and the table."""
    tell_facts(facts, console)
    headings = ("the vectors have seen", "requests", "trained on", "in training", "afterwards")
    table = markdown_table((*headings, "card", "afterwards", "beyond", "less than all"), left={"requests"})
    for one in found:
        alone = (f"{one.in_training:.3f}", f"{one.alone_afterwards:.3f}")
        told = (one.card, one.afterwards, one.beyond, one.less_than_all)
        table.add_row(one.seen, one.requests, f"{one.trained_on:,.0f}", *alone, *map(str, told))
    console.print(table, highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of(
        "benchmarks.adapter_look_ahead", __doc__, quick="80 users and 3 steps, to see that it runs"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many; 3 by default")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    import torch  # noqa: PLC0415 - after the restart

    torch.set_num_threads(1)
    facts = {**environment.describe(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as temporary:
        found = list(results(measure(World(Path(temporary), quick=options.quick), options.seeds)))
    write_results(options, facts, found)
    report(found, facts, Console(width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main()
