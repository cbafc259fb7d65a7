"""What was found is put in order as a sort would, with whatever similarities."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from explorank.retrieval._nearest_first import nearest_first

FLOATS = st.floats(width=32, allow_nan=False)


def test_in_falling_order_and_the_first_of_equals_first() -> None:
    similarities = np.array([0.5, -1.0, np.inf, 0.0, -np.inf, 0.5, -0.25, 1e-40], np.float32)
    found, labels = nearest_first(similarities, np.arange(10, 18), 8)
    assert labels.tolist() == [12, 10, 15, 17, 13, 16, 11, 14]
    assert found.tolist() == similarities[labels - 10].tolist()


def test_none_of_none_and_none_of_some() -> None:
    for count in (0, 3):
        found, labels = nearest_first(np.ones(count, np.float32), np.arange(count), 0)
        assert (found.dtype, found.shape, labels.dtype, labels.shape) == (np.float32, (0,), np.int64, (0,))


@given(data=st.data(), similarities=arrays(np.float32, st.integers(1, 200), elements=FLOATS))
def test_as_a_stable_sort_does(data: st.DataObject, similarities: np.ndarray) -> None:
    k = data.draw(st.integers(1, len(similarities)))
    labels = np.random.default_rng(0).permutation(len(similarities))
    by_value = np.argsort(-similarities, kind="stable")
    found, named = nearest_first(similarities, labels, k)
    np.testing.assert_array_equal(found, similarities[by_value[:k]])
    apart = similarities != 0  # the two zeros are equal to a sort, and one digit apart here
    if apart.all():
        np.testing.assert_array_equal(named, labels[by_value[:k]])
