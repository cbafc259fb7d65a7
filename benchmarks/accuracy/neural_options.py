"""Whether each option of the neural rankers proves its use: one at a time, against the same ranker without it.

    python -m benchmarks.accuracy.neural_options [--seeds 3] [--only NAME …] [--share 0.2] [--json PATH]

**Protocol.** MovieLens-100K under `user75`, candidates and features as in the full system of `benchmarks.accuracy`; of
the requests to train on a random share is kept, which leaves more to overfit. The seed draws the split, the requests
and the first weights, the same for all. Teachers score each request by one that was trained on those kept without its
user; of unlabelled requests, which are those not kept, their word is all that is learnt from. Two figures, each over
the catalogue: NDCG@10 of what the users took up, and of what they liked, rated 4 or more. What counts is the difference
to the ranker named `against`, user by user and split by split; intervals are 95 %, users resampled, each user's seeds
averaged.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.sparse import csr_matrix

from benchmarks import environment
from benchmarks.accuracy import two_stage
from benchmarks.accuracy.__main__ import CACHE
from benchmarks.accuracy.metrics import accuracy, best_of
from benchmarks.accuracy.protocols import PROTOCOLS, Split
from benchmarks.accuracy.summary import Record
from benchmarks.accuracy.worlds import World, world
from benchmarks.report import markdown_table, tell_facts
from explorank.demo.data import movielens
from explorank.pipeline.metrics import Interval
from explorank.rankers import RankingData, taught_out_of_fold
from explorank.retrieval.collaborative import FirstStageOptions

LIKED: Final = "liked"
_LIKED_FROM: Final = 4.0
_CUTOFF: Final = 10
_DCN: Final[Mapping[str, Any]] = {"item_ids": True}
_BINARY: Final[Mapping[str, Any]] = {"item_ids": True, "objective": "binary"}
_BOTH: Final = {LIKED: 1.0}
"""The score of a ranker that is to find what is liked: that head alone."""


_CLICKS: Final[Mapping[str, Any]] = {**two_stage.OPTIONS["lightgbm"], "objective": "binary"}
_STACK: Final[Mapping[str, Any]] = {
    "meta": "logistic",
    "folds": 2,
    "members": [{"use": "lightgbm", **two_stage.OPTIONS["lightgbm"]}, {"use": "dcn", **_DCN}],
}
TEACHERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "LightGBM": {"use": "lightgbm", **_CLICKS},
    "a stack": {"use": "stack", **_STACK},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One ranker, and the one that it is compared with."""

    name: str
    ranker: Literal["dcn", "sequence", "lightgbm", "stack"]
    options: Mapping[str, Any]
    against: str = ""
    """Empty for those that others are compared with."""
    stops: bool = True
    """Whether it sees the slice that training stops by; otherwise the last epoch is kept."""
    label: Literal["taken up", "liked"] = "taken up"
    """What its main head learns."""
    teacher: str = ""
    """Who of `TEACHERS` it learns from too."""
    unlabelled: bool = False
    """Whether that one also speaks of the requests that were not kept, whose labels nobody sees."""


def variants() -> tuple[Variant, ...]:
    """Return all that are compared, each after the one it is compared with."""
    listed = [Variant(name="DCN", ranker="dcn", options=_DCN)]

    def of(
        base: str, ranker: Literal["dcn", "sequence"], name: str, *, stops: bool = True, **changed: Any
    ) -> None:
        common = _DCN if ranker == "dcn" else {}
        options = {**common, **({"training": changed} if changed else {})}
        listed.append(
            Variant(name=f"{base}, {name}", ranker=ranker, options=options, against=base, stops=stops)
        )

    of("DCN", "dcn", "no weight decay", weight_decay=0.0)
    of("DCN", "dcn", "no dropout", dropout=0.0)
    of("DCN", "dcn", "no early stopping", stops=False)
    of("DCN", "dcn", "FGM 0.3", adversarial=0.3)
    of("DCN", "dcn", "FGM 1", adversarial=1.0)
    of("DCN", "dcn", "noise 0.3", noise=0.3)
    listed += _taught_variants("DCN", _DCN)
    more = {**_DCN, "training": {"distillation": 1.0}}
    told = "DCN, taught by LightGBM of unlabelled requests too"
    listed.append(
        Variant(name=told, ranker="dcn", options=more, against="DCN", teacher="LightGBM", unlabelled=True)
    )
    listed.append(
        Variant(name="LightGBM, the teacher itself", ranker="lightgbm", options=_CLICKS, against="DCN")
    )
    listed.append(Variant(name="the stack itself", ranker="stack", options=_STACK, against="DCN"))
    listed.append(Variant(name="binary", ranker="dcn", options=_BINARY))
    listed += _taught_variants("binary", _BINARY)
    outcomes = [LIKED, two_stage.VALUE]
    beside: dict[str, dict[str, Any]] = {
        "liked and value beside, mean": {"outcomes": outcomes},
        "liked and value beside, uncertainty": {"outcomes": outcomes, "weighting": "uncertainty"},
    }
    for name, tasks in beside.items():
        options = {**_BINARY, "tasks": tasks}
        listed.append(Variant(name=f"binary, {name}", ranker="dcn", options=options, against="binary"))
    alone = "liked alone"
    listed.append(Variant(name=alone, ranker="dcn", options=_BINARY, label="liked"))
    with_both: dict[str, dict[str, Any]] = {
        "mean": {"outcomes": [LIKED], "score": _BOTH},
        "uncertainty": {"outcomes": [LIKED], "score": _BOTH, "weighting": "uncertainty"},
        "ESMM": {"outcomes": [LIKED], "score": _BOTH, "entire_space": LIKED},
    }
    for name, tasks in with_both.items():
        options = {**_BINARY, "tasks": tasks}
        listed.append(
            Variant(name=f"liked beside taken up, {name}", ranker="dcn", options=options, against=alone)
        )
    listed.append(Variant(name="Sequence", ranker="sequence", options={}))
    of("Sequence", "sequence", "no dropout", dropout=0.0)
    of("Sequence", "sequence", "FGM 0.5", adversarial=0.5)
    of("Sequence", "sequence", "FGM 1", adversarial=1.0)
    of("Sequence", "sequence", "noise 0.3", noise=0.3)
    return tuple(listed)


def _taught_variants(base: str, own: Mapping[str, Any]) -> Iterator[Variant]:
    for teacher, weight in itertools.product(TEACHERS, (1, 4)):
        options = {**own, "training": {"distillation": float(weight)}}
        name = f"{base}, taught by {teacher}, weight {weight}"
        yield Variant(name=name, ranker="dcn", options=options, against=base, teacher=teacher)


@dataclass(slots=True)
class Played:
    """What came of a variant over several seeds."""

    variant: Variant
    taken_up: Record
    liked: Record
    seconds: list[float] = field(default_factory=list)

    def gain(self, base: Played, goal: str) -> tuple[Interval, list[float]]:
        """Return the difference to `base`, and that of each seed, for `taken up` or `liked`."""
        one, other = (side.taken_up if goal == "taken up" else side.liked for side in (self, base))
        by_seed = np.subtract(one.of_seeds("ndcg"), other.of_seeds("ndcg"))
        return one.gain(other, "ndcg"), by_seed.tolist()


class _Lesson(NamedTuple):
    teacher: str
    unlabelled: bool


def with_likes(data: RankingData, label: str) -> RankingData:
    """Return `data` with the outcome `liked`, 0 for what was not taken up, and one of the two as the label."""
    liked = (np.nan_to_num(data.outcomes[two_stage.VALUE]) >= _LIKED_FROM).astype(np.float64)
    labels = liked if label == LIKED else data.labels
    return replace(data, labels=labels, outcomes={**data.outcomes, LIKED: liked})


def play(
    data: World,
    chosen: Sequence[Variant],
    *,
    seeds: Sequence[int],
    share: float,
    tell: Callable[[str], object],
) -> list[Played]:
    """Train and rank with each variant under each seed."""
    users = len(data.interactions.user_ids)
    played = {one.name: Played(one, Record(one.name, users), Record(one.name, users)) for one in chosen}
    for seed in seeds:
        split = PROTOCOLS["user75"].split(data.interactions, seed)
        rows = two_stage.gather(split, data.side, FirstStageOptions(), seed)
        drawn = np.random.default_rng(seed).permutation(rows.train.requests)
        kept = np.sort(drawn[: round(share * len(drawn))])
        train = rows.train.take(kept)
        lessons: dict[_Lesson, RankingData] = {}
        for one in played.values():
            lesson = _Lesson(one.variant.teacher, one.variant.unlabelled)
            if lesson.teacher and lesson not in lessons:
                began = time.process_time()
                lessons[lesson] = _taught(rows, kept, lesson, seed)
                tell(f"seed {seed}: {lesson.teacher} asked, {time.process_time() - began:.0f} s")
            began = time.process_time()
            ranker = two_stage.trained(
                one.variant.ranker,
                one.variant.options,
                with_likes(lessons.get(lesson, train), one.variant.label),
                with_likes(rows.valid, one.variant.label) if one.variant.stops else None,
                seed,
            )
            one.seconds.append(time.process_time() - began)
            _judge(one, split, rows.scored(ranker, split.train.matrix.shape))
            figures = (one.taken_up.of_seeds("ndcg")[-1], one.liked.of_seeds("ndcg")[-1])
            tell(
                f"seed {seed}: {one.variant.name} {figures[0]:.4f} {figures[1]:.4f}, {one.seconds[-1]:.0f} s"
            )
    return list(played.values())


def _taught(rows: two_stage.Rows, kept: NDArray[np.int64], lesson: _Lesson, seed: int) -> RankingData:
    """Return the requests kept, or all, with what a teacher says of each that was trained without its user."""
    taught = rows.train
    unseen = ~np.isin(taught.request_of, kept)
    if not lesson.unlabelled:
        taught, unseen = taught.take(kept), np.zeros(int((~unseen).sum()), np.bool_)
    return taught_out_of_fold(
        TEACHERS[lesson.teacher], taught, valid=rows.valid, unlabelled=unseen, seed=seed
    )


def _judge(one: Played, split: Split, scores: NDArray[np.float64]) -> None:
    asked = split.users
    lists = best_of(scores[asked], split.train.matrix[asked], _CUTOFF)
    test = split.test.valued[asked]
    for record, relevant in ((one.taken_up, test), (one.liked, csr_matrix(test >= _LIKED_FROM))):
        record.add(asked, accuracy(lists, relevant), one.seconds[-1], 0.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, rank, print, and write JSON where asked to."""
    every = variants()
    parser = argparse.ArgumentParser(
        prog="benchmarks.accuracy.neural_options", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 1 to N")
    parser.add_argument(
        "--only", nargs="+", choices=[one.name for one in every], metavar="NAME",
        help="variants of these names alone",
    )  # fmt: skip
    parser.add_argument("--share", type=float, default=0.2, help="of the requests, to train on; default: 0.2")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = [one for one in every if options.only is None or one.name in options.only]
    seeds = range(1, options.seeds + 1)
    data = world(movielens(), CACHE)
    played = play(
        data, chosen, seeds=seeds, share=options.share, tell=lambda line: sys.stderr.write(f"{line}\n")
    )  # fmt: skip
    facts = {**environment.describe(), "seeds": ", ".join(map(str, seeds)), "share": options.share}
    tell_facts(facts, console)
    console.print(table(played), highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps({"environment": facts, "results": told(played)}, indent=1))


def told(played: Sequence[Played]) -> list[dict[str, Any]]:
    """Return aggregates only: nothing of any user."""
    by_name = {one.variant.name: one for one in played}
    results = []
    for one in played:
        result: dict[str, Any] = {"name": one.variant.name, "against": one.variant.against}
        for goal, record in (("taken up", one.taken_up), ("liked", one.liked)):
            result[goal] = {"ndcg": record.interval("ndcg").mean, "by_seed": record.of_seeds("ndcg")}
            if one.variant.against in by_name:
                gain, by_seed = one.gain(by_name[one.variant.against], goal)
                result[goal] |= {"gain": [gain.mean, gain.low, gain.high], "gain_by_seed": by_seed}
        results.append({**result, "seconds": float(np.median(one.seconds))})
    return results


def table(played: Sequence[Played]) -> Any:
    """Return a table in Markdown: a row per variant."""
    by_name = {one.variant.name: one for one in played}
    made = markdown_table(
        ["", "NDCG@10 taken up", "difference", "of each seed", "NDCG@10 liked", "difference", "CPU s"]
    )
    for one in played:
        cells = []
        for goal, record in (("taken up", one.taken_up), ("liked", one.liked)):
            cells.append(f"{record.interval('ndcg').mean:.4f}")
            base = by_name.get(one.variant.against)
            if base is None:
                cells += ["", ""] if goal == "taken up" else [""]
                continue
            gain, by_seed = one.gain(base, goal)
            cells.append(f"{gain:+.4f}")
            if goal == "taken up":
                cells.append(", ".join(f"{seed:+.3f}" for seed in by_seed))
        made.add_row(one.variant.name, *cells, f"{np.median(one.seconds):.0f}")
    return made


if __name__ == "__main__":
    main()
