"""Times one library's single requests; runs in that library's environment, for `benchmarks.libraries`.

    <its python> -m benchmarks.library_worker LIBRARY       lines of JSON on standard input and output

{"prepare": kind, "arms": K, "dim": d} makes the contestants of the regret benchmark for that shape, as the library
comes, with three rewards per arm behind them, and answers with their names. {"time": [kind, K, name, what], "calls": n}
answers with the CPU seconds of one call of `act` or `learn`.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Mapping
from itertools import count
from typing import Any, Final, TypeAlias

import numpy as np

from benchmarks.regret.play import Bandit, Seen, Unfit
from benchmarks.regret.worker import entries
from benchmarks.regret.worlds import World, at_once, directions, disjoint, fixed, shared

Key: TypeAlias = tuple[str, int, str]
ROUNDS: Final = 4_000
# They learn only of what they have chosen themselves, at least as contestants here.
_REMEMBERING: Final = frozenset({"explorank", "vowpalwabbit", "gittins"})


class Stable:
    """Contestants that have learnt a little, and what they are asked next."""

    def __init__(self, library: str) -> None:
        self._library = library
        self._bandits: dict[Key, Bandit] = {}
        self._worlds: dict[tuple[str, int], World] = {}
        self._rounds: dict[Key, Any] = {}

    def prepare(self, kind: str, arms: int, dim: int) -> list[str]:
        """Return the names of the library's contestants for worlds of `kind`."""
        world = shape(kind, arms, dim)
        self._worlds[kind, arms] = world
        rng = np.random.default_rng(arms)
        names = []
        for name, settings in entries(self._library, world.kind, changing=False).items():
            try:
                bandit = next(iter(settings.values()))(Seen(world), 1)
            except Unfit:
                continue
            times = list(range(3 * arms))
            positions = (rng.permutation(len(times)) % arms).tolist()
            if self._library in _REMEMBERING:
                positions = [bandit.choose(now) for now in times]
            bandit.learn(
                times, positions, [world.reward(now, at) for now, at in zip(times, positions, strict=True)]
            )
            self._bandits[kind, arms, name] = bandit
            self._rounds[kind, arms, name] = count(len(times))
            names.append(name)
        return names

    def seconds(self, key: Key, what: str, calls: int) -> float:
        """Return the CPU seconds of one call, over `calls` of them."""
        bandit, world = self._bandits[key], self._worlds[key[0], key[1]]
        rounds = [next(self._rounds[key]) % world.rounds for _ in range(calls)]
        if what == "act":
            start = time.process_time_ns()
            for now in rounds:
                bandit.choose(now)
            return (time.process_time_ns() - start) * 1e-9 / calls
        # What is learnt has been chosen before, and the choosing isn't timed.
        told = [(now, bandit.choose(now)) for now in rounds]
        rows = [([now], [at], [world.reward(now, at)]) for now, at in told]
        start = time.process_time_ns()
        for times, positions, rewards in rows:
            bandit.learn(times, positions, rewards)
        return (time.process_time_ns() - start) * 1e-9 / calls


def shape(kind: str, arms: int, dim: int) -> World:
    """Return a world of that shape."""
    rng = np.random.default_rng([arms, dim])
    if kind == "shared":
        rounds = max(ROUNDS, 4 * arms)
        return shared(
            directions(arms, dim, rng),
            fixed(rounds, arms),
            rng.standard_normal(dim),
            0.5,
            at_once(rounds),
            rng,
        )
    contexts = directions(max(ROUNDS, 4 * arms), dim, rng)
    return disjoint(contexts, rng.standard_normal((arms, dim)), 0.5, at_once(len(contexts)), rng)


def reply(stable: Stable, asked: Mapping[str, Any]) -> Any:
    """Return the answer to one line."""
    if "prepare" in asked:
        return stable.prepare(asked["prepare"], asked["arms"], asked["dim"])
    kind, arms, name, what = asked["time"]
    return stable.seconds((kind, arms, name), what, asked["calls"])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    stable = Stable(sys.argv[1])
    for line in sys.stdin:
        answers.write(json.dumps(reply(stable, json.loads(line))) + "\n")
        answers.flush()
