"""Explorank's own policies, through the public API.

`draws` is 8 where a policy has them. The item is drawn from the winning shares of the draws, so that over seeds
the choice is that of a single posterior draw whatever their number; more of them make propensities finer, not
regret smaller, and take time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from benchmarks.regret.play import Bandit, Entry, Seen, for_clicks
from benchmarks.regret.worker import Entries
from explorank.hooks.exploration import (
    UCB1,
    BetaThompson,
    DisjointLinearThompson,
    DisjointLinUCB,
    GaussianThompson,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    Policy,
    RankingBatch,
    RewardBatch,
    build_slate,
)

Maker: TypeAlias = Callable[[Seen], Policy[Any]]
DRAWS: Final = 8
LOW: Final = 0.001


class Player:
    """A policy as a contestant: slates of a single, explored slot."""

    def __init__(self, policy: Policy[Any], seen: Seen, seed: int) -> None:
        self._policy = policy
        self._state = policy.initial_state()
        self._seen = seen
        self._seed = seed
        self._ids = np.arange(seen.arms)
        self._arms = RankingBatch(self._ids) if seen.kind == "arms" else None
        self._propensities: dict[int, float] = {}

    def choose(self, time: int) -> int:
        """Return the row of the slate's only item."""
        slate = build_slate(
            self._policy, self._state, self._batch(time), 1, seed=self._seed * 1_000_000 + time
        )
        self._propensities[time] = float(slate.propensities[0])
        return int(slate.order[0])

    def learn(self, times: Sequence[int], positions: Sequence[int], rewards: Sequence[float]) -> None:
        """Learn them at once."""
        chosen = np.array(positions)
        kind, features = self._seen.kind, None
        ids = chosen
        if kind == "disjoint":
            features = self._seen.features[np.array(times)]
        elif kind == "shared":
            ids = self._seen.offered[np.array(times), chosen]
            features = self._seen.features[ids]
        propensities = np.array([self._propensities.pop(time) for time in times])
        batch = RewardBatch(ids, np.array(rewards), features, propensities=propensities)
        self._state = self._policy.learn(self._state, batch)

    def _batch(self, time: int) -> RankingBatch:
        if self._arms is not None:
            return self._arms
        features = self._seen.candidates(time)
        if self._seen.kind == "shared":
            return RankingBatch(self._seen.offered[time], features)  # type: ignore[arg-type] # cast to float32 there
        return RankingBatch(self._ids, np.broadcast_to(features, (self._seen.arms, len(features))))


def player(make: Maker) -> Entry:
    """Return a policy's entry."""

    def entry(seen: Seen, seed: int) -> Bandit:
        return Player(make(seen), seen, seed)

    return entry


def _options(policy: Callable[..., Policy[Any]], **options: Any) -> Entry:
    """Return the entry of a policy that has a dimension."""
    return player(lambda seen: policy(dim=seen.dim, **options))


def _linear(policy: Callable[..., Policy[Any]], **options: Any) -> Mapping[str, Entry]:
    """Return the settings of a linear policy."""
    return {
        "as it comes": _options(policy, **options),
        "noise 0.5, floor 0.001": _options(policy, noise=0.5, floor=LOW, **options),
        "noise 0.25, floor 0.001": _options(policy, noise=0.25, floor=LOW, **options),
    }


def _forgetting(policy: Callable[..., Policy[Any]], half_life: float, **options: Any) -> Mapping[str, Entry]:
    """Return a linear policy's settings with a half-life, in rewards (of the arm, where each has a model)."""
    return {
        f"noise 0.5, floor 0.001, half-life {half_life:.0f}": _options(
            policy, noise=0.5, floor=LOW, half_life=half_life, **options
        )
    }


ENTRIES: Final[Entries] = {
    "arms": {
        "beta_thompson": {
            "as it comes": player(lambda _: BetaThompson(draws=DRAWS)),
            "floor 0.001, pool 1000": player(lambda _: BetaThompson(draws=DRAWS, floor=LOW, pool=1_000)),
            "prior of 1 in 20, floor 0.001, pool 1000": player(
                lambda _: BetaThompson(draws=DRAWS, floor=LOW, pool=1_000, prior_beta=19.0)
            ),
        },
        "gaussian_thompson": {
            "as it comes": player(lambda _: GaussianThompson(draws=DRAWS)),
            "noise 0.25, prior mean 0.5, floor 0.001": player(
                lambda _: GaussianThompson(draws=DRAWS, floor=LOW, noise=0.25, prior_mean=0.5)
            ),
        },
        "ucb1": {
            "as it comes": player(lambda _: UCB1()),
            "alpha 0.25, floor 0.001": player(lambda _: UCB1(alpha=0.25, floor=LOW)),
        },
    },
    "shared": {
        "linear_thompson": _linear(LinearThompson, draws=DRAWS),
        "lin_ucb": _linear(LinUCB),
        "logistic_thompson": {
            "as it comes": for_clicks(_options(LogisticThompson, draws=DRAWS)),
            "floor 0.001, prior precision 0.3": for_clicks(
                _options(LogisticThompson, draws=DRAWS, floor=LOW, prior_precision=0.3)
            ),
        },
    },
    "disjoint": {
        "disjoint_linear_thompson": _linear(DisjointLinearThompson, draws=DRAWS),
        "disjoint_lin_ucb": _linear(DisjointLinUCB),
    },
}
FORGETFUL: Final[Entries] = {
    "shared": {
        "linear_thompson": _forgetting(LinearThompson, 300.0, draws=DRAWS),
        "lin_ucb": _forgetting(LinUCB, 300.0),
    },
    "disjoint": {
        "disjoint_linear_thompson": _forgetting(DisjointLinearThompson, 50.0, draws=DRAWS),
        "disjoint_lin_ucb": _forgetting(DisjointLinUCB, 50.0),
    },
}
