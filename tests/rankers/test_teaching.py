"""Nobody teaches rows that they were trained on, and a run that was cut off asks nobody twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.rankers import (
    DCNRanker,
    InvalidTraining,
    LightGBMRanker,
    RankerManifest,
    RankingData,
    learns_from_teacher,
    taught_by,
    taught_out_of_fold,
)

KNOWN, UNKNOWN = 0.875, 0.25
TREES: dict[str, Any] = {
    "use": "lightgbm", "objective": "binary", "rounds": 8, "num_threads": 1, "num_leaves": 7,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """What it says."""

    known: float = KNOWN
    """Of values that it has seen."""


class Memory:
    """Tells the values of its first column that it was trained on from all others."""

    Options: ClassVar = MemoryOptions

    def __init__(self, seen: Iterable[float], options: MemoryOptions) -> None:
        self.seen, self.options = np.array(sorted(seen)), options
        self.manifest = RankerManifest.of(b"", name="memory", objective="memory", feature_names=("value",))

    @classmethod
    def fit(cls, data: RankingData, *, options: MemoryOptions | None = None, **_: Any) -> Memory:
        return cls(set(data.features[:, 0].tolist()), options or MemoryOptions())

    def check(self, names: Any) -> None:
        self.manifest.check(names)

    def score(self, features: Any) -> np.ndarray:
        return np.where(np.isin(features[:, 0], self.seen), self.options.known, UNKNOWN)


def of_values(values: list[list[float]], users: list[str] | None = None) -> RankingData:
    """Return a request for each list, a row for each value, of which the first is liked."""
    return RankingData(
        features=np.concatenate(values)[:, None],
        feature_names=("value",),
        labels=np.concatenate([[1.0, *np.zeros(len(each) - 1)] for each in values]),
        groups=[len(each) for each in values],
        user_ids=users,
    )


def said(data: RankingData, **options: Any) -> list[float]:
    return taught_out_of_fold({"use": Memory}, data, folds=2, **options).teacher["label"].tolist()


def test_who_teaches_a_row_was_not_trained_on_its_request() -> None:
    alone = of_values([[1, 2], [3, 4], [5, 6, 7], [8, 9]])

    assert said(alone) == [UNKNOWN] * 9
    assert taught_by(Memory.fit(alone), alone).teacher["label"].tolist() == [KNOWN] * 9  # as it should not be
    # What two of four requests have in common, one fold at least tells the other of, unless they are in the same.
    shared = [said(of_values([[1, 2], [1, 4], [5, 6], [8, 9]]), seed=seed) for seed in range(8)]
    assert {tuple(each) for each in shared} == {
        (UNKNOWN,) * 8,
        (KNOWN, UNKNOWN, KNOWN, *(UNKNOWN,) * 5),
    }


def test_who_teaches_a_row_was_not_trained_on_its_user() -> None:
    values = [[1, 2], [1, 4], [5, 6], [8, 9]]
    data = of_values(values, users=["ann", "ann", "bob", "cat"])

    assert {tuple(said(data, seed=seed)) for seed in range(8)} == {(UNKNOWN,) * 8}


def test_nobody_is_trained_on_rows_without_a_label_and_these_have_the_teachers_word_alone() -> None:
    data = of_values([[1, 2], [3, 2], [1, 2], [3, 2]], users=["ann", "bob", "ann", "bob"])
    second = np.array([False, True] * 4)

    assert said(data) == [UNKNOWN, KNOWN] * 4
    taught = taught_out_of_fold({"use": Memory}, data, folds=2, unlabelled=second)
    assert taught.teacher["label"].tolist() == [UNKNOWN] * 8
    np.testing.assert_array_equal(taught.labels, [1, np.nan] * 4)
    np.testing.assert_array_equal(data.labels, [1, 0] * 4)
    # What a row without a label is labelled until then makes no difference.
    other = replace(data, labels=np.where(second, 1.0, data.labels))
    again = taught_out_of_fold({"use": Memory}, other, folds=2, unlabelled=second)
    np.testing.assert_array_equal(again.labels, taught.labels)


def test_a_teacher_that_learns_by_heart_is_asked_about_others() -> None:
    """Labels are noise: who has seen them tells them apart, and who has not does not."""
    random = np.random.default_rng(3)
    noise = RankingData(
        features=random.standard_normal((600, 4)),
        feature_names=tuple("abcd"),
        labels=random.random(600) < 0.5,
    )
    by_heart = {**TREES, "rounds": 30, "min_data_in_leaf": 3, "learning_rate": 0.3, "lambda_l2": 0.0}

    def gap(taught: RankingData) -> float:
        told = taught.teacher["label"]
        return float(told[noise.labels == 1].mean() - told[noise.labels == 0].mean())

    options = LightGBMRanker.Options(**{name: value for name, value in by_heart.items() if name != "use"})
    assert gap(taught_by(LightGBMRanker.fit(noise, options=options), noise)) > 0.2
    assert abs(gap(taught_out_of_fold(by_heart, noise, folds=3))) < 0.05


# ---- runs that are cut off ------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


def test_a_run_that_was_cut_off_asks_nobody_twice(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    features = random.standard_normal((400, 3))
    data = RankingData(
        features=features,
        feature_names=tuple("abc"),
        labels=features[:, 0] + random.standard_normal(400) > 0,
        groups=np.full(40, 10),
    )
    whole: list[tuple[int, int]] = []
    wanted = taught_out_of_fold(TREES, data, folds=4, progress=lambda *steps: whole.append(steps))
    assert whole[-1] == (400, 400)

    def interrupt(done: int, total: int) -> None:
        if done > 0.6 * total:
            raise Interrupted

    with pytest.raises(Interrupted):
        taught_out_of_fold(TREES, data, folds=4, progress=interrupt, checkpoint=tmp_path)
    rest: list[tuple[int, int]] = []
    taught = taught_out_of_fold(
        TREES, data, folds=4, progress=lambda *steps: rest.append(steps), checkpoint=tmp_path
    )

    np.testing.assert_array_equal(taught.teacher["label"], wanted.teacher["label"])
    assert len(rest) < len(whole)
    with pytest.raises(InvalidTraining, match="other data, options or seed"):
        taught_out_of_fold(TREES, data, folds=4, unlabelled=np.arange(400) < 5, checkpoint=tmp_path)


# ---- refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (
            {"use": Memory, "known": 1.5},
            {"folds": 2},
            r"'Memory'.*0.25 to 1.5.*no probabilities.*`use: calib",
        ),
        ({"use": Memory, "knwon": 1.5}, {}, "no option 'knwon'.*Did you mean 'known'"),
        ({"use": "lightgmb"}, {}, "No ranker is called 'lightgmb'.*Did you mean 'lightgbm'"),
        ({"objective": "binary"}, {}, "does not say what ranker it is"),
        ({"use": Memory}, {"folds": 1}, "two parts are the least"),
        ({"use": Memory}, {"folds": 3}, "cannot be cut into 3 folds"),
        (
            {"use": Memory},
            {"unlabelled": np.zeros(3, bool)},
            r"\(3,\).*for 8 training rows.*one bool per row",
        ),
        ({"use": Memory}, {"unlabelled": np.zeros(8)}, "float64 for 8 training rows"),
    ],
)
def test_who_cannot_teach_is_refused(teacher: dict[str, Any], options: dict[str, Any], message: str) -> None:
    data = of_values([[1, 2], [1, 4], [5, 6], [8, 9]])
    with pytest.raises(InvalidTraining, match=message):
        taught_out_of_fold(teacher, data, **options)


def test_who_reads_what_a_teacher_says_declares_it() -> None:
    assert learns_from_teacher(DCNRanker)
    assert not learns_from_teacher(LightGBMRanker)


# ---- rows of requests -----------------------------------------------------------------------------------


@given(st.data())
def test_kept_rows_stay_with_their_request(drawn: st.DataObject) -> None:
    sizes = drawn.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    kept = np.array(drawn.draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes))))
    whose = np.repeat(np.arange(len(sizes)), sizes)
    data = RankingData(
        features=np.arange(sum(sizes))[:, None],
        feature_names=("row",),
        labels=np.arange(sum(sizes)),
        groups=sizes,
        item_ids=[f"i{row}" for row in range(sum(sizes))],
        histories=[(f"h{request}",) for request in range(len(sizes))],
        user_ids=[f"u{request}" for request in range(len(sizes))],
    )

    some = data.take_rows(kept)

    assert some.labels.tolist() == np.flatnonzero(kept).tolist() == some.features[:, 0].tolist()
    assert some.item_ids is not None
    assert some.item_ids.tolist() == [f"i{row}" for row in np.flatnonzero(kept)]
    assert some.user_ids is not None
    assert some.histories is not None
    found = [(some.user_ids[request], some.histories[request]) for request in some.request_of.tolist()]
    assert found == [(f"u{request}", (f"h{request}",)) for request in whose[kept].tolist()]
