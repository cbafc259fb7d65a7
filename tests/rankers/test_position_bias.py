"""Corrections for the slot: what they do to data by hand, and whether they rank the truth better."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from explorank.rankers import (
    InvalidTraining,
    LightGBMOptions,
    LightGBMRanker,
    RankingData,
    examination_from_random_slots,
)
from explorank.rankers.position_bias import LARGEST_WEIGHT, corrected


@pytest.fixture(scope="module")
def clicks(module_at: Any) -> ModuleType:
    simulation: ModuleType = module_at(Path(__file__).with_name("click_simulation.py"))
    return simulation


def small(labels: list[float], **changes: Any) -> RankingData:
    parts: dict[str, Any] = {
        "features": np.arange(len(labels))[:, None],
        "feature_names": ("row",),
        "labels": labels,
        "positions": [0, 1, 2, 0, 1],
        "groups": [3, 2],
    }
    return RankingData(**(parts | changes))


CURVE = (1.0, 0.5, 0.25)


def test_each_click_becomes_a_request_that_weighs_its_inverse_propensity() -> None:
    data = corrected(small([0, 1, 1, 0, 0]), "lambdarank", CURVE)
    # The clicks are rows 1 (slot 1) and 2 (slot 2); row 0 is beside each, and they are not beside each other. The
    # second request has no click, and so no pair.
    assert data.features[:, 0].tolist() == [0, 1, 0, 2]
    assert data.groups is not None
    assert data.groups.tolist() == [2, 2]
    assert data.weights is not None
    assert data.weights.tolist() == [2, 2, 4, 4]
    assert data.labels.tolist() == [0, 1, 0, 1]


def test_what_is_known_of_requests_hinders_no_correction() -> None:
    """As rows of the log have it: whose each request is, what came before it, and what a teacher says of its rows."""
    known = small(
        [0, 1, 1, 0, 0],
        user_ids=["ann", "bo"],
        histories=[("x",), ()],
        item_ids=list("abcde"),
        teacher={"label": np.full(5, 0.5)},
    )
    for objective in ("lambdarank", "binary"):
        plain = corrected(small([0, 1, 1, 0, 0]), objective, CURVE)
        told = corrected(known, objective, CURVE)
        np.testing.assert_array_equal(told.features, plain.features)
        np.testing.assert_array_equal(told.weights, plain.weights)


def test_grades_are_compared_with_all_lower_ones() -> None:
    data = corrected(small([2, 1, 0, 0, 1], weights=[1, 1, 3, 1, 1]), "lambdarank", CURVE)
    assert data.features[:, 0].tolist() == [0, 1, 2, 1, 2, 3, 4]
    assert data.weights is not None
    assert data.weights.tolist() == [1, 1, 3, 2, 6, 2, 2]


def test_probabilities_weigh_clicks_and_amounts_are_divided() -> None:
    clicks = corrected(small([0, 1, 1, 0, 0]), "binary", CURVE)
    assert clicks.weights is not None
    assert clicks.weights.tolist() == [1, 2, 4, 1, 1]
    amounts = corrected(small([10, 0, 5, 1, 2]), "tweedie", CURVE)
    assert amounts.labels.tolist() == [10, 0, 20, 1, 4]
    assert amounts.weights is None


def test_no_click_counts_too_often() -> None:
    data = corrected(small([1, 1, 1, 1, 1]), "binary", (1.0, 1e-9, 0.5))
    assert data.weights is not None
    assert data.weights.max() == LARGEST_WEIGHT


def test_random_slots_tell_how_likely_each_is_looked_at(clicks: ModuleType) -> None:
    log = clicks.world(seed=3, requests=20_000, randomised=True).log
    estimated = examination_from_random_slots(log.positions, log.labels)
    # About 6,000 clicks in the first slot and 600 in the last: a relative standard error of 4 % there.
    np.testing.assert_allclose(estimated, clicks.EXAMINATION, rtol=0.16)
    assert examination_from_random_slots([0, 0, 1, 1], [1, 1, 1, 0]).tolist() == [1.0, 0.5]
    # Slot 1 showed the good item three times as often as chance would have; weights undo it.
    assert examination_from_random_slots([0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 3]).tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "corrections",
    [
        {"objective": "lambdarank", "position_bias": "weights"},
        {"objective": "lambdarank", "position_bias": "lightgbm"},
        {"objective": "binary", "position_bias": "weights"},
        {"objective": "regression", "position_bias": "weights"},
    ],
    ids=lambda given: "-".join(given.values()),
)
def test_a_correction_ranks_the_truth_better(clicks: ModuleType, corrections: dict[str, Any]) -> None:
    """In each of 10 worlds; were the correction as good as none, that would happen once in 1,000 times."""
    better = []
    for seed in range(10):
        world = clicks.world(seed, requests=600)
        reached = []
        for changes in ({}, corrections):
            options: dict[str, Any] = {
                "objective": corrections["objective"],
                "rounds": 20,
                "num_threads": 1,
            } | changes
            if changes.get("position_bias") == "weights":
                options["examination"] = clicks.EXAMINATION
            params = {"num_leaves": 8, "min_data_in_leaf": 30}
            ranker = LightGBMRanker.fit(
                world.log, options=LightGBMOptions(params=params, **options), seed=seed
            )
            scores = ranker.score(world.fresh.reshape(-1, len(clicks.NAMES)))
            reached.append(clicks.ndcg(scores.reshape(world.relevance.shape), world.relevance))
        better.append(reached[1] > reached[0])
    assert all(better)


def test_later_slices_are_weighed_alike(clicks: ModuleType) -> None:
    world = clicks.world(seed=1, requests=400)
    options = LightGBMOptions(
        position_bias="weights",
        examination=clicks.EXAMINATION,
        rounds=15,
        num_threads=1,
        early_stopping_rounds=3,
    )
    data, later = world.log.take(range(300)), world.log.take(range(300, 400))
    ranker = LightGBMRanker.fit(data, valid=later, options=options)
    assert 0.0 < ranker.manifest.metrics["ndcg@10"] <= 1.0


@pytest.mark.parametrize(
    ("options", "changes", "said"),
    [
        ({"position_bias": "weights"}, {}, "Set `examination`"),
        ({"position_bias": "weights", "examination": (1.0, 0.0)}, {}, "above 0 and at most 1"),
        ({"position_bias": "weights", "examination": (1.0, 1.5)}, {}, "above 0 and at most 1"),
        ({"position_bias": "weights", "examination": (1.0, 0.5)}, {}, r"row in slot 2.*ends with slot 1"),
        (
            {"position_bias": "weights", "examination": CURVE},
            {"positions": None},
            "training data has no positions",
        ),
        ({"position_bias": "lightgbm"}, {"positions": None}, "training data has no positions"),
        ({"position_bias": "lightgbm", "objective": "binary"}, {}, "works within 'lambdarank'"),
        ({"position_bias": "cascade"}, {}, "'cascade' is none of"),
    ],
)
def test_what_cannot_be_corrected_is_refused(
    options: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidTraining, match=said):
        LightGBMRanker.fit(
            small([0, 1, 1, 0, 1], **changes),
            options=LightGBMOptions(params={"min_data_in_leaf": 1}, **options),
        )


def test_a_slot_without_a_click_is_named() -> None:
    with pytest.raises(InvalidTraining, match="No click was seen in slot 1 of 2"):
        examination_from_random_slots([0, 0, 1], [1, 0, 0])
    with pytest.raises(InvalidTraining, match="slot 0 of 0"):
        examination_from_random_slots([], [])
