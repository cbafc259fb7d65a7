"""The automatic stop: seldom without cause, soon with one, and it says what it saw."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.limits import AutomaticStop, StopRule, Watch
from explorank.hooks.limits.visitors import BUCKETS
from explorank.hooks.types import RankingRequest

REQUEST = RankingRequest(decision_id="d", slots=1)
BASE = 0.3


def stopped_after(
    chance: np.random.Generator,
    rule: StopRule,
    looks: list[int],
    mean: float,
    *,
    later: float | None = None,
    treated: float = 0.7,
) -> float:
    """Decisions until the stop, looked at after `looks`; `inf` where it never came.

    The explore arm's mean is `mean` before the last look but one third of the way, then `later`.
    """
    watch, done = Watch.from_(None, 0.0, 1.0), 0
    for number, look in enumerate(looks):
        explore = chance.random(look - done) < treated
        now = mean if later is None or number < len(looks) / 3 else later
        values = (chance.random(look - done) < np.where(explore, now, BASE)).astype(float)
        watch = rule.observe(watch, values, explore, chance.integers(0, BUCKETS, look - done))
        done = look
        if watch.reason is not None:
            return float(done)
    return math.inf


def test_without_a_difference_it_seldom_fires() -> None:
    """1,000 runs of 12,000 decisions, arms alike, no fall tolerated, a false-alarm rate of 0.2.

    At most 20 % of the runs may ever stop; 3 standard deviations of 1,000 draws (3.8 %) are granted to the seed.
    """
    rule = StopRule(drop=0.0, false_alarm=0.2, recent=4000)
    chance = np.random.default_rng(5)
    looks = [100, 300, 700, 1500, 3000, 4000, 6000, 8000, 10_000, 12_000]
    alarms = sum(stopped_after(chance, rule, looks, BASE) < math.inf for _ in range(1000))
    assert alarms <= 1000 * (0.2 + 3 * math.sqrt(0.2 * 0.8 / 1000))


def test_a_tolerated_fall_is_tolerated() -> None:
    """The explore arm is exactly as bad as allowed, the hardest case that must not stop it."""
    rule = StopRule(drop=0.1, false_alarm=0.1, recent=5000)
    chance = np.random.default_rng(6)
    looks = list(range(1000, 20_001, 1000))
    alarms = sum(stopped_after(chance, rule, looks, 0.9 * BASE) < math.inf for _ in range(300))
    assert alarms <= 300 * (0.1 + 3 * math.sqrt(0.1 * 0.9 / 300))


def test_a_fall_is_found() -> None:
    """From 0.3 to 0.2 with 5 % tolerated: at an error of 0.01 it takes some thousands of decisions.

    By hand: the two bounds, each near sqrt(2 v log(400) / n) with v = 0.2, must leave less than 0.085 between
    them, which needs about 5,000 decisions of which 30 % are the baseline's. 200 runs.
    """
    rule = StopRule(drop=0.05, false_alarm=0.01)
    chance = np.random.default_rng(7)
    looks = list(range(500, 20_001, 500))
    found = np.array([stopped_after(chance, rule, looks, 0.2) for _ in range(200)])
    assert (found < math.inf).all()
    assert 2000 <= np.median(found) <= 8000


def test_a_late_fall_is_found_by_the_stretches() -> None:
    """20,000 decisions better than the baseline hide from the whole what follows, half of it, for as many more."""
    chance = np.random.default_rng(8)
    looks = list(range(1000, 60_001, 1000))
    both = StopRule(drop=0.05, false_alarm=0.01, recent=10_000)
    whole_only = StopRule(drop=0.05, false_alarm=0.01, recent=1_000_000)
    for _ in range(5):
        assert stopped_after(chance, both, looks, 0.36, later=0.15) <= 30_000
        assert 30_000 < stopped_after(chance, whole_only, looks, 0.36, later=0.15) < math.inf


def test_the_errors_add_up_to_the_false_alarm_rate() -> None:
    rule = StopRule(drop=0.05, false_alarm=0.01, recent=2)
    watch = Watch.from_(None, 0.0, 1.0)
    assert rule.errors(watch) == (0.005, 0.0025)
    stretches = 0.0
    for stretch in range(1, 1001):
        assert watch.stretch == stretch
        stretches += rule.errors(watch)[1]
        watch = rule.observe(watch, np.ones(2), np.array([True, False]), np.array([0, 1]))
    assert stretches == pytest.approx(0.005 * (1 - 1 / 1001))
    assert watch.whole.count == 2000
    assert watch.recent.count == 0


def test_stretches_do_not_depend_on_how_decisions_come_in() -> None:
    rule = StopRule(drop=0.05, false_alarm=0.01, recent=7)
    chance = np.random.default_rng(9)
    values, explore, buckets = chance.random(50), chance.random(50) < 0.5, np.arange(50)
    at_once = rule.observe(Watch.from_(None, 0.0, 1.0), values, explore, buckets)
    single = Watch.from_(None, 0.0, 1.0)
    for at in range(50):
        cut = slice(at, at + 1)
        single = rule.observe(single, values[cut], explore[cut], buckets[cut])
    assert at_once.stretch == single.stretch == 8
    assert at_once.recent.count == single.recent.count == 1
    assert at_once.recent.explore.total == pytest.approx(single.recent.explore.total)


def fallen(visitors: int = 500) -> Watch:
    """After 2,000 decisions: the explore arm earned nothing, the baseline 1 each."""
    rule = StopRule(drop=0.05, false_alarm=0.01, metric="reward of kind 'order'")
    values = np.repeat([0.0, 1.0], 1000)
    buckets = np.tile(np.arange(visitors), 2000)[:2000] % BUCKETS
    return rule.observe(Watch.from_(None, 0.0, 1.0), values, values == 0.0, buckets)


def test_a_few_visitors_do_not_stop_it_however_often_they_come() -> None:
    assert fallen(visitors=5).reason is None
    assert fallen(visitors=500).reason is not None


def test_looks_come_when_a_tenth_is_new_whatever_was_earned() -> None:
    rule = StopRule(drop=0.05, false_alarm=0.01)
    for earned in (0.0, 1.0):
        watch, looks = Watch.from_(None, 0.0, 1.0), []
        for at in range(200):
            before = watch.whole.looks
            watch = rule.observe(watch, np.array([earned]), np.array([at % 2 == 0]), np.array([at % BUCKETS]))
            if watch.whole.looks > before:
                looks.append(watch.whole.count)
        # 100, then the next whole number from 1.1 times the last.
        assert looks == [100, 110, 121, 134, 148, 163, 180, 198]


def test_the_arms_of_a_small_crowd_differ_by_luck_and_that_is_no_fall() -> None:
    """60 runs: 400 visitors, each worth something else, come 600 times each; bounds alone stop many of these.

    At a false-alarm rate of 0.1 for runs without any effect, 6 are expected at most; 3 standard deviations more, 13.
    """
    chance = np.random.default_rng(10)
    rule, alone = StopRule(drop=0.0, false_alarm=0.1), 0
    alarms = 0
    for _ in range(60):
        worth = chance.beta(1.5, 3.5, 400)
        explore, buckets = chance.random(400) < 0.7, chance.integers(0, BUCKETS, 400)
        watch = Watch.from_(None, 0.0, 1.0)
        for _ in range(40):
            visits = chance.integers(0, 400, 6000)
            values = (chance.random(6000) < worth[visits]).astype(float)
            watch = rule.observe(watch, values, explore[visits], buckets[visits])
        alarms += watch.reason is not None
        upper, lower = watch.whole.bounds(0.05)
        alone += rule.fallen(upper, lower)
    assert alarms <= 13
    assert alone > 13


def test_the_reason_names_metric_numbers_and_bound() -> None:
    reason = fallen().reason
    assert reason is not None
    assert "the mean reward of kind 'order' per decision of the explore arm is at most 0.0" in reason
    assert "(measured 0 over 1000 decisions so far), more than 0.05 below" in reason
    assert "(measured 1 over 1000)" in reason
    assert "with a probability of at most 0.01. `explorank kill-switch release` lets it go on" in reason


def test_once_stopped_nothing_more_is_counted() -> None:
    watch = fallen()
    rule = StopRule(drop=0.05, false_alarm=0.01)
    assert rule.observe(watch, np.ones(500), np.ones(500, np.bool_), np.zeros(500, np.int64)) is watch


def test_the_gate_is_shut_while_stopped() -> None:
    watches = [Watch.from_(None, 0.0, 1.0)]
    gate = AutomaticStop(lambda: watches[-1])
    assert gate.refusal(REQUEST) is None
    watches.append(fallen())
    assert (gate.refusal(REQUEST) or "").startswith("stop: Automatic stop: the mean")
    assert gate.refused == 1


def test_a_baseline_below_zero_falls_downwards_too() -> None:
    """Of -1, a tolerated fall of 10 % leads to -1.1; arms that are alike are no fall."""
    rule = StopRule(drop=0.1, false_alarm=0.01)
    assert not rule.fallen(-1.0, -1.0)
    assert not rule.fallen(-1.1, -1.0)
    assert rule.fallen(-1.11, -1.0)
    assert rule.fallen(0.89, 1.0)
    assert not rule.fallen(0.91, 1.0)


def test_it_packs_to_json_and_back() -> None:
    watch = fallen()
    again = Watch.from_(None, 0.0, 1.0).unpacked(json.loads(json.dumps(watch.packed())))
    assert again.packed() == watch.packed()
    assert again.reason == watch.reason
    with pytest.raises(CorruptState, match="lacks a part"):
        watch.unpacked({"since": None})


@pytest.mark.parametrize(
    ("change", "named"),
    [({"drop": 1.0}, "drop"), ({"false_alarm": 0.0}, "false_alarm"), ({"recent": 0}, "recent")],
)
def test_numbers_that_cannot_work_are_refused(change: dict[str, float], named: str) -> None:
    with pytest.raises(InvalidPolicy, match=f"`{named}` is"):
        StopRule(**{"drop": 0.1, "false_alarm": 0.01, **change})  # type: ignore[arg-type]
