"""Slots filled in one go are the slots filled one by one."""

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from explorank.hooks.exploration import (
    UCB1,
    BetaThompson,
    EpsilonGreedy,
    LinearThompson,
    LinUCB,
    RankingBatch,
    RewardBatch,
    build_slate,
)

POLICIES = [
    EpsilonGreedy(0.3),
    UCB1(),
    BetaThompson(pool=4, draws=16),
    LinUCB(dim=3, pool=4, floor=0.2),
    LinearThompson(dim=3, pool=4, draws=16, floor=0.2),
]


class Anyone:
    """Allows all, and asks to see the slate: slots are filled one by one."""

    def eligible(self, request, batch, placed, slot):
        return np.ones(len(batch), np.bool_)


def learnt(policy, n):
    rng = np.random.default_rng(5)
    features = rng.standard_normal((n, 3)).astype(np.float32)
    batch = RankingBatch([f"i{row}" for row in range(n)], features, np.round(rng.random(n), 1))
    rewards = RewardBatch(batch.item_ids[: n // 2], (rng.random(n // 2) < 0.5) * 1.0, features[: n // 2])
    return batch, policy.learn(policy.initial_state(), rewards)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("n", [1, 3, 12])
@pytest.mark.parametrize("explored", [None, (0,), (1, 2, 5), (2, 3, 4, 5, 6, 7, 8, 9)])
@pytest.mark.parametrize("some", [False, True], ids=["all", "some explorable"])
def test_both_ways_give_the_same_slate(policy, n, explored, some):
    """A pool of 4 runs out, candidates run out, and who may be explored runs out."""
    batch, state = learnt(policy, n)
    explorable = np.arange(n) % 3 == 1 if some else None
    for seed in range(20):
        at_once, one_by_one = (
            build_slate(policy, state, batch, 10, explored, guards, seed=seed, explorable=explorable)
            for guards in ((), (Anyone(),))
        )
        for field in fields(at_once):
            left, right = getattr(at_once, field.name), getattr(one_by_one, field.name)
            assert np.array_equal(left, right), field.name


def test_after_the_warm_up_nothing_compiles_and_answers_are_the_same():
    """In a process of its own, because the warm-up is for good."""
    script = """
import numpy as np
from numba.core import event
from explorank.hooks.exploration import (
    DisjointLinearThompson, DisjointLinUCB, LinearThompson, LinUCB, RankingBatch, RewardBatch, build_slate, builtin)
from explorank.hooks.exploration.compiled import warm_up
from explorank.hooks.registry import Registry

registry = Registry()
builtin.ranking_register_components(registry)
rng = np.random.default_rng(0)
features = rng.standard_normal((300, 4)).astype(np.float32)
shared = np.broadcast_to(features[0], features.shape)
own_options = {"square_cb": {"gamma": 10.0}}

def answers():
    rng = np.random.default_rng(1)
    for name in registry.names("policy"):
        factory = registry.get("policy", name)
        dims = {"dim": 4} if "dim" in factory.__dataclass_fields__ else {}
        policy = factory(**dims, **own_options.get(name, {}))
        columns = {name: rng.random(300) for name in ("first_seen", "popularity", "price")}
        for given in (features, shared, np.asfortranarray(features)):
            batch = RankingBatch(
                np.arange(300), given, np.arange(300)[::-1], uncertainty=np.ones(300), columns=columns,
                offsets=np.linspace(0, 1, 600)[::2])
            rewards = RewardBatch(
                batch.item_ids[:9], np.ones(9), given[:9], slots=np.zeros(9, int), offsets=np.zeros(9),
                strategies=np.full(9, "score"), propensities=np.full(9, 0.5))
            if name == "logistic_thompson":
                rewards = RewardBatch(batch.item_ids[:9], np.ones(9), given[:9])
            state = policy.learn(policy.initial_state(), rewards)
            for free in (None, np.arange(300) % 2 == 0):
                slate = build_slate(policy, state, batch, 10, (2, 5), seed=3, explorable=free)
                yield slate.order.tolist(), slate.propensities.tolist()

before = list(answers())
warm_up()
with event.install_recorder("numba:compile") as compiled:
    assert list(answers()) == before
assert not compiled.buffer, compiled.buffer
print(len(before))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60
