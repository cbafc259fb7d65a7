"""How much CPU time exploration takes, beside plain numpy that does the same job.

    python -m benchmarks.exploration [--quick] [--json PATH]      (or `make bench`)

**What is measured.** A decision is `build_slate`: 10 slots, 3 of them explored, over candidates with 32
features, with the exact probability of each choice; pools of 50 and 256 draws where a policy has them. It
begins with a `RankingBatch`, whose making is a line of its own. Learning is `policy.learn` of a ready
`RewardBatch`, each call going on from the state before. Every policy has learnt 20 rewards per candidate first.

**What it is measured against.** `benchmarks.reference`, plain numpy of the same distribution without checks,
ids and records, on float64 arrays that lie ready; where guards are on, two sets of ids stand for them. An
update there changes its arrays in place, where a policy returns a new state. The arms of "one request, one
row" compare with less: the arm of the highest bound and nothing else, as bandit libraries answer. A logged
decision compares with its ready bytes in a bare SQLite table.

**How.** One process, one thread, one run. Everything has its turn in every round, in the opposite order every
other round, and a turn makes as many calls as fit in some milliseconds. Times are CPU times of the process,
those of background threads included; the median over the rounds is given, with the quartiles in brackets. A
ratio is the median of the ratios within each round, which drift of the machine does not touch. Microseconds
hold for one machine on one day; ratios travel better.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from benchmarks import environment
from benchmarks.options import parser_of
from benchmarks.reference import MODELS, Arms, Candidates, Model, Rewards, decide
from benchmarks.report import Result, Target, report
from benchmarks.timing import Contestant, measure, repeated
from explorank.hooks.exploration import (
    Policy,
    RankingBatch,
    RewardBatch,
    build_slate,
    builtin,
)
from explorank.hooks.exploration.compiled import warm_up
from explorank.hooks.exploration.disjoint_model import DisjointPolicy
from explorank.hooks.exploration.stateless import StatelessPolicy
from explorank.hooks.feedback.log import DecisionLog
from explorank.hooks.feedback.record import encode
from explorank.hooks.guards.already_seen import AlreadySeen
from explorank.hooks.guards.block_list import BlockList
from explorank.hooks.registry import Registry
from explorank.hooks.types import BoolArray, DecisionRecord, FloatArray, RankingRequest

DIM: Final = 32
SLOTS: Final = 10
EXPLORED: Final = (2, 5, 9)
CANDIDATES: Final = (10, 100, 1_000)
ARMS: Final = (100, 1_000)
BATCH: Final = 10_000
OPTIONS: Final[dict[str, Any]] = {"dim": DIM, "pool": 50, "draws": 256}
STRATEGIES: Final = ("score", "newest", "popular", "uncertain", "diverse", "random", "price", "-price")
OWN_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "square_cb": {"gamma": 1_000.0},
    "slot_strategies": {"strategies": STRATEGIES},
}
# An arm store is copied about every 500 rewards at 1,000 arms: a sample holds a copy or more.
GROWTH: Final = 600


@dataclass(frozen=True)
class Case:
    """A piece of work, what it is measured against, and what is asked of it."""

    section: str
    name: str
    size: int
    """Candidates, arms or rewards."""
    subject: Contestant
    reference: Contestant | None = None
    target: Target | None = None
    rewards: int | None = None
    """How many rewards a call learns."""


class World:
    """Candidates, rewards of a logistic world, and what both look like to either side."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(n)
        self._rng = rng
        self._truth = rng.standard_normal(DIM) / np.sqrt(DIM)
        self.n = n
        self.ids = np.array([f"item-{row:06}" for row in range(n)])
        self.batch = RankingBatch(
            self.ids,
            rng.standard_normal((n, DIM)).astype(np.float32),
            rng.random(n),
            uncertainty=rng.random(n),
            columns={name: rng.random(n) for name in ("first_seen", "popularity", "price")},
        )
        assert self.batch.features is not None  # noqa: S101 - given above
        self.features = self.batch.features.astype(np.float64)
        self.scores = self.batch.score_values
        assert self.batch.uncertainty is not None  # noqa: S101 - given above
        columns = self.batch.columns
        self.candidates = Candidates(
            self.features,
            self.scores,
            {
                "score": self.scores,
                "newest": columns["first_seen"],
                "popular": columns["popularity"],
                "uncertain": self.batch.uncertainty,
                "diverse": self.scores,
                "random": np.zeros(n),
                "price": columns["price"],
                "-price": -columns["price"],
            },
        )

    def rewards(self, m: int) -> tuple[RewardBatch, Rewards]:
        """Return `m` rewards as a policy takes them, and as a reference does."""
        rng = self._rng
        rows = rng.integers(self.n, size=m)
        served = rng.standard_normal((m, DIM)).astype(np.float32)
        features = served.astype(np.float64)
        values = (rng.random(m) < 1.0 / (1.0 + np.exp(-features @ self._truth))).astype(np.float64)
        propensities = rng.uniform(0.05, 0.5, m)
        slots, strategies = rng.choice(EXPLORED, m), rng.integers(len(STRATEGIES), size=m)
        batch = RewardBatch(
            self.ids[rows],
            values,
            served,
            slots=slots,
            propensities=propensities,
            strategies=np.array(STRATEGIES)[strategies],
        )
        return batch, Rewards(rows, features, values, propensities, slots, strategies)


class Learnt:
    """A policy and its reference after the same rewards."""

    def __init__(self, name: str, factory: Callable[..., Policy[Any]], world: World) -> None:
        known = {option.name for option in fields(factory)} & OPTIONS.keys()  # type: ignore[arg-type] # policies are dataclasses
        options = {option: OPTIONS[option] for option in known}
        self.name = name
        self.world = world
        self.policy = factory(**options, **OWN_OPTIONS.get(name, {}))
        self.state = self.policy.initial_state()
        self.model: Model | None = MODELS[name](self.policy, world.n) if name in MODELS else None
        rewards, plain = world.rewards(20 * world.n)
        self.learn(rewards)
        if self.model is not None:
            self.model.learn(plain)

    def learn(self, rewards: RewardBatch) -> None:
        """Go on to the state after `rewards`."""
        self.state = self.policy.learn(self.state, rewards)

    def decision(self, **options: Any) -> Contestant:
        """Return the work of one decision, with other draws each time."""
        seeds = count()

        def call() -> None:
            build_slate(
                self.policy,
                self.state,
                self.world.batch,
                SLOTS,
                explore_slots=EXPLORED,
                seed=next(seeds),
                **options,
            )

        return Contestant(repeated(call))

    def plain_decision(self, free: Callable[[], BoolArray] | None = None) -> Contestant | None:
        """Return the reference's work of one decision among the candidates that are `free`."""
        model, world, seeds = self.model, self.world, count()
        if model is None:
            return None

        def call() -> None:
            rng = np.random.default_rng(next(seeds))
            distribution = model.contest(world.candidates, rng)
            allowed = np.ones(world.n, np.bool_) if free is None else free()
            decide(distribution, world.scores, allowed, SLOTS, EXPLORED, rng)

        return Contestant(repeated(call))


def policies() -> dict[str, Callable[..., Policy[Any]]]:
    """Return every built-in policy by its name in YAML."""
    registry = Registry()
    builtin.ranking_register_components(registry)
    return {name: registry.get("policy", name) for name in registry.names("policy")}


def decisions() -> Iterator[Case]:
    """Yield whole decisions of every policy."""
    limits_us = {"linear_thompson": 300.0, "lin_ucb": 100.0, "epsilon_greedy": 100.0, "plackett_luce": 150.0}
    for name, factory in policies().items():
        for n in CANDIDATES:
            learnt = Learnt(name, factory, World(n))
            limit = limits_us.get(name) if n == 1_000 else None
            yield Case(
                "Decisions: 10 slots, 3 explored, by candidates",
                name,
                n,
                learnt.decision(),
                learnt.plain_decision(),
                None if limit is None else Target(limit, "µs"),
            )


def batches() -> Iterator[Case]:
    """Yield the making of what a decision and an update begin with."""
    section = "Batches made and checked, by rows"
    for n in CANDIDATES:
        world = World(n)
        batch = world.batch
        make = partial(RankingBatch, batch.item_ids, batch.features, batch.scores)
        yield Case(section, "RankingBatch", n, Contestant(repeated(make)))
    for m in (1, BATCH):
        rewards, _ = World(1_000).rewards(m)
        take = partial(RewardBatch, rewards.item_ids, rewards.values, rewards.features)
        yield Case(section, "RewardBatch", m, Contestant(repeated(take)))


def guarded() -> Iterator[Case]:
    """Yield decisions with two guards that know ids: 1,000 blocked, 200 seen."""
    for n in ARMS:
        world = World(n)
        learnt = Learnt("linear_thompson", policies()["linear_thompson"], world)
        blocked = [f"item-{row:06}" for row in range(0, 20_000, 20)]
        seen = [f"item-{row:06}" for row in range(7, 2_007, 10)]
        request = RankingRequest(decision_id="d", slots=SLOTS, context={"history": seen})
        ids = world.ids.tolist()

        def free(
            ids: list[str] = ids, blocked: Set[str] = frozenset(blocked), seen: list[str] = seen
        ) -> BoolArray:
            met = set(seen)
            return np.array([item not in blocked and item not in met for item in ids])

        yield Case(
            "Decisions with two guards on ids (1,000 blocked, 200 seen), by candidates",
            "linear_thompson",
            n,
            learnt.decision(guards=[BlockList(blocked), AlreadySeen()], request=request),
            learnt.plain_decision(free),
        )


def learning() -> Iterator[Case]:
    """Yield the updates of every policy that learns, over 1,000 items."""
    for name, factory in policies().items():
        if issubclass(factory, StatelessPolicy):  # type: ignore[arg-type] # factories are classes here
            continue
        for m in (1, BATCH):
            learnt = Learnt(name, factory, World(1_000))
            shared = learnt.policy.needs_features and not isinstance(learnt.policy, DisjointPolicy)
            subject, reference = _updates(learnt, m)
            yield Case(
                "Learning: 1,000 items, by rewards at once",
                name,
                m,
                subject,
                reference,
                Target(300_000.0, "rewards/s") if shared and m == BATCH else None,
                rewards=m,
            )


def _updates(learnt: Learnt, m: int) -> tuple[Contestant, Contestant | None]:
    prepared = [learnt.world.rewards(m) for _ in range(64 if m == 1 else 4)]
    batched, plain_rows = cycle([batch for batch, _ in prepared]), cycle([plain for _, plain in prepared])
    least = GROWTH if m == 1 and isinstance(learnt.policy, DisjointPolicy) else 1
    subject = Contestant(repeated(lambda: learnt.learn(next(batched))), least)
    model = learnt.model
    if model is None:
        return subject, None
    return subject, Contestant(repeated(lambda: model.learn(next(plain_rows))))


def disjoint() -> Iterator[Case]:
    """Yield single requests and single updates of one model per arm, in a context that all arms share."""
    section = "Disjoint arms: one request, one row, by arms"
    for arms in ARMS:
        world = World(arms)
        learnt = Learnt("disjoint_lin_ucb", policies()["disjoint_lin_ucb"], world)
        model = learnt.model
        assert isinstance(model, Arms)  # noqa: S101 - the reference of this policy
        yield Case(section, "act", arms, *_acts(learnt, model), Target(2.0, "times numpy"))
        subject, _ = _updates(learnt, 1)
        rows = cycle([plain for _, plain in (world.rewards(1) for _ in range(64))])

        def learn_one(model: Arms = model, rows: Iterator[Rewards] = rows) -> None:
            row = next(rows)
            model.learn_one(int(row.rows[0]), row.features[0], float(row.values[0]))

        reference = Contestant(repeated(learn_one))
        yield Case(section, "learn", arms, subject, reference, Target(2.0, "times numpy"), rewards=1)


def _acts(learnt: Learnt, model: Arms) -> tuple[Contestant, Contestant]:
    context = learnt.world.features[0]
    batch = RankingBatch(learnt.world.ids, np.broadcast_to(context, learnt.world.features.shape))
    seeds = count()

    def act() -> None:
        build_slate(learnt.policy, learnt.state, batch, 1, seed=next(seeds))

    return Contestant(repeated(act)), Contestant(repeated(partial(model.act, context)))


def logging(folder: Path, stack: ExitStack) -> Iterator[Case]:
    """Yield the append of a decision to the log, and of its ready bytes to a bare table; `stack` closes both."""
    section = "Decision log: 500 candidates of 20 features, one commit each"
    record = decision_record(500, 20)
    log = stack.enter_context(DecisionLog(folder))
    bare = stack.enter_context(closing(sqlite3.connect(folder / "bare.db", isolation_level=None)))
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=NORMAL")
    # The log moves its WAL every 500 decisions, beside those who append: commits are compared, without that.
    bare.execute("PRAGMA wal_autocheckpoint=0")
    bare.execute("CREATE TABLE decisions (decision_id TEXT PRIMARY KEY, time REAL, record BLOB)")
    numbers, data = count(), encode(record)

    def append(calls: int) -> Callable[[], object]:
        records = [
            replace(record, request=replace(record.request, decision_id=f"decision-{next(numbers)}"))
            for _ in range(calls)
        ]
        return lambda: [log.append_decision(each) for each in records]

    def insert(calls: int) -> Callable[[], object]:
        rows = [(f"decision-{next(numbers)}", 1.0, data) for _ in range(calls)]
        return lambda: [bare.execute("INSERT INTO decisions VALUES (?, ?, ?)", row) for row in rows]

    yield Case(section, "append_decision", 500, Contestant(append), Contestant(insert))
    yield Case(section, "of which encode", 500, Contestant(repeated(partial(encode, record))))


def decision_record(n: int, columns: int) -> DecisionRecord:
    """Return the record of a decision over `n` candidates, the features of all of them kept."""
    world = World(n)
    learnt = Learnt("linear_thompson", policies()["linear_thompson"], world)
    slate = build_slate(learnt.policy, learnt.state, world.batch, SLOTS, EXPLORED, seed=7)
    return DecisionRecord(
        request=RankingRequest(decision_id="d", slots=SLOTS, user_id="user-1", time=1.0),
        mode="live",
        arm="explore",
        item_ids=world.ids,
        scores=world.scores,
        slate=slate,
        baseline_order=np.argsort(-world.scores)[:SLOTS],
        feature_names=tuple(f"feature_{column}" for column in range(columns)),
        feature_rows=np.arange(n),
        features=world.features[:, :columns].astype(np.float32),
    )


def run(cases: Sequence[Case], rounds: int, sample_s: float) -> list[Result]:
    """Return what was measured of `cases`, in their order."""
    contestants: list[Contestant] = []
    for case in cases:
        contestants += [case.subject] if case.reference is None else [case.subject, case.reference]
    measured = iter(measure(contestants, rounds, sample_s))
    return [
        _result(case, next(measured), None if case.reference is None else next(measured)) for case in cases
    ]


def _result(case: Case, seconds: FloatArray, reference: FloatArray | None) -> Result:
    low, median, high = (float(value) for value in np.percentile(seconds, (25, 50, 75)))
    ratio = None if reference is None else float(np.median(seconds / reference))
    rate = None if case.rewards is None else case.rewards / median
    return Result(
        section=case.section,
        name=case.name,
        size=case.size,
        us=median * 1e6,
        quartiles_us=(low * 1e6, high * 1e6),
        reference_us=None if reference is None else float(np.median(reference)) * 1e6,
        ratio=ratio,
        rewards_per_s=rate,
        target=case.target,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = parser_of("benchmarks.exploration", __doc__, quick="few repetitions, to see that it runs")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    warm_up()
    rounds, sample_s = (2, 0.0) if options.quick else (60, 0.003)
    facts = environment.describe()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        logged = logging(Path(folder), stack)
        cases = [*decisions(), *batches(), *guarded(), *learning(), *disjoint(), *logged]
        results = run(cases, rounds, sample_s)
    width = None if sys.stdout.isatty() else 120
    report(results, facts, Console(width=width))
    if options.json is not None:
        method = {"quick": options.quick, "rounds": rounds, "sample_s": sample_s, "clock": "process_time"}
        written = {
            "environment": facts,
            "method": method,
            "results": [result.to_dict() for result in results],
        }
        options.json.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
