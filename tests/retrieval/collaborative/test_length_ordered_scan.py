"""The scan by falling length: what a full product would say, whatever the lengths are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval import CorruptArtefact
from explorank.retrieval.collaborative._greatest_products import greatest_products
from explorank.retrieval.collaborative.length_ordered_scan import LengthOrderedScan


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    k=st.integers(0, 20),
    excluded=st.lists(st.integers(-1, 130), max_size=8),
    tail=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_it_equals_the_full_product(seed: int, count: int, k: int, excluded: list[int], tail: float) -> None:
    random = np.random.default_rng(seed)
    # Whole numbers, so that sums are exact and equal products are common.
    vectors = random.integers(-3, 4, (count, 3)) * np.ceil(random.random((count, 1)) ** -tail)
    vectors = np.minimum(vectors, 1_000.0)
    query = random.integers(-3, 4, 3).astype(np.float32)
    rows = random.permutation(120)[:count].astype(np.int64)

    found, products = LengthOrderedScan.build(vectors, rows).search(query, k, np.array(excluded, np.int64))

    wanted = sorted((-(vectors[at] @ query), row) for at, row in enumerate(rows) if row not in excluded)
    np.testing.assert_array_equal(-products, [product for product, _ in wanted[:k]])
    assert len(set(found.tolist())) == len(found)
    # Of those that equal the last one, any may be there.
    last = wanted[:k][-1][0] if wanted[:k] else 0
    assert [row for row, product in zip(found, products, strict=True) if -product < last] == [
        row for product, row in wanted[:k] if product < last
    ]


def test_it_ends_where_no_later_row_can_be_among_the_best() -> None:
    """Rows behind that end are never read: a greater product there, which their stated length denies, goes unseen."""
    vectors = np.array([[4, 0], [3, 0], [9, 0], [9, 0]], np.float32)
    lengths = np.array([4, 3, 2, 1], np.float32)

    positions, products = greatest_products(vectors, lengths, np.array([1, 0], np.float32), 2)

    assert sorted(zip(positions.tolist(), products.tolist(), strict=True)) == [(0, 4.0), (1, 3.0)]


def test_long_rows_that_point_elsewhere_do_not_end_it() -> None:
    vectors = np.array([[0, 9], [0, -8], [1, 0], [0.5, 0]])

    found, products = LengthOrderedScan.build(vectors, np.arange(4)).search(np.array([1, 0], np.float32), 2)

    assert found.tolist() == [2, 3]
    assert products.tolist() == [1.0, 0.5]


def test_saved_and_mapped(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    before = LengthOrderedScan.build(random.normal(size=(50, 4)), np.arange(50) * 2)
    before.save(tmp_path)
    after = LengthOrderedScan.load(tmp_path)

    query = random.normal(size=4).astype(np.float32)
    for one, other in zip(before.search(query, 9), after.search(query, 9), strict=True):
        np.testing.assert_array_equal(one, other)
    file = tmp_path / "lengths.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorruptArtefact, match=r"lengths\.npy is damaged"):
        LengthOrderedScan.load(tmp_path)
