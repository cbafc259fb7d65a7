"""A log of random choices, and what a learning policy would have made of it; numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.regret.play import Entry, Seen
from benchmarks.regret.worlds import Indices, Numbers, World, at_once, bernoulli


@dataclass(frozen=True)
class Log:
    """What chance showed, and what it earned: n independent rows over K arms, each as likely as the others."""

    arms: int
    shown: Indices  # (n,) which arm
    rewards: Numbers  # (n,)


@dataclass(frozen=True)
class Replayed:
    """What a replay counted."""

    matched: int
    """How many rows showed what the policy chose."""
    earned: float
    """The rewards of those."""


def replay(log: Log, entry: Entry, seed: int) -> Replayed:
    """Return what a contestant earns on the rows of `log` that show what it chooses; it learns from those only.

    Each row that matches is a round of the world that the log came from, because the log chose evenly and without
    regard to what the policy would do (Li, Chu, Langford and Wang, *Unbiased Offline Evaluation of
    Contextual-bandit-based News Article Recommendation Algorithms*, 2011). Of n rows about n / K match. The rows
    are gone through in an order that the seed decides.
    """
    order = np.random.default_rng(seed).permutation(len(log.shown))
    bandit = entry(Seen(_unknown(log)), seed)
    matched, earned = 0, 0.0
    shown, rewards = log.shown[order].tolist(), log.rewards[order].tolist()
    for now, (arm, reward) in enumerate(zip(shown, rewards, strict=True)):
        if bandit.choose(now) == arm:
            bandit.learn([now], [arm], [reward])
            matched += 1
            earned += reward
    return Replayed(matched, earned)


def _unknown(log: Log) -> World:
    return bernoulli(np.zeros(log.arms), at_once(1), np.random.default_rng(0))


def save_log(log: Log, path: Path) -> None:
    """Write `log` for another interpreter."""
    np.savez(path, arms=log.arms, shown=log.shown, rewards=log.rewards)


def load_log(path: Path) -> Log:
    """Read a log that `save_log` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return Log(int(stored["arms"]), stored["shown"], stored["rewards"])
