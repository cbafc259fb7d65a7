"""For whom a ranker does well: segments that need no column of the users, by hand."""

from __future__ import annotations

import math

import numpy as np

from explorank.pipeline.segments import by_popularity
from explorank.rankers import RankingData


def test_liked_items_of_a_third_compete_with_what_nobody_liked_alone() -> None:
    # Request 0: liked items with 1 and 9 events, at places 3 and 1. Request 1: one with 5 events, at place 2.
    later = RankingData(
        features=np.zeros((6, 0), np.float32),
        feature_names=(),
        labels=[1, 0, 1, 0, 1, 0],
        groups=[3, 3],
    )
    scores = np.array([1.0, 2.0, 3.0, 9.0, 5.0, 0.0])
    popularity = np.array([1, 7, 9, 7, 5, 7])
    found = {
        one.value: one for one in by_popularity(later, scores, popularity, np.array(["ann", "ben"]), seed=0)
    }

    assert list(found) == ["least popular third", "middle third", "most popular third"]
    assert {(one.by, one.requests, one.users) for one in found.values()} == {("item popularity", 1, 1)}
    # The most popular one, which stands above the least popular one, is left out where the latter counts.
    assert found["least popular third"].ndcg_at_10.mean == 1 / math.log2(3)
    assert found["middle third"].ndcg_at_10.mean == 1 / math.log2(3)
    assert found["most popular third"].ndcg_at_10.mean == 1.0


def test_items_that_are_all_as_popular_make_one_segment() -> None:
    later = RankingData(
        features=np.zeros((4, 0), np.float32), feature_names=(), labels=[1, 0, 0, 1], groups=[2, 2]
    )
    (only,) = by_popularity(later, np.arange(4.0), np.full(4, 3), np.array(["ann", "ann"]), seed=0)

    assert (only.requests, only.users) == (2, 1)
