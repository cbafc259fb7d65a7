"""What each ranker costs in a served request: the same stage, users and candidates, another ranker in each.

    python -m benchmarks.request_path.rankers [--rankers lightgbm dcn sequence blend stack] [--candidates N] [--quick]

**What is measured.** The whole request in process, as `benchmarks.request_path` measures it: index, features, guards,
exploration and log. One stage for each ranker, all with copies of one index and over one online store. They answer the
same users in turns of a dozen requests, in the opposite order every other turn.

**The rankers.** `lightgbm` has the world's 300 trees of 63 leaves; the networks have their default sizes, `sequence`
reads the world's histories of 20 items and the ids of those that training saw; `blend` and `stack` are of the three.
All are trained in a minute or two on made-up requests of the same world, the networks for one epoch: what they cost to
serve follows from their size, not from what they have learnt. The cross-encoder is left out: it reads texts, which this
world does not have, and takes some 10 ms for each candidate where the others take microseconds (docs/encoders.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import environment
from benchmarks.accuracy.two_stage import trained
from benchmarks.report import markdown_table, tell_facts
from benchmarks.request_path.installation import TimedStage, folder_of, prepare
from benchmarks.request_path.laps import Laps
from benchmarks.request_path.options import add_world_options, world_of
from benchmarks.request_path.repository import fill, is_filled, serving_store, shared_store, write_repository
from benchmarks.request_path.table import Steps, whole
from benchmarks.request_path.turns import Request, drawn_users, measure
from benchmarks.request_path.world import World
from explorank import load
from explorank.rankers import RankingData, TrainableRanker

_REQUESTS: Final = 2_000
_PER_REQUEST: Final = 10
_TREES: Final = "lightgbm"
_SHARES: Final = (50, 99)


def options_of(name: str, trees: int) -> dict[str, Any]:
    """Return the options of a ranker as YAML has them."""
    # One that is seen once gets an embedding of its own, as all items of a shop in use would have.
    training = {"epochs": 1, "min_count": 1}
    single: dict[str, dict[str, Any]] = {
        _TREES: {"rounds": trees, "num_leaves": 63, "num_threads": 1},
        "dcn": {"training": training},
        "sequence": {"training": training},
    }
    members = [{"use": use, **options} for use, options in single.items()]
    return {
        **single,
        "blend": {"members": members, "weights": (1.0, 1.0, 1.0)},
        "stack": {"members": members, "folds": 2},
    }[name]


RANKERS: Final = (_TREES, "dcn", "sequence", "blend", "stack")


def requests(world: World, count: int) -> RankingData:
    """Return made-up requests of ten candidates each, with what was taken up of them."""
    rng = np.random.default_rng((world.seed, 8))
    users = rng.integers(world.size.users, size=count)
    items = rng.integers(world.size.items, size=(count, _PER_REQUEST))
    rows = np.hstack([world.item_features[items.ravel()], world.user_features[users.repeat(_PER_REQUEST)]])
    return RankingData(
        features=rows,
        feature_names=(*world.item_names, *world.user_names),
        labels=world.taken_up(rows, np.random.default_rng((world.seed, 7))).astype(np.float64),
        groups=np.full(count, _PER_REQUEST),
        item_ids=np.array([world.item_ids[item] for item in items.ravel().tolist()]),
        histories=tuple(
            tuple(world.item_ids[item] for item in world.histories[user].tolist()) for user in users.tolist()
        ),
    )


def train(world: World, name: str, data: RankingData) -> TrainableRanker:
    """Return a trained ranker."""
    return trained(name, options_of(name, world.size.trees), data, None, 0)


def serve(
    world: World,
    rankers: Mapping[str, TrainableRanker],
    section: Mapping[str, Any],
    *,
    kind: str,
    rounds: int,
) -> dict[str, Steps]:
    """Return each ranker's seconds by step, from a stage for each."""
    access = write_repository(world, world.folder / "naive", section)
    if not is_filled(world, access):
        fill(world, access)
    index = folder_of(world, kind)
    prepare(world, index, serving_store(section), kind=kind)
    with ExitStack() as stack:
        contestants: dict[str, Request] = {}
        for name, ranker in rankers.items():
            settings = prepare(
                world,
                world.folder / f"ranker-{name}",
                serving_store(section),
                kind=kind,
                ranker=ranker,
                catalogue_of=index,
            )
            stage = TimedStage(stack.enter_context(load(settings)), world.size.slots)
            stage.settle(world.user_ids[0])
            stage.learn(world.user_ids[:100])
            contestants[name] = _asking(world, stage)
        return measure(contestants, drawn_users(world.size.users, rounds))


def _asking(world: World, stage: TimedStage) -> Callable[[int, Laps], object]:
    return lambda user, laps: stage.rank(world.user_ids[user], laps)


def table(found: Mapping[str, Steps]) -> Table:
    """Return percentiles of scoring and of the whole request, in microseconds."""
    shown = markdown_table(
        ["ranker", "features: p50 µs", "score: p50 µs", "p99 µs", "whole request: p50 µs", "p99 µs"],
        left=("ranker",),
    )
    for name, steps in found.items():
        cells = [
            float(np.median(steps["features"])),
            *np.percentile(steps["score"], _SHARES).tolist(),
            *np.percentile(whole(steps), _SHARES).tolist(),
        ]
        shown.add_row(name, *(f"{seconds * 1e6:,.0f}" for seconds in cells))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.request_path.rankers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rankers", nargs="+", choices=RANKERS, default=list(RANKERS), metavar="NAME")
    add_world_options(parser)
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    torch.set_num_threads(1)
    world = world_of(options)
    console = Console(width=None if sys.stdout.isatty() else 120)
    facts = environment.describe() | {
        "candidates": world.size.candidates,
        "items": world.size.items,
        "online store": options.online_store,
    }
    tell_facts(facts, console)
    data = requests(world, 100 if options.quick else _REQUESTS)
    rankers = {name: train(world, name, data) for name in options.rankers}
    with shared_store(world, options.online_store) as section:
        found = serve(
            world, rankers, section, kind=options.index, rounds=1 if options.quick else options.rounds
        )
    console.print(table(found), highlight=False)
    if options.json is not None:
        us = {
            name: {step: (seconds * 1e6).round(1).tolist() for step, seconds in steps.items()}
            for name, steps in found.items()
        }
        options.json.write_text(json.dumps({"environment": facts, "us": us}), encoding="utf-8")


if __name__ == "__main__":
    main()
