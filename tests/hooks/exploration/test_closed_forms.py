"""Softmax, Plackett-Luce and SquareCB: any finite scores have an answer, and it is the formula's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration import PlackettLuce, RankingBatch, Softmax, SquareCB, build_slate
from explorank.hooks.exploration.exponential import ExponentialWeights

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def slots(draw, values):
    """Draw some values, and who of them is eligible: at least one."""
    drawn = draw(st.lists(values, min_size=1, max_size=9))
    eligible = np.array([draw(st.booleans()) for _ in drawn])
    eligible[draw(st.integers(0, len(drawn) - 1))] = True
    return np.array(drawn), eligible


def distribution(policy, scores, eligible=None):
    everybody = np.ones(len(scores), dtype=bool)
    batch = RankingBatch(np.arange(len(scores)), scores=scores)
    contest = policy.contest(policy.initial_state(), batch, everybody, np.random.default_rng(0))
    return contest.distribution(everybody if eligible is None else eligible)


@given(slots(st.floats(-300, 300)), st.floats(0.5, 100.0), st.floats(0.0, 1.0))
def test_softmax_is_the_textbook_formula_mixed_with_its_floor(slot, temperature, floor):
    scores, eligible = slot
    expected = np.zeros(len(scores))
    expected[eligible] = (1 - floor) * special.softmax(
        scores[eligible] / temperature
    ) + floor / eligible.sum()
    found = distribution(Softmax(temperature, floor), scores, eligible)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-150)


@given(slots(st.floats(-10, 10)), st.floats(0.01, 1e4))
def test_square_cb_is_the_formula_of_the_paper(slot, gamma):
    scores, eligible = slot
    count, best = int(eligible.sum()), max(scores[eligible])
    expected = np.array(
        [
            1 / (count + gamma * (best - score)) if able else 0
            for score, able in zip(scores, eligible, strict=True)
        ]
    )
    winners = eligible & (scores == best)
    expected[winners] = (1 - expected[~winners].sum()) / winners.sum()
    found = distribution(SquareCB(gamma), scores, eligible)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found[winners].min() >= (1 - 1e-12) / count  # the best has at least an even share


@pytest.mark.parametrize(
    "policy",
    [
        PlackettLuce(temperature=5e-324),
        PlackettLuce(),
        PlackettLuce(temperature=1e308),
        Softmax(temperature=1e-3, floor=0.2),
        SquareCB(gamma=5e-324),
        SquareCB(gamma=1e308, floor=0.1),
    ],
    ids=str,
)
@given(slot=slots(FINITE))
def test_any_finite_scores_have_a_distribution(policy, slot):
    scores, eligible = slot
    found = distribution(policy, scores, eligible)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert (found >= 0).all()
    assert (found[~eligible] == 0).all()
    # A better score is never the less likely one.
    order = np.flatnonzero(eligible)[np.argsort(scores[eligible])]
    assert (np.diff(found[order]) >= -1e-12).all()
    if policy.exploration_floor or isinstance(policy, SquareCB):
        assert (found[eligible] > 0).all()


@pytest.mark.parametrize(
    "policy",
    [Softmax(0.7, floor=0.1), PlackettLuce(0.7), SquareCB(gamma=20.0)],
    ids=lambda policy: policy.name,
)
@pytest.mark.parametrize("shift", [-1024.0, 1.0, 2.0**40])
def test_a_shift_of_all_scores_changes_nothing(policy, shift):
    scores = np.array([0.0, 0.5, 2.0, -3.25])  # exact in binary, shifted or not
    assert distribution(policy, scores + shift).tolist() == distribution(policy, scores).tolist()


def test_ties_share_alike_and_hopeless_items_have_nothing():
    assert distribution(PlackettLuce(), [1e300, -1e300, 1e300]).tolist() == [0.5, 0.0, 0.5]
    assert distribution(PlackettLuce(), [-1.7e308, 1.7e308]).tolist() == [0.0, 1.0]
    assert distribution(PlackettLuce(), [-1e300, -1e300]).tolist() == [0.5, 0.5]
    assert distribution(PlackettLuce(), [1e-300, 0.0]).tolist() == [0.5, 0.5]
    floored = distribution(Softmax(floor=0.2), [1e300, -1e300, 1e300])
    assert floored == pytest.approx([0.4 + 0.2 / 3, 0.2 / 3, 0.4 + 0.2 / 3], abs=1e-15)


@pytest.mark.parametrize("ahead", [200.0, 500.0, 5000.0, 1e300])
def test_what_is_faint_beside_the_leader_is_exact_once_the_leader_is_placed(ahead):
    scores = np.array([ahead, 1.0, 0.0, -1.0])
    left = np.array([False, True, True, True])
    found = distribution(PlackettLuce(), scores, left)
    np.testing.assert_allclose(found[1:], special.softmax([1.0, 0.0, -1.0]), rtol=1e-12)
    # The same mask gives the same answer, whatever was asked between: the contest is a function.
    contest = ExponentialWeights(scores, 1.0, uniform=0.0)
    first = contest.distribution(left)
    assert contest.distribution(np.ones(4, dtype=bool))[0] == pytest.approx(1.0)
    assert contest.distribution(left).tolist() == first.tolist() == found.tolist()


def test_plackett_luce_is_softmax_without_a_floor():
    rng = np.random.default_rng(4)
    batch = RankingBatch(np.arange(30), scores=rng.standard_normal(30) * 3)
    for seed in range(50):
        whole, slotwise = (
            build_slate(policy, policy.initial_state(), batch, 8, seed=seed)
            for policy in (PlackettLuce(temperature=0.4), Softmax(temperature=0.4))
        )
        assert whole.order.tolist() == slotwise.order.tolist()
        assert whole.propensities.tolist() == slotwise.propensities.tolist()


def test_temperature_is_in_the_unit_of_the_scores():
    shares = distribution(Softmax(temperature=0.1), [0.3, 0.2])
    assert shares[0] / shares[1] == pytest.approx(math.e)
    assert distribution(PlackettLuce(temperature=0.1), [0.3, 0.2])[1] == pytest.approx(1 / (1 + math.e))


def test_gamma_is_where_an_item_has_half_an_even_share():
    """Four items, the gap is 4 / gamma."""
    assert distribution(SquareCB(gamma=40.0), [0.5, 0.4, 0.4, 0.4]).tolist() == pytest.approx(
        [5 / 8, *[1 / 8] * 3]
    )


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        *[(Softmax, {"temperature": value}) for value in (0.0, -1.0, math.inf, math.nan)],
        *[(Softmax, {"floor": value}) for value in (-0.1, 1.1, math.nan)],
        *[(PlackettLuce, {"temperature": value}) for value in (0.0, math.nan)],
        *[(SquareCB, {"gamma": value}) for value in (0.0, -1.0, math.inf, math.nan)],
        (SquareCB, {"floor": 1.5, "gamma": 1.0}),
    ],
)
def test_options_that_cannot_work_are_refused(policy, options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of {policy.name}"):
        policy(**options)
