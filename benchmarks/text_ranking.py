"""How fast a cross-encoder orders the best of a request anew, served by ONNX Runtime, on one thread.

    python -m benchmarks.text_ranking [--quick] [--json PATH]

**What is measured.** `score` of a request's 300 candidates by a `Rerank`: LightGBM over 20 features scores all, and a
cross-encoder with the layers of the packaged all-MiniLM-L6-v2 orders the 20 or 50 best anew, in float32 and in int8,
with the reading of ids. Beside it LightGBM alone, and `TextRanker`, which reads as many texts by torch and the model's
own tokenizer. Texts have 14 words, a history 5 of them, so that pairs have 91 tokens. Then what it takes to tell the
ranker of 10,000 texts.

**How.** As `benchmarks.tree_scoring`: one process, one thread, turns, CPU times, medians with quartiles. The
cross-encoder has taken a single step of training: which weights it has does not matter to how long it takes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from rich.console import Console

import explorank.cross_encoder
from benchmarks import environment
from benchmarks.options import parser_of, write_results
from benchmarks.report import markdown_table, tell_facts
from benchmarks.timing import Contestant, measure, repeated
from explorank.rankers import RankingData, Rerank, RerankOptions, features_for, register_ranker
from explorank.retrieval import Encoder
from explorank.retrieval.encoding import TextRanker, TextRanking

CANDIDATES: Final = 300
FEATURES: Final = 20
ITEMS: Final = 1_000
WORDS: Final = 14
"""Of each text; each is a token."""
TOPS: Final = (20, 50)


@dataclass(frozen=True)
class Result:
    """What was measured of one request; times in milliseconds."""

    name: str
    ms: float
    quartiles_ms: tuple[float, float]


def generate(requests: int, rows: int, words: Sequence[str], seed: int) -> RankingData:
    """Return requests of so many rows, a tenth of them liked, with histories of ten items and texts of all."""
    texts = np.random.default_rng(0).choice(np.array(words), (ITEMS, WORDS))
    rng = np.random.default_rng(seed)
    return RankingData(
        features=rng.standard_normal((requests * rows, FEATURES)).astype(np.float32),
        feature_names=tuple(f"f{column}" for column in range(FEATURES)),
        labels=(rng.random(requests * rows) < 0.1).astype(np.float64),
        groups=np.full(requests, rows),
        item_ids=np.char.mod("item-%d", rng.integers(0, ITEMS, requests * rows)),
        histories=tuple(
            tuple(f"item-{item}" for item in rng.integers(0, ITEMS, 10)) for _ in range(requests)
        ),
        item_texts={f"item-{number}": " ".join(row) for number, row in enumerate(texts.tolist())},
    )


def run(*, quick: bool) -> Iterator[Result]:
    """Measure all."""
    encoder = Encoder(device="cpu")
    tokenizer = encoder.load_cross_encoder(96).tokenizer
    words = sorted(
        word for word in tokenizer.get_vocab() if word.isalpha() and word.isascii() and len(word) > 3
    )
    data = generate(100, 20, words, seed=1)
    valid = generate(4 if quick else 20, 20, words, seed=3)
    request = generate(1, CANDIDATES, words, seed=2)
    ids, history = np.asarray(request.item_ids).tolist(), (request.histories or ((),))[0]
    by_torch = TextRanker(encoder.load_cross_encoder(96), TextRanking(), {})
    texts = [[request.item_texts[item] for item in items] for items in (history, ids)]
    for int8 in (False,) if quick else (False, True):
        then = {
            "use": "cross_encoder", "steps": 1, "batch_size": 2, "device": "cpu",
            "quantize": int8, "quantize_tolerance": 1.0,
        }  # fmt: skip
        ranker = Rerank.fit(data, valid=valid, options=RerankOptions(then=then))
        second: Any = ranker.members[1].ranker
        precision = second.manifest.details["precision"]["kind"]
        if not int8:
            yield _measured(
                "LightGBM alone", partial(ranker.score_cheaply, features_for(ranker, request)), quick=quick
            )
        for top in TOPS[:1] if quick else TOPS:
            two_steps = type(ranker)(ranker.members, {"top": top}, ranker.manifest)
            yield _measured(
                f"the {top} best anew, {precision}", partial(_answer, two_steps, request), quick=quick
            )
        if not int8:
            best = texts[1][: TOPS[0]]
            yield _measured(
                f"{len(best)} by torch and its tokenizer",
                partial(by_torch.score, texts[0], best),
                quick=quick,
            )
        if not int8:
            many = generate(1, 1, words, seed=4).item_texts
            told = {f"new-{number}": text for number, text in enumerate([*many.values()] * 10)}
            begun = time.process_time()
            second.with_item_texts(told)
            spent = 1e3 * (time.process_time() - begun)
            yield Result(f"to tell it {len(told):,} texts", spent, (spent, spent))


def _answer(ranker: Rerank, request: RankingData) -> object:
    """Return what a request asks for: the ids read, and all candidates scored."""
    return ranker.score(features_for(ranker, request))


def _measured(name: str, call: Callable[[], object], *, quick: bool) -> Result:
    seconds = measure([Contestant(repeated(call))], rounds=2 if quick else 10, sample_s=0.0)
    low, median, high = (np.percentile(seconds[0], (25, 50, 75)) * 1e3).tolist()
    return Result(name, median, (low, high))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.text_ranking", __doc__, quick="little of it, to see that it runs")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    torch.set_num_threads(1)
    register_ranker("cross_encoder", explorank.cross_encoder.CrossEncoderRanker)
    facts = {
        **environment.describe(), "onnxruntime": onnxruntime.__version__, "torch": torch.__version__,
    }  # fmt: skip
    results = list(run(quick=options.quick))
    console = Console(width=None if sys.stdout.isatty() else 120)
    tell_facts(facts, console)
    table = markdown_table([f"{CANDIDATES} candidates", "ms"])
    for one in results:
        table.add_row(one.name, f"{one.ms:,.1f} ({one.quartiles_ms[0]:,.1f} to {one.quartiles_ms[1]:,.1f})")
    console.print(table, highlight=False)
    write_results(options, facts, results)


if __name__ == "__main__":
    main()
