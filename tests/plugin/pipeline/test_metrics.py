"""Metrics against numbers computed by hand, and intervals against how often they hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.pipeline.metrics import Interval, bootstrap, ndcg_at, recall_at

LOG3 = math.log2(3)


@pytest.mark.parametrize(
    ("ranked", "relevant", "k", "expected"),
    [
        ("abc", "abc", 3, 1.0),
        ("abc", "c", 3, 1 / 2),  # found at rank 3: 1 / log2(4)
        ("abc", "bcd", 3, (1 / LOG3 + 1 / 2) / (1 + 1 / LOG3 + 1 / 2)),
        ("abc", "bcd", 2, (1 / LOG3) / (1 + 1 / LOG3)),
        ("ab", "abcd", 4, (1 + 1 / LOG3) / (1 + 1 / LOG3 + 1 / 2 + 1 / math.log2(5))),
        ("abc", "xyz", 3, 0.0),
        ("", "a", 3, 0.0),
    ],
)
def test_ndcg(ranked: str, relevant: str, k: int, expected: float) -> None:
    assert ndcg_at(list(ranked), set(relevant), k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("ranked", "relevant", "k", "expected"),
    [("abc", "bcd", 2, 1 / 3), ("abc", "bcd", 3, 2 / 3), ("abc", "abc", 3, 1.0), ("abc", "x", 3, 0.0)],
)
def test_recall(ranked: str, relevant: str, k: int, expected: float) -> None:
    assert recall_at(list(ranked), set(relevant), k) == pytest.approx(expected)


def test_without_anything_relevant_there_is_no_accuracy() -> None:
    assert math.isnan(ndcg_at(["a"], set(), 10))
    assert math.isnan(recall_at(["a"], set(), 10))


@given(st.permutations(list("abcdefgh")), st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 9))
def test_the_best_order_has_ndcg_one_and_no_order_more(ranked, relevant, k) -> None:
    best = sorted(ranked, key=lambda item: item not in relevant)

    assert ndcg_at(best, relevant, k) == pytest.approx(1.0)
    assert 0.0 <= ndcg_at(ranked, relevant, k) <= 1.0 + 1e-12


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(11)
    trials, users = 500, 150
    samples = random.exponential(1.0, (trials, users))

    held = [
        interval.low <= 1.0 <= interval.high
        for interval in (bootstrap(sample, seed=3, resamples=400) for sample in samples)
    ]

    # Nominally 95 %; percentile intervals of a skewed mean fall about 1.5 points short. Four standard
    # errors around 93.5 %: a correct interval fails this once in ten thousand seeds.
    assert 0.89 < np.mean(held) < 0.98


def test_the_interval_leaves_out_missing_values_and_repeats_for_a_seed() -> None:
    values = np.array([1.0, np.nan, 3.0])

    interval = bootstrap(values, seed=5)

    assert interval.mean == 2.0
    assert (interval.low, interval.high) == (1.0, 3.0)
    assert interval == bootstrap(values, seed=5)


def test_nothing_measured_is_told_as_such() -> None:
    assert math.isnan(bootstrap(np.array([np.nan]), seed=0).mean)


def test_intervals_are_written_with_three_decimals_or_as_asked() -> None:
    interval = Interval(0.25, -0.5, 1234.0)

    assert str(interval) == "0.250 [-0.500, 1234.000]"
    assert f"{interval:+}" == "+0.250 [-0.500, +1234.000]"
    assert f"{interval:+,.0f}" == "+0 [-0, +1,234]"
