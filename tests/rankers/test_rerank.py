"""The best by one ranker are put in another's order; what that does to scores is told by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from explorank.rankers import (
    Explanation,
    InvalidTraining,
    RankerManifest,
    RankingData,
    Rerank,
    RerankOptions,
    reads_texts,
    score_data,
)


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    column: str = "quick"


class Column:
    """Scores by a column of the data, times ten where it is `slow`, and notes how many rows it is asked about."""

    Options: ClassVar = ColumnOptions
    asked: ClassVar[list[int]] = []

    def __init__(self, column: str) -> None:
        self.column = column
        self.manifest = RankerManifest.of(
            column.encode(), name=f"by_{column}", objective="column", feature_names=(column,)
        )

    @classmethod
    def fit(cls, data, *, valid=None, options=None, seed=0, progress=None, checkpoint=None):
        return cls(options.column)

    def check(self, names):
        self.manifest.check(names)

    def score(self, features):
        if self.column == "slow":
            self.asked.append(len(features))
        return features[:, 0].astype(np.float64) * (10.0 if self.column == "slow" else 1.0)

    def explain(self, features):
        parts = self.score(features)[:, None]
        return Explanation(
            feature_names=(self.column,), attributions=parts, base=np.zeros(len(parts)), method=self.column
        )

    def save(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)


class Titled(Column):
    """Scores by how long the item's text is, in the stead of its column."""

    reads_texts = True
    id_columns = ("length",)

    def __init__(self, column: str, texts: Mapping[str, str]) -> None:
        super().__init__(column)
        self.manifest = replace(self.manifest, feature_names=("length",))
        self.texts = texts

    @classmethod
    def fit(cls, data, *, valid=None, options=None, seed=0, progress=None, checkpoint=None):
        return cls(options.column, data.item_texts)

    def with_item_texts(self, texts):
        return Titled(self.column, {**self.texts, **texts})

    def read_ids(self, item_ids, history):
        return np.array([[len(self.texts.get(item, ""))] for item in item_ids], np.float32)


QUICK, SLOW = {"use": Column, "column": "quick"}, {"use": Column, "column": "slow"}


def reranked(top: int) -> Rerank:
    data = RankingData(features=np.eye(2), feature_names=("quick", "slow"), labels=[0, 1])
    return Rerank.fit(data, options=RerankOptions(first=QUICK, then=SLOW, top=top))


def rows(quick: list[float], slow: list[float]) -> Any:
    return np.column_stack([quick, slow]).astype(np.float32)


def test_the_best_are_dealt_out_again_and_the_others_stay() -> None:
    features = rows([0.1, 0.9, 0.5, 0.7, 0.3], [5, 1, 2, 3, 4])
    ranker = reranked(top=3)
    Column.asked.clear()
    # 0.9, 0.7 and 0.5 go to rows 3, 2 and 1, which is the second ranker's order.
    np.testing.assert_allclose(ranker.score(features), [0.1, 0.5, 0.7, 0.9, 0.3], rtol=1e-6)
    assert Column.asked == [3]
    np.testing.assert_array_equal(ranker.score_cheaply(features), features[:, 0].astype(np.float64))
    assert Column.asked == [3]
    assert ranker.cheaper_way == "by_quick alone, without by_slow"


def test_a_short_list_is_ordered_whole() -> None:
    np.testing.assert_allclose(reranked(top=9).score(rows([1, 2, 3], [3, 2, 1])), [3, 2, 1])
    np.testing.assert_array_equal(reranked(top=9).score(rows([4], [1])), [4])


def test_what_the_first_finds_equal_the_second_tells_apart() -> None:
    scores = reranked(top=4).score(rows([1, 1, 1, 1, 0], [2, 4, 1, 3, 9]))
    assert np.argsort(-scores).tolist() == [1, 3, 0, 2, 4]
    np.testing.assert_allclose(scores, [1, 1, 1, 1, 0])


def test_equals_across_the_border_are_left_where_they_are() -> None:
    """Of three equals two would be within the top, and which ones would hang on the order of rows."""
    features = rows([3, 1, 1, 1, 2], [1, 9, 8, 7, 2])
    np.testing.assert_allclose(reranked(top=4).score(features), [2, 1, 1, 1, 3])
    Column.asked.clear()
    np.testing.assert_array_equal(reranked(top=2).score(rows([1, 1, 1], [3, 1, 2])), [1, 1, 1])
    assert Column.asked == []


def test_what_the_second_finds_equal_scores_the_same() -> None:
    np.testing.assert_allclose(reranked(top=3).score(rows([1, 2, 3], [5, 5, 1])), [3, 3, 1])


def test_the_top_is_explained_by_who_ordered_it() -> None:
    features = rows([0.1, 0.9, 0.5, 0.7, 0.3], [5, 1, 2, 3, 4])
    ranker = reranked(top=3)
    explained = ranker.explain(features)
    np.testing.assert_allclose(explained.scores, ranker.score(features), atol=1e-12)
    quick, slow = explained.attributions.T
    assert (quick[[1, 2, 3]] == 0).all()
    assert (slow[[0, 4]] == 0).all()
    np.testing.assert_allclose(quick[[0, 4]], [0.1, 0.3], rtol=1e-6)
    # The base, 0, is below all of the second's scores: it stands at the lowest place, 0.5.
    np.testing.assert_allclose(explained.base[[1, 2, 3]], 0.5, rtol=1e-6)
    np.testing.assert_allclose(slow[[1, 2, 3]], [0.0, 0.2, 0.4], atol=1e-6)
    assert explained.method == "quick and slow+rescale"


def test_each_request_has_a_top_of_its_own() -> None:
    data = RankingData(
        features=rows([1, 2, 3, 6, 5, 4], [3, 2, 1, 1, 2, 3]),
        feature_names=("quick", "slow"),
        labels=[0, 1, 0, 0, 1, 0],
        groups=[3, 3],
    )
    np.testing.assert_allclose(score_data(reranked(top=2), data), [1, 3, 2, 5, 6, 4])


def test_what_items_are_called_is_told_to_whom_reads_it() -> None:
    data = RankingData(
        features=np.array([[1.0], [2.0], [3.0]]), feature_names=("quick",), labels=[0, 1, 0], groups=[3],
        item_ids=["a", "b", "c"], item_texts={"a": "long", "b": "short one"},
    )  # fmt: skip
    titled = {"use": Titled, "column": "slow"}
    ranker = Rerank.fit(data, options=RerankOptions(first=QUICK, then=titled, top=3))
    assert reads_texts(ranker)
    assert not reads_texts(reranked(top=2))
    np.testing.assert_allclose(score_data(ranker, data), [2, 3, 1])
    # What the data call an item goes before what it was called in training, for these scores alone.
    renamed = replace(data, item_texts={"c": "by far the longest", "a": ""})
    np.testing.assert_allclose(score_data(ranker, renamed), [1, 2, 3])
    np.testing.assert_allclose(score_data(ranker, replace(data, item_texts={})), [2, 3, 1])


def test_a_top_of_one_is_refused() -> None:
    with pytest.raises(InvalidTraining, match="top=1 leaves nothing to order"):
        RerankOptions(top=1)
