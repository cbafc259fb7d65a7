"""Recency-weighted interest: by hand, incrementally, and within bounds of memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorank.retrieval import InvalidOption, InvalidVectors, UserVectors, interest_vector


def test_by_hand() -> None:
    # 0.25 · e1 + 0.5 · e2 + 1 · e1, oldest first
    np.testing.assert_array_equal(interest_vector([[1, 0], [0, 1], [1, 0]], 0.5), [1.25, 0.5])
    np.testing.assert_array_equal(interest_vector(np.zeros((0, 3)), 0.5), [0, 0, 0])
    np.testing.assert_array_equal(interest_vector([[2, 0], [0, 1]], 1.0), [2, 1])


@settings(max_examples=60)
@given(
    decay=st.floats(0.05, 1), events=st.integers(0, 60), before=st.integers(0, 10), seed=st.integers(0, 999)
)
def test_updating_equals_recomputing(decay: float, events: int, before: int, seed: int) -> None:
    items = np.random.default_rng(seed).standard_normal((before + events, 8)).astype(np.float32)
    users = UserVectors(decay)
    users.seed("ann", interest_vector(items[:before], decay))
    for item in items[before:]:
        assert users.observe("ann", item)
    np.testing.assert_allclose(users.get("ann"), interest_vector(items, decay), rtol=1e-4, atol=1e-4)


def test_an_unknown_user_is_not_begun_in_the_middle() -> None:
    users = UserVectors(0.9)
    assert users.observe("ann", [1.0, 0.0]) is False
    assert users.get("ann") is None


def test_the_longest_untouched_user_is_forgotten() -> None:
    users = UserVectors(0.9, capacity=2)
    users.seed("ann", [1.0])
    users.seed("bob", [2.0])
    assert users.get("ann") is not None
    users.seed("cat", [3.0])
    assert users.get("bob") is None
    users.observe("ann", [1.0])
    users.seed("dan", [4.0])
    assert users.get("cat") is None
    assert users.get("ann") == pytest.approx([1.9])
    assert len(users) == 2


def test_what_was_read_does_not_change() -> None:
    users = UserVectors(0.5)
    given_vector = np.ones(2, np.float32)
    users.seed("ann", given_vector)
    given_vector[:] = 7
    before = users.get("ann")
    assert before is not None
    users.observe("ann", [1.0, 0.0])
    assert before.tolist() == [1, 1]
    with pytest.raises(ValueError, match="read-only"):
        before[0] = 2


def test_no_event_is_lost_between_threads() -> None:
    users = UserVectors(1.0, capacity=10)
    users.seed("ann", [0.0])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: users.observe("ann", [1.0]), range(2_000)))
    assert users.get("ann") == pytest.approx([2_000])


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.01, float("nan")])
def test_decay_outside_its_range(decay: float) -> None:
    with pytest.raises(InvalidOption, match="decay"):
        interest_vector([[1.0]], decay)
    with pytest.raises(InvalidOption, match="decay"):
        UserVectors(decay)


def test_shapes_and_capacity_that_do_not_fit() -> None:
    with pytest.raises(InvalidOption, match="capacity=0"):
        UserVectors(0.9, capacity=0)
    with pytest.raises(InvalidVectors, match="items, dimensions"):
        interest_vector([1.0, 2.0], 0.9)
    users = UserVectors(0.9)
    users.seed("ann", [1.0, 2.0])
    with pytest.raises(InvalidVectors, match="'ann'"):
        users.observe("ann", [1.0])
