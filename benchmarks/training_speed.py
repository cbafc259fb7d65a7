"""What training costs beside a bare torch loop, and beside LightGBM alone, over the same frame.

    python -m benchmarks.training_speed [--quick] [--json PATH]

**What is measured.** An epoch of `explorank.rankers.neural.training.Training` beside an epoch of the shortest loop that
trains the same network on the same tensors: batches by index, the loss of torch, `backward`, `torch.optim.AdamW` as
it comes. Ours adds warm-up, clipping, groups of parameters, the check for divergence and the keeping of the best
weights, and has the optimiser's fused form. Neither evaluates. Once a DCN over 50 numbers by cross-entropy, once the
sequence network over histories of 50 items by softmax within requests. And `LightGBMRanker.fit` beside a `Dataset` and
`lightgbm.train` with the same parameters of growth; ours also checks the data, writes a manifest, compiles the forest
and compares its predictions.

**How.** One process, one thread; the two take turns, in the opposite order every other round. Times are CPU times of
one epoch, medians with quartiles; the ratio is the median of the ratios within each round, bare over ours: 1 means that
the loop costs nothing, and 0.9 is what is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
import torch
from rich.console import Console
from torch.nn import functional

from benchmarks import environment
from benchmarks.neural_scoring import generate
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from benchmarks.timing import Contestant, measure, repeated
from explorank.rankers import (
    DCNOptions,
    DCNRanker,
    LightGBMOptions,
    LightGBMRanker,
    RankingData,
    SequenceOptions,
    SequenceRanker,
    TrainingOptions,
)
from explorank.rankers.neural.fitting import frame_of, new_network, new_training
from explorank.rankers.neural.tasks import Tasks

LEAST_RATIO: Final = 0.9


@dataclass(frozen=True)
class Result:
    """What was measured; seconds of CPU time of one epoch, or of all trees."""

    name: str
    rows: int
    ours_s: float
    bare_s: float
    ratio: float
    ratio_quartiles: tuple[float, float]


def run(name: str, kind: Any, data: RankingData, options: Any, *, rounds: int) -> Result:
    """Measure one network."""
    plan, read = kind._plan(data, options)

    def prepared(calls: int) -> Callable[[], object]:
        runs = [new_training(plan, read, data, None, seed=0, checkpoint=None) for _ in range(calls)]
        return lambda: [one.run() for one in runs]

    return _compared(name, data, Contestant(prepared), bare_epoch(plan, read, data), rounds)


def run_trees(data: RankingData, *, rounds: int) -> Result:
    """Measure LightGBM."""
    options = LightGBMOptions(rounds=100, num_threads=1)

    def bare() -> None:
        params = {
            **options.of_lightgbm(len(data)),
            "objective": options.objective,
            "seed": 0,
            "num_threads": 1,
            "verbosity": -1,
        }
        names = list(data.feature_names)
        training = lightgbm.Dataset(data.features, data.labels, group=data.groups, feature_name=names)
        lightgbm.train(params, training, options.rounds)

    ours = Contestant(repeated(lambda: LightGBMRanker.fit(data, options=options)))
    return _compared("LightGBM, 100 trees", data, ours, bare, rounds)


def _compared(
    name: str, data: RankingData, ours: Contestant, bare: Callable[[], None], rounds: int
) -> Result:
    ours_s, bare_s = measure([ours, Contestant(repeated(bare))], rounds=rounds, sample_s=0.0)
    low, median, high = np.percentile(bare_s / ours_s, (25, 50, 75)).tolist()
    return Result(name, len(data), float(np.median(ours_s)), float(np.median(bare_s)), median, (low, high))


def bare_epoch(plan: Any, read: Any, data: RankingData) -> Callable[[], None]:
    """Return what trains one epoch, as one would write it down for this frame alone."""
    tasks = Tasks.of(data, plan.options.objective, plan.options.tasks)
    readings = read(data)
    network: Any = new_network(plan, readings, tasks, 0).train()
    frame = frame_of(network, readings, data, tasks)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.options.training.learning_rate)
    rows = plan.options.training.batch_rows

    def by_row() -> None:
        for batch in torch.split(torch.randperm(len(frame.labels)), rows):
            outputs = network.read(frame.numbers[batch], network.embed(frame.places[batch]))[0]
            _step(functional.binary_cross_entropy_with_logits(outputs[:, 0], frame.labels[batch]), optimizer)

    size = int(frame.sizes[0])

    def by_request() -> None:
        numbers = frame.numbers.reshape(-1, size, frame.numbers.shape[1])
        places = frame.places.reshape(len(numbers), size, frame.places.shape[1])
        items, labels = (torch.as_tensor(part).reshape(-1, size) for part in (frame.items, frame.labels))
        histories = torch.as_tensor(frame.histories)
        for batch in torch.split(torch.randperm(len(labels)), rows // size):
            history = histories[batch]
            outputs = network.read(
                numbers[batch],
                network.embed(places[batch]),
                network.embed_candidates(items[batch]),
                network.items(history),
                (history > 0).float(),
            )[0]
            _step(functional.cross_entropy(outputs[:, :, 0], labels[batch]), optimizer)

    return by_row if data.groups is None else by_request


def _step(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.training_speed", __doc__, quick="little data, to see that it runs")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    torch.set_num_threads(1)
    facts = {**environment.describe(), "torch": torch.__version__}
    requests, rounds = (40, 2) if options.quick else (2_000, 10)
    training = TrainingOptions(epochs=1, batch_rows=1_000)
    by_row = generate(requests, 50, 0, seed=1)
    by_row = RankingData(features=by_row.features, feature_names=by_row.feature_names, labels=by_row.labels)
    results = [
        run("DCN", DCNRanker, by_row, DCNOptions(objective="binary", training=training), rounds=rounds),
        run(
            "Sequence",
            SequenceRanker,
            generate(requests // 4, 10, 0, seed=1),
            SequenceOptions(training=training),
            rounds=rounds,
        ),
        run_trees(generate(requests, 50, 0, seed=1), rounds=rounds),
    ]
    console = Console(width=None if sys.stdout.isatty() else 120)
    tell_facts(facts, console)
    table = markdown_table(["", "rows", "ours s", "bare s", "bare / ours", ""], left=("",))
    for one in results:
        table.add_row(
            one.name,
            f"{one.rows:,}",
            f"{one.ours_s:.2f}",
            f"{one.bare_s:.2f}",
            f"{one.ratio:.2f} ({one.ratio_quartiles[0]:.2f} to {one.ratio_quartiles[1]:.2f})",
            "met" if one.ratio >= LEAST_RATIO else "MISSED",
        )
    console.print(table, highlight=False)
    write_results(options, facts, results)


if __name__ == "__main__":
    main()
