"""Few visitors who come often are no evidence, however many decisions they make."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from explorank.hooks.errors import CorruptState
from explorank.hooks.limits.visitors import BUCKETS, Buckets, bucket_of, fallen
from explorank.hooks.types import RankingRequest


def asked(**fields: object) -> RankingRequest:
    return RankingRequest(**{"decision_id": "d", "slots": 1, **fields})  # type: ignore[arg-type]


def test_a_visitor_stays_in_one_bucket_and_all_buckets_are_filled_alike() -> None:
    assert len({bucket_of(asked(decision_id=f"d{n}", user_id="u")) for n in range(20)}) == 1
    assert len({bucket_of(asked(decision_id=f"d{n}", context={"session_id": "s"})) for n in range(20)}) == 1
    found = Counter(bucket_of(asked(decision_id=f"d{n}")) for n in range(64_000))
    assert set(found) == set(range(BUCKETS))
    # Chi-squared with 63 degrees of freedom; the ids are fixed.
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < stats.chi2.isf(1e-3, BUCKETS - 1)


def test_the_bucket_tells_nothing_of_the_arm() -> None:
    from explorank.hooks.feedback import assign

    arms = Counter(
        (bucket_of(asked(user_id=f"u{n}")) % 4, assign(f"u{n}", salt="s", holdout=0.0, share=0.5))
        for n in range(8000)
    )
    table = [[arms[bucket, arm] for arm in ("explore", "baseline")] for bucket in range(4)]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_equal_buckets_give_the_two_sample_t_test() -> None:
    """With as many decisions in each bucket, the ratio's variance is that of the buckets' means over their number."""
    chance = np.random.default_rng(1)
    sums = np.stack([np.full((2, BUCKETS), 50.0), chance.normal(20.0, 4.0, (2, BUCKETS))], axis=1)
    explore, baseline = sums[0, 1] / 50, sums[1, 1] / 50
    missing = 0.95 * baseline.mean() - explore.mean()
    deviation = math.sqrt((explore.var(ddof=1) + 0.95**2 * baseline.var(ddof=1)) / BUCKETS)
    exact = float(stats.t.sf(missing / deviation, BUCKETS - 1))
    assert bool(fallen(sums, 0.05, exact * 1.001))
    assert not bool(fallen(sums, 0.05, exact * 0.999))


def test_a_baseline_below_zero_falls_downwards() -> None:
    chance = np.random.default_rng(2)
    sums = np.stack([np.full((2, BUCKETS), 50.0), chance.normal(-50.0, 1.0, (2, BUCKETS))], axis=1)
    assert not fallen(sums, 0.05, 0.01)
    sums[0, 1] *= 1.2
    assert fallen(sums, 0.05, 0.01)


def test_few_filled_buckets_say_nothing() -> None:
    explore = np.repeat([True, False], 5000)
    for visitors, says in ((7, False), (40, True)):
        buckets = np.tile(np.arange(visitors), 10_000)[:10_000]
        sums = Buckets().plus(np.where(explore, 0.0, 1.0), explore, buckets)
        assert sums.fallen(0.05, 0.01) is says


@pytest.mark.parametrize("visits", [1, 400])
def test_the_error_is_kept_however_often_visitors_come(visits: int) -> None:
    """4,000 pairs of arms that are alike, 2,560 visitors in each, each worth something else, at an error of 0.05.

    A binomial count of 4,000 lies within 4 standard deviations (55) of 200 but for one seed in 16,000.
    """
    chance = np.random.default_rng(3)
    pairs, each = 4000, 40
    worth = chance.beta(1.5, 3.5, (pairs, 2, BUCKETS, each))
    totals = chance.binomial(visits, worth).sum(axis=-1)
    sums = np.stack([np.full(totals.shape, float(visits * each)), totals], axis=-2)
    assert abs(int(fallen(sums, 0.0, 0.05).sum()) - 200) <= 55


def test_batches_add_up_and_pack() -> None:
    chance = np.random.default_rng(4)
    values, explore, buckets = chance.random(300), chance.random(300) < 0.6, chance.integers(0, BUCKETS, 300)
    whole = Buckets().plus(values, explore, buckets)
    parts = Buckets()
    for at in range(0, 300, 7):
        cut = slice(at, at + 7)
        parts = parts.plus(values[cut], explore[cut], buckets[cut])
    np.testing.assert_allclose(parts.sums, whole.sums)
    assert whole.sums[:, 0].sum() == 300
    again = Buckets.unpacked(json.loads(json.dumps(whole.packed())))
    np.testing.assert_array_equal(again.sums, whole.sums)
    with pytest.raises(CorruptState, match="cannot be read"):
        Buckets.unpacked([1.0])
