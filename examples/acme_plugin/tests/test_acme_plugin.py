from pathlib import Path

import numpy as np
import pytest
from acme_plugin import AtMostPerCategory, Boltzmann

from explorank.hooks.exploration import build_slate
from explorank.hooks.types import RankingBatch, RankingRequest

SEEDS = 20_000
SLOTS = 3
CATEGORIES = {"a": "red", "b": "red", "c": "red", "d": "blue", "e": "blue"}
BATCH = RankingBatch(item_ids=np.array(["a", "b", "c", "d", "e"]), scores=np.array([1.0, 0.8, 0.6, 0.4, 0.2]))
REQUEST = RankingRequest(decision_id="0", slots=SLOTS)


@pytest.fixture
def guard(tmp_path: Path) -> AtMostPerCategory:
    file = tmp_path / "categories.csv"
    file.write_text("".join(f"{item},{category}\n" for item, category in CATEGORIES.items()))
    return AtMostPerCategory(file, limit=2)


def test_propensities_are_those_that_occur(guard: AtMostPerCategory) -> None:
    """The mean of 1{shown}/propensity, over the slates in which the guard allowed the item there, is 1."""
    policy = Boltzmann(temperature=0.5)
    weights = np.zeros((SLOTS, len(BATCH)))
    squares = np.zeros((SLOTS, len(BATCH)))
    could = np.zeros((SLOTS, len(BATCH)))
    for seed in range(SEEDS):
        slate = build_slate(
            policy, policy.initial_state(), BATCH, SLOTS, guards=[guard], request=REQUEST, seed=seed
        )
        slots = np.arange(len(slate))
        weights[slots, slate.order] += 1 / slate.propensities
        squares[slots, slate.order] += 1 / slate.propensities**2
        could += slate.eligible
    mean = weights / could
    error = np.sqrt(squares / could - mean**2) / np.sqrt(could)
    # 15 estimates: 4.5 standard errors are passed by chance in 1 of 10,000 runs.
    assert np.all(np.abs(mean - 1) < 4.5 * error)


def test_the_first_slot_has_the_closed_form() -> None:
    policy = Boltzmann(temperature=0.5)
    contest = policy.contest(policy.initial_state(), BATCH, np.ones(5, np.bool_), np.random.default_rng(0))
    weights = np.exp(BATCH.score_values / 0.5)
    np.testing.assert_allclose(contest.distribution(np.ones(5, np.bool_)), weights / weights.sum())


@pytest.mark.parametrize("shift", [0.0, 1e6, -1e300, 1.7e308])
def test_a_shift_of_all_scores_changes_nothing(shift: float) -> None:
    policy = Boltzmann()
    batch = RankingBatch(item_ids=np.array(["a", "b"]), scores=np.array([shift, shift]))
    contest = policy.contest(policy.initial_state(), batch, np.ones(2, np.bool_), np.random.default_rng(0))
    assert contest.distribution(np.ones(2, np.bool_)).tolist() == [0.5, 0.5]


def test_the_guard_allows_two_of_a_category(guard: AtMostPerCategory) -> None:
    eligible = guard.eligible(REQUEST, BATCH, np.array([0, 2]), slot=2)
    assert eligible.tolist() == [False, False, False, True, True]


def test_an_item_without_a_category_is_always_allowed(guard: AtMostPerCategory) -> None:
    batch = RankingBatch(item_ids=np.array(["x", "y", "z", "a"]))
    assert guard.eligible(REQUEST, batch, np.array([0, 1, 2]), slot=3).all()


def test_the_state_survives_saving(tmp_path: Path) -> None:
    policy = Boltzmann()
    policy.save(policy.initial_state(), tmp_path / "state")
    assert policy.load(tmp_path / "state") == policy.initial_state()
