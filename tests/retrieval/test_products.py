"""Products with single rows: of any dimension, count and order, -1 among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval._products import products


@pytest.mark.parametrize("dim", [1, 64, 128, 129, 144, 300, 384, 1_024])
def test_each_row_s_product_and_nan_for_none(dim: int) -> None:
    rng = np.random.default_rng(dim)
    vectors, query = rng.standard_normal((50, dim), np.float32), rng.standard_normal(dim, np.float32)
    for count in range(18):
        rows = rng.integers(-1, 50, count)
        found = np.empty(count, np.float32)
        products(vectors, rows, query, found)
        wanted = np.where(rows < 0, np.nan, vectors.astype(np.float64)[rows] @ query)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


@given(rows=st.lists(st.integers(-1, 6), max_size=30))
def test_a_product_is_the_same_to_the_bit_wherever_its_row_stands(rows: list[int]) -> None:
    rng = np.random.default_rng(0)
    vectors, query = rng.standard_normal((7, 200), np.float32), rng.standard_normal(200, np.float32)
    alone = np.empty(8, np.float32)
    products(vectors, np.arange(-1, 7), query, alone)
    found = np.empty(len(rows), np.float32)
    products(vectors, np.array(rows, np.int64), query, found)
    np.testing.assert_array_equal(found, alone[np.array(rows, np.int64) + 1])


def test_of_no_vectors_every_product_is_nan() -> None:
    found = np.zeros(2, np.float32)
    products(np.empty((0, 3), np.float32), np.array([-1, -1]), np.ones(3, np.float32), found)
    assert np.isnan(found).all()
