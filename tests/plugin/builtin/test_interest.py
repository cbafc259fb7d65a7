"""The interest that follows each event equals the one computed anew from all events."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.builtin.interest import LiveInterest, RecentItems
from explorank.retrieval import Catalogue, interest_vector

DECAY = 0.8
ITEMS = [f"i{number}" for number in range(6)]
CATALOGUE = Catalogue.build(ITEMS, np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32))


def of(*items: str) -> np.ndarray:
    return interest_vector(CATALOGUE.vectors[CATALOGUE.rows(items)], DECAY)


@pytest.fixture
def interest() -> LiveInterest:
    return LiveInterest(DECAY)


@given(st.lists(st.sampled_from(ITEMS[:3]), max_size=4), st.lists(st.sampled_from(ITEMS[3:]), max_size=8))
def test_following_events_equals_computing_anew(stored: list[str], events: list[str]) -> None:
    following, late = LiveInterest(DECAY), LiveInterest(DECAY)
    following.vector("u", stored, CATALOGUE)

    for item in events:
        following.observe("u", item, 1.0, CATALOGUE)
        late.observe("u", item, 1.0, CATALOGUE)

    vector, anew = following.vector("u", stored, CATALOGUE), late.vector("u", stored, CATALOGUE)
    if not stored and not events:
        assert vector is None
        assert anew is None
        return
    assert vector is not None
    assert anew is not None
    np.testing.assert_allclose(vector, of(*stored, *events), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(anew, of(*stored, *events), rtol=1e-4, atol=1e-5)


def test_what_the_stored_history_has_caught_up_with_counts_once(interest: LiveInterest) -> None:
    interest.vector("u", ["i0"], CATALOGUE)
    interest.observe("u", "i4", 1.0, CATALOGUE)
    interest.observe("u", "i5", 1.0, CATALOGUE)

    caught_up = interest.vector("u", ["i0", "i4"], CATALOGUE)

    np.testing.assert_allclose(caught_up, of("i0", "i4", "i5"), rtol=1e-5)


def test_another_catalogue_starts_anew(interest: LiveInterest) -> None:
    before = interest.vector("u", ["i0", "i1"], CATALOGUE)
    turned = Catalogue.build(ITEMS, -CATALOGUE.vectors)

    np.testing.assert_allclose(interest.vector("u", ["i0", "i1"], turned), -before, rtol=1e-5)


def test_unknown_items_say_nothing(interest: LiveInterest) -> None:
    assert interest.vector("u", ["gone"], CATALOGUE) is None
    interest.observe("u", "gone", 1.0, CATALOGUE)
    assert interest.vector("u", ["gone"], CATALOGUE) is None
    np.testing.assert_allclose(interest.vector("u", ["gone", "i2"], CATALOGUE), of("i2"), rtol=1e-6)


def test_an_anonymous_visitor_is_computed_each_time(interest: LiveInterest) -> None:
    np.testing.assert_allclose(interest.vector(None, ["i1", "i2"], CATALOGUE), of("i1", "i2"), rtol=1e-6)
    assert interest.vector(None, [], CATALOGUE) is None


def test_recent_items_are_bounded_per_user_and_over_users() -> None:
    recent = RecentItems(users=2, items_per_user=3)
    for item in ("a", "b", "c", "d"):
        recent.add("first", item, 1.0)
    recent.add("second", "x", 1.0)
    recent.add("first", "e", 1.0)
    recent.add("third", "y", 1.0)

    assert recent.of("first").liked == ("c", "d", "e")
    assert recent.of("second").liked == ()  # silent for the longest
    assert recent.of("third").liked == ("y",)


def test_a_reward_right_after_a_swap_does_not_mix_spaces(interest: LiveInterest) -> None:
    interest.vector("u", ["i0", "i1"], CATALOGUE)
    shorter = Catalogue.build(ITEMS, np.random.default_rng(2).normal(size=(6, 3)))

    interest.observe("u", "i4", 1.0, shorter)

    rows = shorter.vectors[shorter.rows(["i0", "i1", "i4"])]
    np.testing.assert_allclose(
        interest.vector("u", ["i0", "i1"], shorter), interest_vector(rows, DECAY), rtol=1e-5
    )


def test_a_reward_for_the_old_catalogue_does_not_reach_the_new_ones_vector(interest: LiveInterest) -> None:
    turned = Catalogue.build(ITEMS, -CATALOGUE.vectors)
    interest.vector("u", ["i0"], turned)

    interest.observe("u", "i5", 1.0, CATALOGUE)  # a request that began before the swap

    expected = interest_vector(turned.vectors[turned.rows(["i0", "i5"])], DECAY)
    np.testing.assert_allclose(interest.vector("u", ["i0"], turned), expected, rtol=1e-5)


REWARDS = st.lists(
    st.tuples(st.sampled_from(ITEMS), st.sampled_from([1.0, 0.5, -0.5, -1.0, -math.inf])), max_size=8
)


@given(st.lists(st.sampled_from(ITEMS[:3]), max_size=3), REWARDS)
def test_what_rewards_do_not_add_up_to_liking_is_in_no_interest(
    stored: list[str], rewards: list[tuple[str, float]]
) -> None:
    axes = Catalogue.build(ITEMS, np.eye(6, dtype=np.float32))
    following = LiveInterest(DECAY)
    for item, worth in rewards:
        following.vector("u", stored, axes)  # asked between all events, so that each is followed
        following.observe("u", item, worth, axes)

    recent, vector = following.recent.of("u"), following.vector("u", stored, axes)

    totals = {item: sum(worth for one, worth in rewards if one == item) for item, _ in rewards}
    assert set(recent.disliked) == {item for item, total in totals.items() if total <= 0}
    assert set(recent.liked) == {item for item, total in totals.items() if total > 0}
    left = {*stored, *recent.liked} - set(recent.disliked)
    assert {ITEMS[axis] for axis in np.flatnonzero(np.zeros(6) if vector is None else vector)} == left
