"""Small cases whose slates can be enumerated: five items, three features, one posterior each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from explorank.hooks.exploration import (
    BetaThompson,
    EpsilonGreedy,
    Greedy,
    LinearThompson,
    Policy,
    RankingBatch,
    RewardBatch,
    Uniform,
)

POLICIES = {
    policy.name: policy
    for policy in (
        EpsilonGreedy(epsilon=0.6),
        BetaThompson(floor=0.4, draws=16),
        LinearThompson(dim=3, floor=0.4, draws=16),
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
    batch = RankingBatch(ids, features, scores=[0.5, 2.0, 2.0, -1.0, 0.0])
    rows = rng.integers(5, size=12)
    rewards = RewardBatch(ids[rows], rng.random(12), features[rows])
    return Case(policy, policy.learn(policy.initial_state(), rewards), batch)


@pytest.fixture(params=POLICIES.values(), ids=POLICIES)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)
