"""What LinearThompson's design is worth: joint draws, a pool by mean + 2 sd, the posterior's own width.

    python -m benchmarks.regret.design [--quick] [--json PATH] [--page PATH]

Candidates that resemble each other or do not, the same ones throughout or ever new ones; a linear world whose prior
and noise are those that the policies are told, and floors of 0.001. The variants differ from `LinearThompson` in one
thing each, and play on the same seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks import environment
from benchmarks.regret import page
from benchmarks.regret.contestants.explorank import Player
from benchmarks.regret.play import play
from benchmarks.regret.summary import Interval, short
from benchmarks.regret.worlds import (
    NOISE,
    Numbers,
    World,
    at_once,
    churning,
    clustered,
    directions,
    fixed,
    shared,
)
from explorank.hooks.exploration import LinearThompson, RankingBatch
from explorank.hooks.exploration.linear_model import LinearDraws, LinearState
from explorank.hooks.exploration.thompson import Posterior, ThompsonContest
from explorank.hooks.types import BoolArray, FeatureArray, FloatArray, IndexArray

DIM: Final = 16
CANDIDATES: Final = 200
CLUSTERS: Final = 10
ROUNDS: Final = 1_000
SEEDS: Final = 30


class _Joint:
    """What the policy itself does: a draw of the coefficients scores all candidates."""

    def __init__(
        self, state: LinearState, features: FeatureArray, count: int, rng: np.random.Generator
    ) -> None:
        self._plain = LinearDraws.of(state, features, count, rng)
        self.state, self.features = state, features.astype(np.float64)
        self.count, self.seed = count, int(rng.integers(2**63))

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        """Return mean + 2 standard deviations."""
        return self._plain.optimistic(rows)

    def draws(self, rows: IndexArray) -> FloatArray:
        """Return what each draw expects, (M, len(rows))."""
        return self._plain.draws(rows)

    def mean(self, rows: IndexArray) -> FloatArray:
        """Return what is expected of `rows`."""
        expected: FloatArray = self.features[rows] @ self.state.mean
        return expected


class _Independent(_Joint):
    """Each candidate draws on its own from its marginal."""

    def draws(self, rows: IndexArray) -> FloatArray:
        """Return independent draws with the marginals' means and widths."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        spread = self.features[rows] @ self.state.factor
        deviation = np.sqrt(np.vecdot(spread, spread))
        drawn: FloatArray = self.mean(rows) + deviation * rng.standard_normal((self.count, len(rows)))
        return drawn


class _ByMean(_Joint):
    """Contenders are the best by what is expected of them."""

    def optimistic(self, rows: IndexArray) -> NDArray[np.floating[Any]]:
        """Return the mean alone."""
        return self.mean(rows)


class _Narrow(_Joint):
    """Half of the posterior's width."""

    def draws(self, rows: IndexArray) -> FloatArray:
        """Return draws at half their distance from the mean."""
        mean = self.mean(rows)
        return mean + 0.5 * (super().draws(rows) - mean)


@dataclass(frozen=True)
class Variant(LinearThompson):
    """`LinearThompson` with another posterior in its contest."""

    posterior_of: Callable[..., Posterior] = _Joint

    def contest(
        self, state: LinearState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request."""
        features = self.model.checked(batch.features)
        posterior = self.posterior_of(state, features, self.draws, rng)
        return ThompsonContest(posterior, rng, eligible, self.pool, self.floor)


VARIANTS: Final[dict[str, tuple[Callable[..., Posterior], int]]] = {
    "joint, pool of 50 by mean + 2 sd (LinearThompson)": (_Joint, 50),
    "joint, all candidates": (_Joint, 1_000_000),
    "independent marginals, pool of 50 by mean + 2 sd": (_Independent, 50),
    "joint, pool of 20 by mean + 2 sd": (_Joint, 20),
    "joint, pool of 20 by the mean alone": (_ByMean, 20),
    "joint, half of the width": (_Narrow, 50),
}
Maker: TypeAlias = Callable[[np.random.Generator, int], World]


def _fixed(cloud: Callable[[int, np.random.Generator], Numbers]) -> Maker:
    def make(rng: np.random.Generator, rounds: int) -> World:
        features = cloud(CANDIDATES, rng)
        truth = rng.standard_normal(DIM)
        return shared(features, fixed(rounds, CANDIDATES), truth, NOISE, at_once(rounds), rng)

    return make


def _churning(cloud: Callable[[int, np.random.Generator], Numbers]) -> Maker:
    def make(rng: np.random.Generator, rounds: int) -> World:
        offered = churning(rounds, CANDIDATES, every=10, replaced=20)
        features = cloud(int(offered.max()) + 1, rng)
        return shared(features, offered, rng.standard_normal(DIM), NOISE, at_once(rounds), rng)

    return make


def _unrelated(n: int, rng: np.random.Generator) -> Numbers:
    return directions(n, DIM, rng)


def _clustered(n: int, rng: np.random.Generator) -> Numbers:
    return clustered(n, DIM, CLUSTERS, rng)


WORLDS: Final[dict[str, Maker]] = {
    "unrelated, always the same": _fixed(_unrelated),
    "unrelated, ever new": _churning(_unrelated),
    "clustered, always the same": _fixed(_clustered),
    "clustered, ever new": _churning(_clustered),
}


def measure(seeds: int, rounds: int) -> dict[str, dict[str, Numbers]]:
    """Return the regret at the end, (seeds,), of each variant in each world."""
    found: dict[str, dict[str, Numbers]] = {}
    for world_name, make in WORLDS.items():
        found[world_name] = {name: np.empty(seeds) for name in VARIANTS}
        for seed in range(seeds):
            rng = np.random.Generator(np.random.PCG64([seed, *world_name.encode()]))
            world = make(rng, rounds)
            for name, (posterior, pool) in VARIANTS.items():
                policy = Variant(
                    dim=DIM, noise=NOISE, floor=0.001, pool=pool, draws=1, posterior_of=posterior
                )
                played = play(world, partial(Player, policy), seed)
                found[world_name][name][seed] = played.regret[-1]
    return found


def table(found: dict[str, dict[str, Numbers]]) -> list[str]:
    """Return the lines of the table: regret, the paired difference from the first variant, the worst seed."""
    lines = ["| candidates | variant | regret | more than LinearThompson, paired | worst seed |"]
    lines.append("|---|---|---|---|---|")
    for world, variants in found.items():
        base = next(iter(variants.values()))
        for name, regret in variants.items():
            difference = "" if regret is base else _relative(regret, base)
            worst = short(float(regret.max()))
            lines.append(f"| {world} | {name} | {Interval.of(regret)} | {difference} | {worst} |")
    return lines


def _relative(regret: Numbers, base: Numbers) -> str:
    share = Interval.of((regret - base) / base.mean())
    return f"{share.mean:+.0%} ({share.low:+.0%} to {share.high:+.0%})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Play, print the table, and write JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.regret.design", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="few seeds and rounds, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")
    parser.add_argument("--page", type=Path, metavar="PATH", help="also put the table into docs/regret.md")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    seeds, rounds = (2, 30) if options.quick else (SEEDS, ROUNDS)
    found = measure(seeds, rounds)
    lines = table(found)
    sys.stdout.write("\n".join(lines) + "\n")
    if options.page is not None:
        page.write(options.page, {"design": lines})
    if options.json is not None:
        kept = {
            world: {name: np.round(each, 2).tolist() for name, each in by.items()}
            for world, by in found.items()
        }
        options.json.write_text(json.dumps(kept, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
