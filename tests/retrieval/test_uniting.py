"""The union by rows, against plain Python that does the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval import unite

SCORE = st.just(float("nan")) | st.floats(-2, 2, width=32)
PART = st.lists(st.tuples(st.integers(0, 9) | st.integers(0, 2**40), SCORE), max_size=12)


@given(st.lists(PART, max_size=6))
def test_a_union_has_every_row_once_with_all_its_parts_and_its_best_score(
    parts: list[list[tuple[int, float]]],
) -> None:
    found: dict[int, set[int]] = {}
    best: dict[int, float] = {}
    for number, part in enumerate(parts):
        for row, score in part:
            found.setdefault(row, set()).add(number)
            best[row] = float(np.fmax(best.get(row, np.nan), score))
    united = unite(
        [
            (np.array([row for row, _ in part], np.int64), np.array([score for _, score in part], np.float32))
            for part in parts
        ]
    )
    assert united.rows.tolist() == list(found)
    assert [{j for j in range(len(parts)) if bits >> j & 1} for bits in united.sources.tolist()] == list(
        found.values()
    )
    np.testing.assert_array_equal(united.scores, np.array(list(best.values()), np.float32))
