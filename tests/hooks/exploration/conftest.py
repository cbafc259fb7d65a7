"""Small cases whose slates can be enumerated: five items, three features, one posterior each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from explorank.hooks.exploration import (
    EXP3,
    UCB1,
    BetaThompson,
    BootstrappedThompson,
    DisjointLinearThompson,
    DisjointLinUCB,
    EpsilonGreedy,
    GaussianThompson,
    Greedy,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralLinear,
    PlackettLuce,
    Policy,
    RankingBatch,
    RewardBatch,
    SlidingWindow,
    SlotStrategies,
    Softmax,
    SquareCB,
    Uniform,
)

POLICIES = {
    policy.name: policy
    for policy in (
        EpsilonGreedy(epsilon=0.6),
        Softmax(temperature=2.0, floor=0.1),
        PlackettLuce(temperature=2.0),
        SquareCB(gamma=1.0),
        UCB1(floor=0.5),
        GaussianThompson(floor=0.4, draws=16),
        EXP3(gamma=0.4, eta=0.2),
        BetaThompson(floor=0.4, draws=16),
        LinearThompson(dim=3, floor=0.4, draws=16),
        LinUCB(dim=3, floor=0.8),
        DisjointLinUCB(dim=3, floor=0.8),
        DisjointLinearThompson(dim=3, floor=0.4, draws=16),
        LogisticThompson(dim=3, floor=0.4, draws=16),
        BootstrappedThompson(dim=3, floor=0.7, replicates=16),
        NeuralLinear(dim=3, floor=0.4, draws=16),
        SlotStrategies(("score", "random", "-price"), floor=0.4, draws=16),
        SlidingWindow(BetaThompson(floor=0.4, draws=16), rewards=6, blocks=3),
        Greedy(),
        Uniform(),
    )
}


@dataclass(frozen=True)
class Case:
    policy: Policy[Any]
    state: Any
    batch: RankingBatch


def case_of(policy: Policy[Any]) -> Case:
    rng = np.random.default_rng(20)
    ids = np.array(["a", "b", "c", "d", "e"])
    features = rng.standard_normal((5, 3))
    # The two best scores tie, so that Greedy too has something to draw.
    prices = {"price": np.array([3.0, 1.0, 4.0, 1.0, 5.0])}
    batch = RankingBatch(ids, features, scores=[0.5, 2.0, 2.0, -1.0, 0.0], columns=prices)
    rows = rng.integers(5, size=12)
    values = rng.random(12)
    rewards = RewardBatch(
        ids[rows],
        values,
        features[rows],
        propensities=rng.uniform(0.2, 0.9, 12),
        slots=np.arange(12) % 3,
        strategies=np.array(["score", "random", "-price", ""])[np.arange(12) % 4],
    )
    return Case(policy, policy.learn(policy.initial_state(), rewards), batch)


@pytest.fixture(params=POLICIES.values(), ids=POLICIES)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)
