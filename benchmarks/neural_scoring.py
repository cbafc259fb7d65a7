"""How fast neural rankers are served by ONNX Runtime, beside the same networks in torch, on one thread.

    python -m benchmarks.neural_scoring [--quick] [--json PATH]

**What is measured.** `score` of a request's 500 candidates, checks and look-ups included: a `DCNRanker` over 50
features (two cross layers, towers of 128 and 64), the same with 10 of them categories, and a `SequenceRanker` (width
32, two layers) over 10 features and a history of 50 items, and of 20 where 50 might be read, with the reading of ids
apart. Beside them the torch network in evaluation mode over the same rows, its inputs prepared already; each of its
calls is checked to give the served score of the first row within 1e-5. Then int8, and the user's vector alone.

**How.** As `benchmarks.tree_scoring`: one process, one thread, turns, CPU times, medians with quartiles.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from benchmarks.timing import Contestant, measure, repeated
from explorank.rankers import (
    DCNOptions,
    DCNRanker,
    RankingData,
    SequenceOptions,
    SequenceRanker,
    TrainingOptions,
)
from explorank.rankers.neural.explaining import network_of

ROWS: Final = 500
ITEMS: Final = 2_000
_TRAINING: Final = TrainingOptions(epochs=1)


@dataclass(frozen=True)
class Result:
    """What was measured; times in microseconds, of one request."""

    name: str
    us: float
    quartiles_us: tuple[float, float]
    torch_us: float | None
    ratio: float | None


def generate(requests: int, features: int, codes: int, seed: int) -> RankingData:
    """Return requests of 10 rows, some columns codes, with histories of 60 items."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((requests * 10, features)).astype(np.float32)
    matrix[:, :codes] = rng.integers(0, 100, (requests * 10, codes))
    names = tuple(f"f{column}" for column in range(features))
    return RankingData(
        features=matrix,
        feature_names=names,
        categorical=names[:codes],
        labels=np.tile([1.0] + [0.0] * 9, requests),
        groups=np.full(requests, 10),
        item_ids=np.char.mod("item-%d", rng.integers(0, ITEMS, requests * 10)),
        histories=tuple(
            tuple(f"item-{item}" for item in rng.integers(0, ITEMS, 60)) for _ in range(requests)
        ),
    )


def run(*, quick: bool) -> Iterator[Result]:
    """Measure all."""
    frames = (("DCN, 50 numbers", 0), ("DCN, 40 numbers and 10 categories", 10))
    for name, codes in frames[1:] if quick else frames:
        data = generate(100 if quick else 1_000, 50, codes, seed=1)
        rows = generate(ROWS // 10, 50, codes, seed=2).features
        for int8 in (False,) if quick else (False, True):
            ranker = _dcn(data, int8=int8)
            with_torch = None if int8 else _torch_dcn(ranker, rows)
            yield _measured(
                f"{name}{', int8' if int8 else ''}", partial(ranker.score, rows), with_torch, quick=quick
            )
    data = generate(200 if quick else 2_000, 10, 0, seed=1)
    request = generate(ROWS // 10, 10, 0, seed=2)
    ids, history = np.asarray(request.item_ids).tolist(), (request.histories or ((),))[0]
    sequence = SequenceRanker.fit(data, options=SequenceOptions(training=_TRAINING))
    rows = np.concatenate([request.features, sequence.read_ids(ids, history)], axis=1)
    yield _measured(
        "Sequence, 10 numbers, 50 items",
        partial(sequence.score, rows),
        _torch_sequence(sequence, rows),
        quick=quick,
    )
    short = np.concatenate([request.features, sequence.read_ids(ids, history[-20:])], axis=1)
    yield _measured(
        "the same, 20 items", partial(sequence.score, short), _torch_sequence(sequence, short), quick=quick
    )
    yield _measured("— its ids read", partial(sequence.read_ids, ids, history), None, quick=quick)
    yield _measured("— the user's vector alone", partial(sequence.user_vector, history), None, quick=quick)


def _dcn(data: RankingData, *, int8: bool) -> DCNRanker:
    training = replace(_TRAINING, quantize=int8, quantize_tolerance=1.0)
    valid = replace(data.take(np.arange(50)), called="validation") if int8 else None
    return DCNRanker.fit(data, valid=valid, options=DCNOptions(training=training))


def _torch_dcn(ranker: DCNRanker, rows: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    network = network_of(ranker._artefact)
    readings = ranker._read(rows)
    inputs = [torch.from_numpy(readings.numbers), torch.from_numpy(readings.places)]
    return partial(_eager, network, inputs, ranker.score(rows))


def _torch_sequence(ranker: SequenceRanker, rows: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    network = network_of(ranker._artefact)
    ((_, feed),) = ranker._feeds(rows)
    inputs = [torch.from_numpy(feed[name]) for name in ("numbers", "places", "items", "histories")]
    return partial(_eager, network, inputs, ranker.score(rows))


def _eager(
    network: Any, inputs: Sequence[torch.Tensor], expected: NDArray[np.float64]
) -> NDArray[np.float32]:
    with torch.inference_mode():
        scores: NDArray[np.float32] = network(*inputs)[0].reshape(-1).numpy()
    if abs(float(scores[0]) - float(expected[0])) > 1e-5 * max(1.0, abs(float(expected[0]))):
        raise RuntimeError(f"scores differ: {scores[0]} and {expected[0]}")
    return scores


def _measured(
    name: str, ours: Callable[[], object], theirs: Callable[[], object] | None, *, quick: bool
) -> Result:
    contestants = [Contestant(repeated(call)) for call in (ours, theirs) if call is not None]
    seconds = measure(contestants, rounds=3 if quick else 40, sample_s=0.0 if quick else 0.02)
    low, median, high = (np.percentile(seconds[0], (25, 50, 75)) * 1e6).tolist()
    return Result(
        name=name,
        us=median,
        quartiles_us=(low, high),
        torch_us=None if theirs is None else float(np.median(seconds[1]) * 1e6),
        ratio=None if theirs is None else float(np.median(seconds[1] / seconds[0])),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.neural_scoring", __doc__, quick="little data, to see that it runs")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    torch.set_num_threads(1)
    facts = {
        **environment.describe(), "onnxruntime": onnxruntime.__version__, "torch": torch.__version__,
    }  # fmt: skip
    results = list(run(quick=options.quick))
    console = Console(width=None if sys.stdout.isatty() else 120)
    tell_facts(facts, console)
    table = markdown_table([f"{ROWS} candidates", "served µs", "torch µs", "times faster"])
    for one in results:
        table.add_row(
            one.name,
            f"{one.us:,.0f} ({one.quartiles_us[0]:,.0f} to {one.quartiles_us[1]:,.0f})",
            "" if one.torch_us is None else f"{one.torch_us:,.0f}",
            "" if one.ratio is None else f"{one.ratio:.2f}",
        )
    console.print(table, highlight=False)
    write_results(options, facts, results)


if __name__ == "__main__":
    main()
