"""One contestant in one world, round by round; numpy only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np

from benchmarks.regret.worlds import Numbers, World

CHECKPOINTS: Final = 50


class Bandit(Protocol):
    """A contestant: it sees candidates and the rewards of what it chose, never a mean."""

    def choose(self, time: int) -> int:
        """Return the position of the candidate that is shown in round `time`."""

    def learn(self, times: Sequence[int], positions: Sequence[int], rewards: Sequence[float]) -> None:
        """Learn the rewards that have arrived, oldest first."""


Entry: TypeAlias = Callable[["Seen", int], Bandit]
"""Makes a contestant for a world and a seed."""


class Seen:
    """What a contestant may know of a world."""

    def __init__(self, world: World) -> None:
        self.kind = world.kind
        self.arms = world.arms
        self.dim = world.dim
        self.clicks = world.clicks
        self.features = world.features
        self.offered = world.offered
        self.candidates = world.candidates


class Unfit(Exception):
    """A contestant that is not made for this kind of reward, and does not take part."""


def for_clicks(entry: Entry) -> Entry:
    """Return an entry that takes part only where rewards are clicks."""

    def guarded(seen: Seen, seed: int) -> Bandit:
        if not seen.clicks:
            raise Unfit("It is made for clicks.")
        return entry(seen, seed)

    return guarded


@dataclass(frozen=True)
class Played:
    """What came of it."""

    regret: Numbers  # (C,) the sum so far, at each checkpoint
    earned: float
    seconds: float
    """CPU time of choosing and learning."""


def checkpoints(rounds: int) -> Numbers:
    """Return after how many rounds the regret is noted, (C,), the last one included."""
    return np.unique(np.linspace(0, rounds, min(CHECKPOINTS, rounds) + 1).astype(np.int64)[1:]).astype(
        np.float64
    )


def play(world: World, entry: Entry, seed: int) -> Played:
    """Return the regret of a contestant in `world`: expected rewards that its choices forwent."""
    bandit = entry(Seen(world), seed)
    shown: list[int] = []
    told = 0
    regrets = np.zeros(world.rounds)
    earned: list[float] = []
    seconds = 0.0
    arrival = world.arrival.tolist()
    for now in range(world.rounds):
        start = time.process_time()
        position = bandit.choose(now)
        seconds += time.process_time() - start
        shown.append(position)
        regrets[now] = world.regret(now, position)
        earned.append(world.reward(now, position))
        due = told
        while due <= now and arrival[due] <= now:
            due += 1
        if due > told:
            start = time.process_time()
            bandit.learn(range(told, due), shown[told:due], earned[told:due])
            seconds += time.process_time() - start
            told = due
    at = checkpoints(world.rounds).astype(np.int64) - 1
    return Played(regrets.cumsum()[at], float(sum(earned)), seconds)
