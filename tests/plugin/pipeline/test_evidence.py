"""What speaks for a ranker: hand-derived metrics, intervals over users, and who is promoted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.pipeline.evidence import PROMOTION_RULES, accuracy, compared, judge
from explorank.pipeline.metrics import Interval, bootstrap
from explorank.rankers import RankingData


def test_metrics_of_requests_derived_by_hand() -> None:
    data = RankingData(
        features=np.zeros((7, 1)), feature_names=("x",), labels=[0, 1, 1, 0, 1, 0, 0], groups=[3, 2, 2]
    )
    found = accuracy(np.array([3.0, 2.0, 1.0, 0.0, 1.0, 0.5, 0.5]), data)
    # First request: liked at ranks 2 and 3 of 3; second: at rank 1; in the third nothing was liked.
    best = 1 + 1 / math.log2(3)
    np.testing.assert_allclose(found["ndcg@10"], [(1 / math.log2(3) + 1 / 2) / best, 1, np.nan])
    np.testing.assert_allclose(found["mrr"], [1 / 2, 1, np.nan])
    np.testing.assert_allclose(found["recall@10"], [1, 1, np.nan])


@given(st.integers(0, 1_000))
def test_equal_rankers_differ_by_nothing(seed: int) -> None:
    values = np.random.default_rng(seed).random(20)
    users = np.repeat(np.arange(5), 4)
    assert compared(values, values, users, seed=seed) == Interval(0.0, 0.0, 0.0)


def test_intervals_are_wider_where_a_users_requests_are_alike() -> None:
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(40), 10)
    values = generator.normal(size=40)[users]
    by_user, by_request = bootstrap(values, seed=0, users=users), bootstrap(values, seed=0)
    assert by_user.mean == by_request.mean == pytest.approx(values.mean())
    # Ten copies of each user's value say no more than one: the interval is wider by the root of ten.
    ratio = (by_user.high - by_user.low) / (by_request.high - by_request.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.15)


def test_intervals_of_users_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    users, covered = np.repeat(np.arange(60), 3), 0
    for trial in range(200):
        values = generator.normal(0.3, 1.0, 60)[users] + generator.normal(0, 0.5, 180)
        interval = bootstrap(values, seed=trial, resamples=400, users=users)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


BETTER, WORSE, UNSURE = Interval(0.1, 0.05, 0.2), Interval(-0.1, -0.2, -0.05), Interval(0.01, -0.1, 0.1)


@pytest.mark.parametrize(
    ("rule", "promoted"),
    [
        ("unless-worse", [True, True, False, True]),
        ("if-better", [True, False, False, True]),
        ("always", [True, True, True, True]),
        ("never", [False, False, False, False]),
    ],
)
def test_who_is_promoted(rule: str, promoted: list[bool]) -> None:
    assert rule in PROMOTION_RULES
    verdicts = [judge(rule, difference, "the first one") for difference in (BETTER, UNSURE, WORSE, None)]  # type: ignore[arg-type]
    assert [verdict.promoted for verdict in verdicts] == promoted
    assert all(verdict.reason for verdict in verdicts)
