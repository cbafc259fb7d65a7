"""What networks read: places of categories in a table, codes of items, heads that make one score."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as their_log_loss
from sklearn.metrics import ndcg_score

from explorank.rankers import (
    DCNOptions,
    InvalidTraining,
    RankingData,
    SequenceOptions,
    TaskOptions,
    TrainingOptions,
)
from explorank.rankers.neural.columns import ColumnLayout
from explorank.rankers.neural.items import ItemVocabulary, history_columns
from explorank.rankers.neural.judging import Judge
from explorank.rankers.neural.metrics import log_loss, ndcg
from explorank.rankers.neural.tasks import Tasks

nan = np.nan


def test_each_category_has_a_place_of_its_own_and_strangers_share_one() -> None:
    features = np.array([[1, 7, 5], [2, 7, 5], [3, 9, 6], [4, nan, 5], [5, 9, nan]], np.float32)
    layout = ColumnLayout.of(features, ("x", "k", "m"), ("k", "m"), min_count=2)
    # Of k: unknown 0, missing 1, 7 at 2, 9 at 3. Of m: unknown 4, missing 5, 5 at 6; 6 was seen once.
    assert layout.table_rows == 7
    assert layout.table_places(features).tolist() == [[2, 6], [2, 6], [3, 4], [1, 6], [3, 5]]
    strange = np.array([[0, 8, 1e9], [0, -np.inf, np.inf]], np.float32)
    assert layout.table_places(strange).tolist() == [[0, 4], [0, 4]]
    assert layout.numbers(features).tolist() == [[1], [2], [3], [4], [5]]
    assert layout.table_places(features[:0]).shape == (0, 2)


def test_a_column_of_which_nothing_is_known_still_has_places() -> None:
    features = np.full((4, 1), nan, np.float32)
    layout = ColumnLayout.of(features, ("k",), ("k",), min_count=1)
    assert layout.table_places(np.array([[nan], [3]], np.float32)).tolist() == [[1], [0]]


@given(st.lists(st.lists(st.sampled_from("abcdexyz"), max_size=7), max_size=5), st.integers(1, 4))
def test_histories_keep_the_latest_known_items(histories: list[list[str]], length: int) -> None:
    vocabulary = ItemVocabulary.of("abcde", min_count=1)
    codes = {letter: place for place, letter in enumerate("abcde", start=1)}
    expected = []
    for history in histories:
        known = [codes[one] for one in history if one in codes][-length:]
        expected.append([0] * (length - len(known)) + known)
    assert vocabulary.histories(histories, length).tolist() == expected


def test_items_that_are_seldom_or_new_have_no_code() -> None:
    vocabulary = ItemVocabulary.of(["b", "a", "b", "a", "c"], min_count=2)
    assert vocabulary.ids.tolist() == ["a", "b"]
    assert vocabulary.codes(["a", "b", "c", "bb", ""]).tolist() == [1, 2, 0, 0, 0]
    assert ItemVocabulary.of([], 1).codes(["a"]).tolist() == [0]
    assert history_columns(3) == ("history_01", "history_02", "history_03")
    assert history_columns(100)[0] == "history_001"


def with_outcomes(**outcomes: list[float]) -> RankingData:
    return RankingData(
        features=np.zeros((4, 1)), feature_names=("x",), labels=np.array([0.0, 1, 1, 1]), outcomes=outcomes
    )


def test_in_the_entire_space_a_head_is_a_product_and_the_score_a_weighted_sum() -> None:
    data = with_outcomes(buys=[nan, 0, 1, 0], pays=[0, 10, 20, 30])
    options = TaskOptions(
        outcomes=("buys", "pays"), entire_space="buys", score={"label": 1, "buys": 2, "pays": 0.1}
    )
    tasks = Tasks.from_json(json.loads(json.dumps(Tasks.of(data, "binary", options).to_json())))
    outputs = np.array([[0.0, 0.0, 0.0], [np.log(3), -np.log(3), 1.0]], np.float32)
    pays = [15.0, 15 + np.std([0, 10, 20, 30])]
    expected = [[0.5, 0.25, pays[0]], [0.75, 0.75 * 0.25, pays[1]]]
    assert tasks.values(outputs) == pytest.approx(np.array(expected), rel=1e-6)
    assert tasks.score(outputs) == pytest.approx(np.array(expected) @ [1, 2, 0.1], rel=1e-6)
    assert tasks.link == "identity"
    assert Tasks.of(data, "binary", TaskOptions()).link == "logistic"


def judged(
    score: dict[str, float], *, objective: Any = "binary", entire_space: str = "", groups: bool = True
) -> Judge:
    """Five rows of two requests; what they pay is unknown of the first."""
    data = RankingData(
        features=np.zeros((5, 1)),
        feature_names=("x",),
        labels=np.array([0.0, 1, 1, 1, 0]),
        outcomes={"buys": [nan, 0, 1, 0, 1], "pays": [nan, -3, 6, 2, 1]},
        groups=np.array([3, 2]) if groups else None,
        weights=np.array([1.0, 1, 2, 1, 1]),
        called="validation",
    )
    options = TaskOptions(outcomes=("buys", "pays"), entire_space=entire_space, score=score)
    return Judge.of(Tasks.of(data, objective, options), data)


def test_a_network_is_judged_by_the_outcome_that_serves() -> None:
    label, buys, both = judged({"label": 1}), judged({"buys": 1}), judged({"label": 1, "pays": 0.5})
    assert label.truth.tolist() == [0, 1, 1, 1, 0]
    assert (buys.rows.tolist(), buys.truth.tolist()) == ([1, 2, 3, 4], [0, 1, 0, 1])
    assert buys.groups is not None
    assert buys.groups.tolist() == [2, 2]
    # Of the entire space nothing follows on a label of 0, whatever the log says.
    assert judged({"buys": 1}, entire_space="buys").truth.tolist() == [0, 0, 1, 0, 0]
    assert both.truth.tolist() == [-0.5, 4.0, 2.0, 0.5]

    # Places are by the heads that serve alone: the label's output says the reverse.
    outputs = np.array([[9, 0, 0], [5, -1, 0], [1, 1, 0], [5, -1, 0], [1, 1, 0]], np.float32)
    assert buys.figure(outputs) == (1.0, {"ndcg@10": 1.0})
    # The gain of an amount is the amount itself, and 0 below: 4 stands second, 2 and 0.5 first and second.
    reached = both.ndcg_at_10(np.array([1.0, 0.0, 1.0, 0.0]))
    assert reached == pytest.approx((1 / np.log2(3) + 1.0) / 2)


def test_without_requests_a_probability_has_a_log_loss_and_an_amount_an_error() -> None:
    outputs = np.zeros((5, 3), np.float32)
    assert judged({"buys": 2}, groups=False).figure(outputs)[1] == {"log_loss": pytest.approx(np.log(2))}
    # The head's 0 stands for the mean of what was paid, 1.5; weights are 1, 2, 1 and 1.
    error = (4.5**2 + 2 * 4.5**2 + 0.5**2 + 0.5**2) / 5
    assert judged({"pays": 1}, groups=False).figure(outputs)[1] == {"squared_error": pytest.approx(error)}


def test_a_later_slice_that_knows_nothing_of_what_serves_is_refused() -> None:
    data = with_outcomes(buys=[0.0, 1, 1, 0])
    tasks = Tasks.of(data, "binary", TaskOptions(outcomes=("buys",), score={"buys": 1}))
    unknown = replace(data, outcomes={"buys": np.full(4, nan)}, called="validation")
    with pytest.raises(InvalidTraining, match=r"No row of the validation data knows all of 'buys'"):
        Judge.of(tasks, unknown)


def test_an_outcome_that_cannot_be_learnt_is_named() -> None:
    with pytest.raises(InvalidTraining, match="no outcome 'buys'"):
        Tasks.of(with_outcomes(), "binary", TaskOptions(outcomes=("buys",)))
    with pytest.raises(InvalidTraining, match=r"'buys' .* holds \[1.0\] alone"):
        Tasks.of(with_outcomes(buys=[1, 1, nan, 1]), "binary", TaskOptions(outcomes=("buys",)))
    with pytest.raises(InvalidTraining, match="foreseen as a probability"):
        Tasks.of(
            with_outcomes(buys=[1, 2, 0, 1]), "binary", TaskOptions(outcomes=("buys",), entire_space="buys")
        )


@given(st.integers(0, 2**32 - 1))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(2, 15, 6)
    labels, scores = rng.integers(0, 3, groups.sum()).astype(float), rng.permutation(groups.sum()) / 7.0
    starts = np.cumsum(groups) - groups
    parts = [slice(start, start + size) for start, size in zip(starts, groups, strict=True)]
    theirs = [
        ndcg_score([2 ** labels[part] - 1], [scores[part]], k=10) for part in parts if labels[part].max() > 0
    ]
    assert ndcg(scores, labels, groups) == pytest.approx(np.mean(theirs) if theirs else nan, nan_ok=True)
    likely, clicks = rng.random(20), np.r_[0.0, 1.0, rng.integers(0, 2, 18)]
    weights = rng.random(20) + 0.1
    assert log_loss(likely, clicks, weights) == pytest.approx(
        their_log_loss(clicks, likely, sample_weight=weights)
    )


def test_telling_nothing_apart_earns_no_credit_for_the_order_of_rows() -> None:
    labels = np.r_[1.0, np.zeros(10)]
    assert ndcg(np.zeros(11), labels, np.array([11])) == 0.0
    assert ndcg(np.r_[1.0, np.zeros(10)], labels, np.array([11])) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingOptions(epochs=0), "epochs=0 is below 1"),
        (lambda: TrainingOptions(epochs=1.5), "epochs=1.5 is no whole number"),  # type: ignore[arg-type] - on purpose
        (lambda: TrainingOptions(batch_rows=float("inf")), "batch_rows=inf is no whole number"),  # type: ignore[arg-type] - on purpose
        (lambda: SequenceOptions(layers=1.0), "layers=1.0 is no whole number"),  # type: ignore[arg-type] - on purpose
        (lambda: DCNOptions(hidden=(64, 0.5)), "no whole number above 0"),  # type: ignore[arg-type] - on purpose
        (lambda: TrainingOptions(learning_rate=0.0), "learning_rate=0.0 is not above 0"),
        (lambda: TrainingOptions(dropout=1.0), "dropout=1.0 is a share"),
        (lambda: TrainingOptions(device="tpu"), "device='tpu' is none of"),  # type: ignore[arg-type]
        (lambda: TaskOptions(outcomes=("label",)), "repeats a name"),
        (lambda: TaskOptions(score={"buys": 1.0}), "buys in `score`"),
        (lambda: TaskOptions(score={"label": 0.0}), "weighs nothing"),
        (lambda: DCNOptions(objective="auc"), "objective='auc' is none of"),  # type: ignore[arg-type]
        (lambda: DCNOptions(hidden=()), "names no layer"),
        (lambda: DCNOptions(tasks=TaskOptions(outcomes=("b",), entire_space="b")), "objective 'binary'"),
        (lambda: SequenceOptions(width=30, heads=4), "width=30 cannot be divided"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidTraining, match=message):
        make()
