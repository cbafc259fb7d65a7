"""How much CPU time single requests take, beside other libraries and plain numpy.

    python -m benchmarks.libraries [--quick] [--json PATH]      (or `make bench-libraries`)

**What is measured.** One arm chosen for one request, and one reward learnt, with 32 features: one model per arm in a
context that all arms share, with 100 and 1,000 arms; and one model shared by candidates that have features, of which
100 and 1,000 are candidates. Explorank is measured from arrays, checks and batches included, and from ready batches;
plain numpy is `benchmarks.reference`, which gives the best arm of the disjoint ones and nothing else, and draws the
candidate of the shared model from its winning shares. Explorank returns a choice with its probability. So do Vowpal
Wabbit, whose probabilities this benchmark draws from, and gittins; the others return a choice.

**How.** Every library runs in its own environment, as it comes, in the versions that `benchmarks.foreign` pins, with
one thread. All take turns: a sample of each in every round, CPU time of the process that does the work; the median
over the rounds is given, and how many times Explorank's (from arrays) it is. Vowpal Wabbit is fed text, its own
interface, whose making is part of its time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle
from typing import Any, Final

import numpy as np

from benchmarks import environment, foreign
from benchmarks.exploration import DIM, Learnt, World, policies
from benchmarks.options import parser_of
from benchmarks.reference import Arms, Rewards, decide
from benchmarks.regret.summary import short
from benchmarks.regret.tournament import Worker, worker
from benchmarks.regret.worlds import Numbers
from benchmarks.timing import repeated, seconds_per_call
from explorank.hooks.exploration import RankingBatch, RewardBatch, build_slate
from explorank.hooks.exploration.compiled import warm_up

SIZES: Final = (100, 1_000)
KINDS: Final = ("disjoint", "shared")
ROUNDS: Final = 15
SAMPLE_S: Final = 0.01
OURS: Final = "Explorank"


@dataclass(frozen=True)
class Row:
    """What is measured, and whose it is."""

    kind: str
    arms: int
    what: str
    who: str

    @property
    def question(self) -> tuple[str, int, str]:
        """What is compared with each other."""
        return self.kind, self.arms, self.what


@dataclass(frozen=True)
class Timed:
    """Work that says how many CPU seconds one of so many calls took."""

    seconds: Callable[[int], float]
    least_calls: int = 1
    """More than 1 where one call in so many costs much more."""


def here(call: Callable[[], object], least_calls: int = 1) -> Timed:
    """Return the work of a call in this process."""
    return Timed(partial(seconds_per_call, repeated(call)), least_calls)


def own(kind: str, arms: int) -> Iterator[tuple[Row, Timed]]:
    """Yield Explorank's work and plain numpy's, for a kind of model and a number of arms."""
    world = World(arms)
    if kind == "disjoint":
        for name in ("disjoint_lin_ucb", "disjoint_linear_thompson"):
            learnt = Learnt(name, policies()[name], world)
            context = np.broadcast_to(world.features[0].astype(np.float32), (arms, DIM))
            yield from _explorank(kind, name, learnt, context)
            if name == "disjoint_lin_ucb":
                model = learnt.model
                assert isinstance(model, Arms)  # noqa: S101 - the reference of this policy
                act = partial(model.act, world.features[0])
                yield Row(kind, arms, "act", "plain numpy LinUCB"), here(act)
                rows = cycle([plain for _, plain in (world.rewards(1) for _ in range(64))])
                yield Row(kind, arms, "learn", "plain numpy LinUCB"), here(_single(model, rows))
        return
    for name in ("linear_thompson", "lin_ucb"):
        learnt = Learnt(name, policies()[name], world)
        yield from _explorank(kind, name, learnt, world.features.astype(np.float32))
        yield Row(kind, arms, "act", f"plain numpy {name}"), here(_plain(learnt))


def _explorank(kind: str, name: str, learnt: Learnt, features: Any) -> Iterator[tuple[Row, Timed]]:
    arms, seeds = learnt.world.n, count()
    ids = learnt.world.ids
    ready = RankingBatch(ids, features)

    def act(batch: RankingBatch | None = None) -> None:
        given = RankingBatch(ids, features) if batch is None else batch
        build_slate(learnt.policy, learnt.state, given, 1, seed=next(seeds))

    batches = [rewards for rewards, _ in (learnt.world.rewards(1) for _ in range(64))]
    turns = cycle(batches)

    def learn(*, made: bool) -> None:
        rewards = next(turns)
        learnt.learn(rewards if made else RewardBatch(rewards.item_ids, rewards.values, rewards.features))

    # A store of arms is copied now and then: a sample holds a copy or more (see `benchmarks.exploration`).
    least = 600 if kind == "disjoint" else 1
    yield Row(kind, arms, "act", f"{OURS} {name}"), here(act)
    yield Row(kind, arms, "act", f"{OURS} {name}, batches ready"), here(partial(act, ready))
    if kind == "disjoint":
        yield Row(kind, arms, "learn", f"{OURS} {name}"), here(partial(learn, made=False), least)
        yield (
            Row(kind, arms, "learn", f"{OURS} {name}, batches ready"),
            here(partial(learn, made=True), least),
        )


def _plain(learnt: Learnt) -> Callable[[], object]:
    model, world, seeds = learnt.model, learnt.world, count()
    assert model is not None  # noqa: S101 - both have a reference

    def call() -> None:
        rng = np.random.default_rng(next(seeds))
        distribution = model.contest(world.candidates, rng)
        decide(distribution, world.scores, np.ones(world.n, np.bool_), 1, (0,), rng)

    return call


def _single(model: Arms, rows: Iterator[Rewards]) -> Callable[[], object]:
    def call() -> None:
        row = next(rows)
        model.learn_one(int(row.rows[0]), row.features[0], float(row.values[0]))

    return call


def theirs(playing: Worker, sizes: Sequence[int]) -> Iterator[tuple[Row, Timed]]:
    """Yield a library's work, which is timed in its own process."""
    for kind in KINDS:
        for arms in sizes:
            for name in playing.ask({"prepare": kind, "arms": arms, "dim": DIM}):
                for what in ("act", "learn") if kind == "disjoint" else ("act",):
                    row = Row(kind, arms, what, f"{playing.library} {name}")
                    key = [kind, arms, name, what]
                    yield row, Timed(partial(_elsewhere, playing, key))


def _elsewhere(playing: Worker, key: list[Any], calls: int) -> float:
    seconds: float = playing.ask({"time": key, "calls": calls})
    return seconds


def take_turns(work: Sequence[Timed], rounds: int, sample_s: float) -> Numbers:
    """Return the CPU seconds of one call of each, (rounds, len(work)); the order turns round every other round."""
    calls = []
    for each in work:
        first = max(1e-9, min(each.seconds(1), each.seconds(1)))
        calls.append(max(each.least_calls, int(sample_s / first)))
    taken = np.empty((rounds, len(work)))
    for number in range(rounds):
        order = range(len(work)) if number % 2 == 0 else reversed(range(len(work)))
        for at in order:
            taken[number, at] = work[at].seconds(calls[at])
    return taken


def table(rows: Sequence[Row], seconds: Numbers) -> list[str]:
    """Return the lines of a table for each question: microseconds, and how many times Explorank's best that is."""
    lines: list[str] = []
    for kind in KINDS:
        asked = [row.question for row in rows if row.kind == kind]
        questions = sorted(set(asked), key=lambda question: (question[1], question[2]))
        if not questions:
            continue
        lines += [
            f"### {'One model per arm' if kind == 'disjoint' else 'One model for all candidates'}",
            "| | " + " | ".join(f"{what}, {arms:,}" for _, arms, what in questions) + " |",
            "|---" * (len(questions) + 1) + "|",
        ]
        for who in dict.fromkeys(row.who for row in rows if row.kind == kind):
            cells = [_cell(rows, seconds, question, who) for question in questions]
            lines.append(f"| {who} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def ratio(rows: Sequence[Row], seconds: Numbers, at: int) -> float:
    """Return how many times Explorank's least (from arrays) the work at column `at` takes: the median over rounds."""
    rivals = [
        column
        for column, row in enumerate(rows)
        if row.question == rows[at].question and row.who.startswith(OURS) and not row.who.endswith("ready")
    ]
    best = min(rivals, key=lambda column: float(np.median(seconds[:, column])))
    return float(np.median(seconds[:, at] / seconds[:, best]))


def _cell(rows: Sequence[Row], seconds: Numbers, question: tuple[str, int, str], who: str) -> str:
    for at, row in enumerate(rows):
        if row.question == question and row.who == who:
            us = float(np.median(seconds[:, at])) * 1e6
            return f"{short(us)} ({short(ratio(rows, seconds, at))} times)"
    return ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of(
        "benchmarks.libraries", __doc__, quick="few repetitions of 20 arms, to see that it runs"
    )
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    warm_up()
    sizes, rounds, sample_s = ((20,), 2, 0.0) if options.quick else (SIZES, ROUNDS, SAMPLE_S)
    facts = environment.describe()
    rows: list[Row] = []
    work: list[Timed] = []
    with ExitStack() as stack:
        for kind in KINDS:
            for arms in sizes:
                for row, timed in own(kind, arms):
                    rows.append(row)
                    work.append(timed)
        for library in foreign.available(foreign.LIBRARIES):
            playing = stack.enter_context(worker(library, "benchmarks.library_worker"))
            for row, timed in theirs(playing, sizes):
                rows.append(row)
                work.append(timed)
        seconds = take_turns(work, rounds, sample_s)
    sys.stdout.write("\n".join([*environment.lines(facts), "", *table(rows, seconds)]) + "\n")
    if options.json is not None:
        measured = [
            {**vars(row), "us": float(np.median(taken)) * 1e6}
            for row, taken in zip(rows, seconds.T, strict=True)
        ]
        written = {"environment": facts, "pins": foreign.PINS, "results": measured}
        options.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
