"""Columns of users as a network reads them: by hand, and whatever they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from explorank.retrieval import InvalidVectors, UserFeatures
from explorank.retrieval.collaborative.two_tower.user_encoding import UNKNOWN, UserEncoding

NAN = np.float32(np.nan)
NAMES = ("age", "town", "visits")
TOLD = UserFeatures(
    NAMES,
    np.array(
        [[20, 0, 3], [40, 0, 3], [NAN, 0, 3], [20, 0, 3], [40, 0, 3], [20, 7, 3], [40, NAN, 3]], np.float32
    ),
    frozenset({"town"}),
)
"""Ages are 30 ± 10, all visit alike, and five users live in town 0."""
ENCODING = UserEncoding.fit(TOLD, np.arange(7))


def test_the_numbers_by_hand() -> None:
    #           age visits, missing each, town 0, another, missing
    expected = [
        [1.5, 0, 0, 0, 1, 0, 0],
        [0.0, 0, 1, 1, 0, 0, 1],
        [5.0, 0, 0, 0, 0, 1, 0],  # cut at five deviations; a constant tells nothing
        [0.0, 0, 1, 1, 0, 1, 0],
        [-3.0, 0, 0, 0, 0, 1, 0],
    ]
    values = [[45, 0, 3], [NAN, NAN, NAN], [1e9, 7, 99], [np.inf, 8, -np.inf], [0, UNKNOWN, 3]]

    assert ENCODING.width == 7
    np.testing.assert_allclose(ENCODING.encode(np.array(values, np.float32)), expected, atol=1e-6)
    np.testing.assert_array_equal(ENCODING.nothing_known(2), [expected[1]] * 2)


def test_columns_are_found_by_name_and_absent_ones_are_missing() -> None:
    stored = UserFeatures(("visits", "other", "age"), np.array([3, 8, 45], np.float32))
    np.testing.assert_array_equal(ENCODING.read(stored), [[45, NAN, 3]])
    np.testing.assert_array_equal(ENCODING.read(TOLD), TOLD.values)
    np.testing.assert_array_equal(ENCODING.read(stored), [[45, NAN, 3]])
    np.testing.assert_array_equal(ENCODING.read(UserFeatures((), np.empty(0, np.float32))), [[NAN] * 3])


def test_a_category_counts_by_itself_for_five_users_not_five_events() -> None:
    one_user = UserEncoding.fit(TOLD, np.array([0, 0, 0, 1, 1, 2, 3]))
    assert one_user.width == ENCODING.width - 1
    many = UserFeatures(("town",), np.repeat(np.arange(150), 5)[:, None].astype(np.float32), {"town"})
    assert UserEncoding.fit(many, np.arange(750)).width == 102


def test_what_nobody_had_tells_nothing() -> None:
    nothing = UserFeatures(NAMES, np.full((4, 3), NAN), {"town"})
    encoding = UserEncoding.fit(nothing, np.arange(4))
    np.testing.assert_array_equal(encoding.encode(np.array([[40, 2, 1]], np.float32)), [[0, 0, 0, 0, 1, 0]])


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(0, 6), st.just(3)), elements=st.floats(width=32)),
    st.integers(0, 2**32 - 1),
)
def test_whatever_comes_is_finite_and_of_one_category(values: np.ndarray, seed: int) -> None:
    encoded = ENCODING.encode(values)
    assert np.isfinite(encoded).all()
    assert np.abs(encoded).max(initial=0.0) <= 5.0
    assert (encoded[:, 4:].sum(axis=1) == 1).all()
    kept = UserEncoding.of_arrays(ENCODING.arrays)
    np.testing.assert_array_equal(kept.encode(values), encoded)
    hidden = ENCODING.hide(values, 0.5, np.random.default_rng(seed))
    same = (hidden == values) | np.isnan(hidden)
    same[:, 1] |= hidden[:, 1] == UNKNOWN
    assert same.all()


def test_a_share_of_users_and_of_columns_is_hidden_and_of_categories_half_are_unknown() -> None:
    values = np.ones((20_000, 3), np.float32)
    hidden = ENCODING.hide(values, 0.2, np.random.default_rng(0))
    # A fifth of the users, and of the rest a fifth of the amounts, a tenth of the categories.
    assert np.isnan(hidden).mean(axis=0) == pytest.approx([0.36, 0.28, 0.36], abs=0.01)
    assert np.isnan(hidden).all(axis=1).mean() == pytest.approx(0.2 + 0.8 * 0.2 * 0.1 * 0.2, abs=0.01)
    assert (hidden == UNKNOWN).mean(axis=0) == pytest.approx([0, 0.08, 0], abs=0.01)
    assert (values == 1).all()


def test_names_and_columns_must_fit() -> None:
    with pytest.raises(InvalidVectors, match=r"shape \(2,\) for the 3 names"):
        UserFeatures(NAMES, np.zeros(2, np.float32))
    assert not UserFeatures(("a", "b"), np.array([1, NAN])).tell_any(("b", "c"))
    assert UserFeatures(("a", "b"), np.array([1, NAN])).tell_any(("a",))
