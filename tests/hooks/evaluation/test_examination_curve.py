"""Slots' examination from known propensities: by hand, and on clicks whose truth is known."""

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.evaluation import AdjacentSlots
from explorank.hooks.exploration import EpsilonGreedy, PlackettLuce, RankingBatch, build_slate
from explorank.hooks.types import DecisionRecord, RankingRequest, Slate


def record_of(slate, name, n, user=None, *, known=True):
    return DecisionRecord(
        request=RankingRequest(decision_id=name, slots=len(slate), user_id=user),
        mode="live",
        arm="explore",
        item_ids=np.array([f"i{row}" for row in range(n)]),
        scores=np.zeros(n),
        slate=slate,
        baseline_order=slate.order,
        feature_rows=np.zeros(0, np.int64),
        features=np.zeros((0, 0), np.float32),
        propensity_known=known,
    )


def slate_of(order, propensities, n, method=("explore", "explore"), lost=()):
    support = np.ones((len(order), n), bool)
    for slot in range(1, len(order)):
        support[slot, order[:slot]] = False
        support[slot, list(lost)] = False
    return Slate(
        order=np.array(order),
        propensities=np.array(propensities),
        method=method,
        policy="any",
        policy_version=0,
        eligible=support,
        support=support,
    )


def test_a_population_gives_the_ratio_to_rounding():
    """Three items drawn by 1/2, 1/3, 1/6 without replacement: 60 slates hold each order as often as it is probable.

    Slot 1 is looked at half as often. Clicks by slot say something else, since what is liked least is drawn first.
    """
    drawn = np.array([1 / 2, 1 / 3, 1 / 6])
    liked = np.array([0.1, 0.2, 0.6])
    times = {(0, 1): 20, (0, 2): 10, (1, 0): 15, (1, 2): 5, (2, 0): 6, (2, 1): 4}
    slots = AdjacentSlots()
    by_slot = np.zeros(2)
    for (first, second), count in times.items():
        propensities = [drawn[first], drawn[second] / (1 - drawn[first])]
        assert count == pytest.approx(60 * np.prod(propensities))
        earned = {0: liked[first], 1: 0.5 * liked[second]}
        by_slot += count * np.array(list(earned.values()))
        for number in range(count):
            slots.add(
                record_of(slate_of([first, second], propensities, 3), f"{first}{second}{number}", 3), earned
            )
    curve = slots.curve()
    assert curve.probabilities == pytest.approx([1.0, 0.5], rel=1e-12)
    assert curve.decisions.tolist() == [60]
    assert by_slot[1] / by_slot[0] > 0.6


THETA = np.array([1.0, 0.7, 0.5, 0.3])


@pytest.mark.parametrize(
    "policy", [PlackettLuce(temperature=1.5), EpsilonGreedy(epsilon=0.6)], ids=lambda policy: policy.name
)
def test_what_the_policy_likes_does_not_bend_the_curve(policy):
    """8,000 slates by a policy that shows the better items first: intervals hold the truth, clicks by slot do not."""
    rng = np.random.default_rng(3)
    slots, shown, clicked = AdjacentSlots(), np.zeros(4), np.zeros(4)
    state = policy.initial_state()
    for number in range(8_000):
        scores = rng.standard_normal(6)
        liked = 0.8 / (1 + np.exp(-2 * scores))
        batch = RankingBatch(np.array([f"i{row}" for row in range(6)]), scores=scores)
        slate = build_slate(policy, state, batch, n_slots=4, seed=number)
        clicks = rng.random(4) < THETA * liked[slate.order]
        slots.add(record_of(slate, str(number), 6), dict(enumerate(clicks.astype(float))))
        shown, clicked = shown + 1, clicked + clicks
    curve = slots.curve(seed=1)
    assert ((curve.low <= THETA) & (curve.high >= THETA)).all()
    assert (curve.high - curve.low).max() < 0.25
    assert curve.left_out == 0
    naive = clicked / clicked[0]
    assert (naive[1:] < curve.low[1:]).any()


def test_what_cannot_be_compared_is_left_out_and_counted():
    slots = AdjacentSlots()
    both = {0: 1.0, 1: 1.0}
    slots.add(record_of(slate_of([0, 1], [0.5, 0.5], 3, method=("score", "explore")), "a", 3), both)
    slots.add(record_of(slate_of([0, 1], [0.5, 0.5], 3), "b", 3), {0: 1.0})  # slot 1 was not displayed
    slots.add(record_of(slate_of([0, 1], [0.5, 0.5], 3), "c", 3, known=False), both)
    slots.add(record_of(slate_of([0], [1.0], 1, method=("explore",)), "d", 1), {0: 1.0})
    slots.add(record_of(slate_of([0, 1], [0.5, 0.5], 3, lost=[2]), "e", 3), both)  # a guard took item 2
    with pytest.raises(InvalidBatch, match=r"0 decisions explored both \(1 pairs"):
        slots.curve()
    slots.add(record_of(slate_of([0, 1], [0.5, 0.5], 3), "f", 3), {0: 1.0, 1: 0.0})
    with pytest.raises(InvalidBatch, match=r"1 decisions explored both"):
        slots.curve()


def test_a_visitor_counts_as_one():
    """The same clicks by one visitor say less of the next one than by many, and the interval is wider."""
    rng = np.random.default_rng(5)
    clicks = rng.random((600, 2)) < [0.5, 0.3]
    widths = []
    for users in (600, 6):
        slots = AdjacentSlots()
        for number in range(600):
            # Each visitor of the few does the same a hundred times.
            pair = clicks[number % users]
            slate = slate_of([number % 2, 1 - number % 2], [0.5, 1.0], 2)
            slots.add(
                record_of(slate, str(number), 2, user=str(number % users)),
                dict(enumerate(pair.astype(float))),
            )
        curve = slots.curve()
        widths.append(np.nanmax(curve.high - curve.low))
    assert widths[1] > 2 * widths[0]
