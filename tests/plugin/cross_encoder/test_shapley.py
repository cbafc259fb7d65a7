"""Shapley values of games whose answer can be told by hand."""

from __future__ import annotations

import numpy as np

from explorank.cross_encoder.shapley import coalitions, shapley_values


def test_coalitions_are_told_by_bits() -> None:
    assert coalitions(2).tolist() == [[False, False], [True, False], [False, True], [True, True]]


def test_who_adds_the_same_to_all_gets_that() -> None:
    gains = np.array([3.0, -1.0, 0.5])
    values = shapley_values((5.0 + coalitions(3) @ gains)[None])
    np.testing.assert_allclose(values, [gains])


def test_a_pair_that_gains_together_shares() -> None:
    """A left and a right glove are worth 1: with two left ones, they get 1/6 each and the right one 2/3."""
    left, other_left, right = coalitions(3).T
    values = shapley_values((right & (left | other_left)).astype(np.float64)[None])
    np.testing.assert_allclose(values, [[1 / 6, 1 / 6, 2 / 3]])


def test_rows_sum_to_what_all_reach() -> None:
    worths = np.random.default_rng(1).standard_normal((4, 32))
    np.testing.assert_allclose(shapley_values(worths).sum(axis=1), worths[:, -1] - worths[:, 0])
