"""bayesianbandits: arms, a model per arm, and a model that all candidates share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from bayesianbandits import (
    Agent,
    Arm,
    BayesianGLM,
    ContextualAgent,
    DirichletClassifier,
    FunctionArmFeaturizer,
    LipschitzContextualAgent,
    NormalRegressor,
    StabilizedForgetting,
    ThompsonSampling,
    UpperConfidenceBound,
)

from benchmarks.regret.play import Bandit, Entry, Seen, Unfit, for_clicks
from benchmarks.regret.worker import Entries


class Player:
    """An agent. Where candidates share a model, an arm is a position, whose features are looked up."""

    def __init__(self, learner: Callable[[], Any], policy: Any, seen: Seen, seed: int) -> None:
        self._seen = seen
        positions = range(seen.arms)
        if seen.kind == "shared":
            featurizer = FunctionArmFeaturizer(self._enriched)
            arms = [Arm(position) for position in positions]
            self._agent = LipschitzContextualAgent(arms, policy, featurizer, learner(), random_seed=seed)
        else:
            agent = Agent if seen.kind == "arms" else ContextualAgent
            # Of a class model's draw, what counts is the probability of a success.
            worth = _successes if seen.kind == "arms" else None
            arms = [Arm(position, learner=learner(), reward_function=worth) for position in positions]
            self._agent = agent(arms, policy, random_seed=seed)

    def choose(self, time: int) -> int:
        """Return what `pull` does."""
        if self._seen.kind == "arms":
            return int(self._agent.pull()[0])
        return int(self._agent.pull(self._row(time))[0])

    def learn(self, times: Sequence[int], positions: Sequence[int], rewards: Sequence[float]) -> None:
        """Update the arms one reward after another."""
        for time, position, reward in zip(times, positions, rewards, strict=True):
            self._agent.select_for_update(position)
            value = np.array([reward])
            if self._seen.kind == "arms":
                self._agent.update(value)
            else:
                self._agent.update(self._row(time), value)

    def _row(self, time: int) -> Any:
        return np.array([[time]]) if self._seen.kind == "shared" else self._seen.features[time : time + 1]

    def _enriched(self, context: Any, positions: Sequence[int]) -> Any:
        offered = self._seen.offered[int(context[0, 0])][np.array(positions)]
        return self._seen.features[offered].T[None]


def _successes(probabilities: Any) -> Any:
    return probabilities[..., 1]


def player(learner: Callable[[], Any], policy: Callable[[], Any]) -> Entry:
    """Return the entry of a learner per arm, or for all, and a policy."""

    def entry(seen: Seen, seed: int) -> Bandit:
        return Player(learner, policy(), seen, seed)

    return entry


def _few(entry: Entry) -> Entry:
    """Return an entry that takes part among at most 50 arms: 100 would take it 12 ms a round."""

    def guarded(seen: Seen, seed: int) -> Bandit:
        if seen.arms > 50:
            raise Unfit("100 arms take it 12 ms a round, four minutes in all.")
        return entry(seen, seed)

    return guarded


def _normal(policy: Callable[[], Any]) -> Mapping[str, Entry]:
    # The precisions have no defaults: 1 and 1 stand in their examples.
    return {
        "as it comes": player(lambda: NormalRegressor(alpha=1.0, beta=1.0), policy),
        "beta 4": player(lambda: NormalRegressor(alpha=1.0, beta=4.0), policy),
        "beta 16": player(lambda: NormalRegressor(alpha=1.0, beta=16.0), policy),
    }


def _forgetting(policy: Callable[[], Any], half_life: float) -> Mapping[str, Entry]:
    forgets = StabilizedForgetting(0.5 ** (1.0 / half_life))
    return {
        f"beta 4, half-life {half_life:.0f}": player(
            lambda: NormalRegressor(alpha=1.0, beta=4.0, forgetting=forgets), policy
        )
    }


ENTRIES: Final[Entries] = {
    "arms": {
        "Dirichlet TS": {
            "as it comes": _few(player(lambda: DirichletClassifier({0: 1.0, 1: 1.0}), ThompsonSampling)),
            "prior of 1 in 20": _few(
                player(lambda: DirichletClassifier({0: 19.0, 1: 1.0}), ThompsonSampling)
            ),
        },
    },
    "shared": {
        "Normal TS": _normal(ThompsonSampling),
        # Its default, 1,000 draws for a quantile, takes 2 ms a round.
        "Normal UCB": _normal(partial(UpperConfidenceBound, samples=100)),
        "logistic TS": {
            "as it comes": for_clicks(player(lambda: BayesianGLM(alpha=1.0, link="logit"), ThompsonSampling))
        },
    },
    "disjoint": {
        "Normal TS": _normal(ThompsonSampling),
    },
}
FORGETFUL: Final[Entries] = {
    "shared": {
        "Normal TS": _forgetting(ThompsonSampling, 300.0),
        "Normal UCB": _forgetting(partial(UpperConfidenceBound, samples=100), 300.0),
    },
    "disjoint": {"Normal TS": _forgetting(ThompsonSampling, 50.0)},
}
