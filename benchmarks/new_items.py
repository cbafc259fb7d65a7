"""What priors by content are worth while new items keep arriving; a simulation.

    python -m benchmarks.new_items [--seeds 20] [--rounds 1500]

Thirty items live at a time, and every fifth round the oldest makes place for a new one that nobody has seen. What an
item earns follows from its content but for a part of its own. A bagged ranker learnt from impressions of 200 former
items, most of which resemble each other, and meets items of every content: of the seldom ones it is unsure. What its
scores are worth is fitted to impressions of 100 others.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from explorank.hooks.exploration import (
    Calibration,
    GaussianThompson,
    Greedy,
    RankingBatch,
    RewardBatch,
    build_slate,
)
from explorank.hooks.exploration.item_sums import ItemMeans
from explorank.hooks.exploration.policy import Policy
from explorank.hooks.exploration.thompson import ThompsonContest, normal_draws
from explorank.hooks.types import BoolArray
from explorank.rankers import Bagging, BaggingOptions, RankingData

LIVE: Final = 30
EVERY: Final = 5
_FORMER: Final = 300
_CLICKS_EACH: Final = 20
_SELDOM: Final = 0.1
"""The share of former items from the half of all subjects that new items come from as often as from the other."""
_OWN: Final = 0.05
"""The standard deviation of what an item earns beyond its content."""


@dataclass(frozen=True, slots=True)
class World:
    """Items in the order of their arrival: what the ranker expects, how sure it is, and what they earn."""

    expected: NDArray[np.float64]
    unsure: NDArray[np.float64]
    earns: NDArray[np.float64]
    former_mean: float
    former_variance: float
    missed_variance: float
    """The variance of what former items that the ranker had not seen earn around what is expected of them."""

    @classmethod
    def drawn(cls, seed: int, items: int) -> World:
        """Draw the items, train the ranker on the former ones, and let it look at the new."""
        rng = np.random.default_rng(seed)
        usual = rng.random(_FORMER) < 1.0 - _SELDOM
        subject = np.where(usual, rng.uniform(-2, 0, _FORMER), rng.uniform(0, 2, _FORMER))
        former = np.column_stack([subject, rng.uniform(-1, 1, _FORMER)])
        new = np.column_stack([rng.uniform(-2, 2, items), rng.uniform(-1, 1, items)])
        earned, earns = _appeal(former, rng), _appeal(new, rng)
        seen = np.repeat(np.arange(_FORMER), _CLICKS_EACH)
        clicks = (rng.random(len(seen)) < earned[seen]).astype(np.float64)
        learnt = seen < _FORMER * 2 // 3
        data = RankingData(
            features=former[seen[learnt]].astype(np.float32),
            feature_names=("subject", "length"),
            labels=clicks[learnt],
            groups=np.full(_FORMER * 2 // 3, _CLICKS_EACH),
        )
        member = {
            "use": "lightgbm",
            "objective": "binary",
            "rounds": 60,
            "num_leaves": 8,
            "learning_rate": 0.1,
        }
        ranker = Bagging.fit(data, options=BaggingOptions(member=member, bags=8), seed=seed)
        rest = np.arange(_FORMER * 2 // 3, _FORMER)
        scores = ranker.score(former.astype(np.float32))
        calibration = Calibration.fit(scores[seen[~learnt]], clicks[~learnt], method="linear")
        score, uncertainty = ranker.score_with_uncertainty(new.astype(np.float32))
        return cls(
            expected=calibration(score),
            unsure=0.5 * (calibration(score + uncertainty) - calibration(score - uncertainty)),
            earns=earns,
            former_mean=float(earned.mean()),
            former_variance=float(earned.var()),
            missed_variance=float(np.mean((earned[rest] - calibration(scores[rest])) ** 2)),
        )


@dataclass(frozen=True)
class Widened(GaussianThompson):
    """Adds the square of how unsure the ranker is of an item, in the reward's unit, to the variance of its prior."""

    def contest(
        self, state: ItemMeans, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request, in which counts are scaled so that each item has a prior of its own."""
        unsure = np.asarray(batch.uncertainty)
        counts, totals = state.at(state.rows(batch.id_list))
        # n rewards under a prior of weight w / f are worth n f under one of weight w, at a deviation √f times as large.
        wider = 1.0 + self.prior_precision * unsure * unsure
        mean, deviation = self._normal(counts * wider, totals * wider)
        posterior = _Normal(mean, deviation * np.sqrt(wider), self.draws, int(rng.integers(2**63)))
        return ThompsonContest(posterior, rng, eligible, self.pool, self.floor, batch.offsets)


@dataclass(frozen=True, slots=True)
class _Normal:
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    count: int
    seed: int

    def optimistic(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        upper: NDArray[np.float64] = self.mean[rows] + 2.0 * self.deviation[rows]
        return upper

    def draws(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return normal_draws(self.mean[rows], self.deviation[rows], self.count, self.seed)


def _appeal(content: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    odds = -2.0 + 1.5 * np.sin(2.0 * content[:, 0]) + content[:, 1]
    return np.clip(1.0 / (1.0 + np.exp(-odds)) + _OWN * rng.standard_normal(len(content)), 0.01, 0.95)


def regrets(seed: int, rounds: int) -> dict[str, float]:
    """Return what each kind of prior earned less than the best live item would have, over all rounds."""
    world = World.drawn(seed, LIVE + rounds // EVERY)
    noise = float(np.sqrt(world.former_mean * (1.0 - world.former_mean)))

    def options(mean: float, variance: float) -> dict[str, Any]:
        return {"prior_mean": mean, "prior_precision": 1.0 / variance, "noise": noise, "draws": 64}

    # The flat prior is given the truth about former items, which nobody has; the others what can be measured.
    flat = GaussianThompson(**options(world.former_mean, world.former_variance))
    by_content = options(0.0, world.missed_variance)
    return {
        "flat": _regret(world, flat, rounds, seed, warm=False),
        "content": _regret(world, GaussianThompson(**by_content), rounds, seed, warm=True),
        "content, wider where unsure": _regret(world, Widened(**by_content), rounds, seed, warm=True),
        "content, never learning": _regret(world, Greedy(), rounds, seed, warm=True),
    }


def _regret(world: World, policy: Policy[Any], rounds: int, seed: int, *, warm: bool) -> float:
    rng = np.random.default_rng(seed)
    state, lost = policy.initial_state(), 0.0
    for number in range(rounds):
        first = number // EVERY
        live = np.arange(first, first + LIVE)
        batch = RankingBatch(
            live,
            scores=world.expected[live],
            offsets=world.expected[live] if warm else None,
            uncertainty=world.unsure[live],
        )
        shown = live[build_slate(policy, state, batch, 1, seed=seed * 1_000_003 + number).order]
        lost += world.earns[live].max() - world.earns[shown[0]]
        clicked = (rng.random(1) < world.earns[shown]).astype(np.float64)
        state = policy.learn(
            state, RewardBatch(shown, clicked, offsets=world.expected[shown] if warm else None)
        )
    return float(lost)


def summary(seeds: int, rounds: int) -> dict[str, NDArray[np.float64]]:
    """Return the regrets of each kind of prior, (seeds,)."""
    runs = [regrets(seed, rounds) for seed in range(seeds)]
    return {name: np.array([run[name] for run in runs]) for name in runs[0]}


def main() -> None:
    """Print means with 95 % intervals, and the differences from the flat prior and from content, seed by seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1_500)
    options = parser.parse_args()
    found = summary(options.seeds, options.rounds)
    table = Table("prior", "regret", "less flat", "less content", box=None)
    for name, values in found.items():
        table.add_row(
            name, *(interval(one) for one in (values, values - found["flat"], values - found["content"]))
        )
    Console(width=120).print(table)


def interval(values: NDArray[np.float64]) -> str:
    """Return mean and the half width of a normal 95 % interval of it, over seeds."""
    return f"{values.mean():.0f} ± {1.96 * values.std(ddof=1) / np.sqrt(len(values)):.0f}"


if __name__ == "__main__":
    main()
