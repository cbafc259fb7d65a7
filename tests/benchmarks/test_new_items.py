"""The simulation of arriving items: what it compares, and that what an item's content tells is worth much."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from explorank.hooks.exploration import GaussianThompson, RankingBatch, RewardBatch

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def new_items(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY)
    return importlib.import_module("benchmarks.new_items")


def test_priors_by_content_lose_less_than_flat_ones(new_items):
    """Of one seed, over 300 rounds; the mean over 20 seeds and 1,500 rounds is less than a third."""
    lost = new_items.regrets(seed=0, rounds=300)
    assert lost["content"] < 0.6 * lost["flat"]
    assert min(lost.values()) > 0


def test_items_are_the_same_for_a_seed_and_new_to_the_ranker(new_items):
    world, again = (new_items.World.drawn(3, new_items.LIVE) for _ in range(2))
    np.testing.assert_array_equal(world.expected, again.expected)
    # What it expects of them is right to a part, and no more.
    assert 0.2 < np.corrcoef(world.expected, world.earns)[0, 1] < 0.999
    assert (world.unsure >= 0).all()


def test_widening_is_a_prior_of_its_own_for_each_item(new_items):
    """An item of deviation s has a prior of variance 1 / precision + s², and the posterior that follows from it."""
    plain = {"noise": 0.5, "prior_mean": 0.2, "draws": 8}
    widened = new_items.Widened(prior_precision=4.0, **plain)
    rewards = RewardBatch(np.array([0, 0, 1]), np.array([1.0, 0.0, 1.0]))
    state = widened.learn(widened.initial_state(), rewards)
    batch = RankingBatch(np.array([0, 1, 2]), uncertainty=np.array([0.0, 0.5, 2.0]))
    found = widened.contest(state, batch, np.ones(3, bool), np.random.default_rng(0))._posterior
    for row, spread in enumerate((0.0, 0.5, 2.0)):
        alone = GaussianThompson(prior_precision=1.0 / (1.0 / 4.0 + spread**2), **plain)
        mean, deviation = alone._normal(*state.at(np.array([row]) if row < 2 else state.rows([2])))
        assert found.mean[row] == pytest.approx(mean[0])
        assert found.deviation[row] == pytest.approx(deviation[0])
