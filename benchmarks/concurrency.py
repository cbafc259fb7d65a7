"""Readers beside a writer at full speed: whether a state is ever torn, a version falls, or a request waits.

    python -m benchmarks.concurrency [--seconds 60] [--json PATH]

**What runs.** One process appends decisions and rewards to a log, and its learner folds them in, without a pause;
eight of its threads draw slates from `learner.snapshot` meanwhile. Four more processes follow the same state by
learners of their own, and draw slates too.

**What is looked for.** Every reward is xᵀθ of one fixed θ, so that a state that was learnt from any set of rewards
has `information = (precision - prior) θ`: precision of one moment and information of another would not. Versions
that a reader sees must never fall. A request that begins and ends within one and the same step of the learner has
not waited for it; were there a lock between them, there would be none. In the end the state must hold exactly the
rewards that were acknowledged.

Times of threads include what Python's own lock costs, which all threads of a process share.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from typing import Any, Final

import numpy as np
from rich.console import Console

from explorank.hooks.exploration import LinearThompson, RankingBatch, build_slate
from explorank.hooks.exploration.linear_model import LinearState
from explorank.hooks.feedback import DecisionLog, Learner
from explorank.hooks.types import DecisionRecord, FloatArray, RankingRequest, Reward, Slate

_DIM: Final = 8
_SLOTS: Final = 3
_THREADS: Final = 8
_PROCESSES: Final = 4
_POLICY: Final = LinearThompson(dim=_DIM, draws=32)
_THETA: Final[FloatArray] = np.linspace(-1.0, 1.0, _DIM)
_REQUESTS_PER_LOOK: Final = 20
_DECISIONS_PER_STEP: Final = 20


@dataclass(slots=True)
class Seen:
    """What one reader saw."""

    requests: int = 0
    states: int = 0
    """How many different ones."""
    torn: int = 0
    fell: int = 0
    """How often a version was lower than one before."""
    within_a_step: int = 0
    """Requests that began and ended while one step of the learner was under way."""
    longest_ms: float = 0.0
    total_ms: float = 0.0
    last_version: int = -1

    def look(self, state: LinearState) -> None:
        """Check a state, where it is a new one."""
        if state.version == self.last_version:
            return
        self.states += 1
        self.fell += state.version < self.last_version
        self.last_version = state.version
        gram = state.precision - _POLICY.prior_precision * np.eye(_DIM)
        scale = 1.0 + np.abs(state.information).max()
        self.torn += bool(np.abs(gram @ _THETA - state.information).max() > 1e-8 * scale)
        self.torn += bool(np.abs(state.precision @ state.mean - state.information).max() > 1e-8 * scale)

    def request(self, state: LinearState, batch: RankingBatch, seed: int) -> None:
        """Answer one request with a state."""
        begun = time.perf_counter()
        build_slate(_POLICY, state, batch, _SLOTS, seed=seed)
        took = (time.perf_counter() - begun) * 1e3
        self.requests += 1
        self.longest_ms = max(self.longest_ms, took)
        self.total_ms += took


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    seconds: float
    threads: list[Seen]
    processes: list[Seen]
    steps: int
    acknowledged: int
    """Rewards whose append returned."""
    folded: int
    """Rewards in the state in the end."""
    version: int

    @property
    def sound(self) -> bool:
        """Whether nothing was torn, fell, waited, got lost or counted twice."""
        readers = [*self.threads, *self.processes]
        return (
            not any(reader.torn or reader.fell for reader in readers)
            and all(reader.requests and reader.states > 1 for reader in readers)
            and all(reader.within_a_step for reader in self.threads)
            and self.acknowledged == self.folded
        )


def run(folder: Path, seconds: float) -> Outcome:
    """Return what readers saw of a writer for so long."""
    # What is compiled on first use would otherwise be the first request of every reader.
    Seen().request(_POLICY.initial_state(), _batch(0), 0)
    context = multiprocessing.get_context("fork")  # before any thread or database is there to be inherited
    leads, ends = context.Event(), context.Event()
    pipes = [context.Pipe(duplex=False) for _ in range(_PROCESSES)]
    children = [
        context.Process(target=_follow, args=(folder, leads, ends, sender, number))
        for number, (_, sender) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    try:
        writer = _Writer(folder)
        leads.set()
        threads = writer.work(seconds)
        ends.set()
        processes = [Seen(**receiver.recv()) for receiver, _ in pipes]
    finally:
        ends.set()
        leads.set()
        for child in children:
            child.join()
    folded, version = writer.finish()
    return Outcome(seconds, threads, processes, writer.steps, writer.acknowledged, folded, version)


class _Writer:
    """Appends and learns in one thread, while others of its process draw slates."""

    def __init__(self, folder: Path) -> None:
        self.acknowledged = 0
        self.steps = 0
        self._log = DecisionLog(folder / "log")
        self._learner = _learner(folder)
        self._learner.step(0.0)
        self._stopped = False
        self._rng = np.random.default_rng(0)
        self._decisions = 0
        self._inside = 0
        """The number of the step under way, 0 between two."""

    def work(self, seconds: float) -> list[Seen]:
        readers = [Seen() for _ in range(_THREADS)]
        threads = [Thread(target=self._read, args=(seen, number)) for number, seen in enumerate(readers)]
        for thread in threads:
            thread.start()
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            for _ in range(_DECISIONS_PER_STEP):
                self._append()
            self._step()
        self._stopped = True
        for thread in threads:
            thread.join()
        return readers

    def finish(self) -> tuple[int, int]:
        self._step()
        stats = self._learner.stats
        self._learner.close()
        self._log.close()
        return stats.folded, stats.version

    def _step(self) -> None:
        self.steps += 1
        self._inside = self.steps
        self._learner.step(0.0)
        self._inside = 0

    def _append(self) -> None:
        name = f"d{self._decisions:09d}"
        self._decisions += 1
        features = self._rng.standard_normal((_SLOTS, _DIM)).astype(np.float32)
        self._log.append_decision(_record(name, features))
        values = features.astype(np.float64) @ _THETA
        rewards = [
            Reward(
                decision_id=name,
                slot=slot,
                item_id=f"i{slot}",
                kind="value",
                value=value,
                reward_id=f"{name}:{slot}",
                time=0.0,
            )
            for slot, value in enumerate(values.tolist())
        ]
        self.acknowledged += sum(self._log.append_rewards(rewards))

    def _read(self, seen: Seen, number: int) -> None:
        batch = _batch(number)
        while not self._stopped:
            step = self._inside
            state = self._learner.snapshot
            seen.request(state, batch, seen.requests)
            seen.within_a_step += bool(step and step == self._inside)
            seen.look(state)


def _follow(folder: Path, leads: Event, ends: Event, sender: Connection, number: int) -> None:
    """Draw slates in a process of its own, from what a leader elsewhere has saved."""
    leads.wait()
    learner, seen, batch = _learner(folder), Seen(), _batch(100 + number)
    while not ends.is_set():
        learner.step(0.0)
        seen.look(learner.snapshot)
        for _ in range(_REQUESTS_PER_LOOK):
            seen.request(learner.snapshot, batch, seen.requests)
    if learner.stats.leads:
        raise SystemExit("a follower leads beside a living leader")
    learner.close()
    sender.send(asdict(seen))


def _learner(folder: Path) -> Learner[LinearState]:
    return Learner(
        folder / "log",
        _POLICY,
        state_path=folder / "state.db",
        reward_weights={"value": 1.0},
        horizon_s=1e9,
    )


def _batch(seed: int) -> RankingBatch:
    features = np.random.default_rng(seed).standard_normal((50, _DIM)).astype(np.float32)
    return RankingBatch(np.array([f"i{row}" for row in range(50)]), features)


def _record(name: str, features: Any) -> DecisionRecord:
    placed = np.tri(_SLOTS, _SLOTS, -1, dtype=np.bool_)
    return DecisionRecord(
        request=RankingRequest(decision_id=name, slots=_SLOTS),
        mode="live",
        arm="explore",
        item_ids=np.array([f"i{slot}" for slot in range(_SLOTS)]),
        scores=np.zeros(_SLOTS),
        slate=Slate(
            order=np.arange(_SLOTS),
            propensities=np.full(_SLOTS, 0.5),
            method=("explore",) * _SLOTS,
            policy=_POLICY.name,
            policy_version=0,
            eligible=~placed,
            support=~placed,
        ),
        baseline_order=np.arange(_SLOTS),
        feature_rows=np.arange(_SLOTS),
        features=features,
    )


def show(outcome: Outcome, console: Console) -> None:
    """Print what was seen."""
    for kind, readers in (("thread", outcome.threads), ("process", outcome.processes)):
        requests = sum(seen.requests for seen in readers)
        mean = sum(seen.total_ms for seen in readers) / max(requests, 1)
        console.print(
            f"{len(readers)} reader {kind}{'es' if kind == 'process' else 's'}: {requests:,} requests, mean "
            f"{mean:.2f} ms, longest {max(seen.longest_ms for seen in readers):.1f} ms; "
            f"{sum(seen.states for seen in readers):,} states looked at, {sum(seen.torn for seen in readers)} torn, "
            f"{sum(seen.fell for seen in readers)} falling versions"
        )
    within = sum(seen.within_a_step for seen in outcome.threads)
    console.print(
        f"writer: {outcome.steps:,} steps in {outcome.seconds:g} s, {within:,} requests begun and answered within "
        f"one; {outcome.acknowledged:,} rewards acknowledged, {outcome.folded:,} learnt, version {outcome.version:,}"
    )
    console.print("sound" if outcome.sound else "NOT SOUND")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and return 0 where all was sound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.concurrency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to write and read")
    parser.add_argument("--json", type=Path, help="also write what was seen there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), options.seconds)
    show(outcome, Console())
    if options.json is not None:
        options.json.write_text(json.dumps({**asdict(outcome), "sound": outcome.sound}), encoding="utf-8")
    return 0 if outcome.sound else 1


if __name__ == "__main__":
    sys.exit(main())
