"""What a teacher says of rows is learnt by the loss that learns from labels, and rows without a label by it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explorank.rankers import (
    Blend,
    BlendOptions,
    DCNOptions,
    DCNRanker,
    InvalidTraining,
    LightGBMOptions,
    LightGBMRanker,
    RankingData,
    TaskOptions,
    TrainingOptions,
    run_identity,
    taught_by,
)
from explorank.rankers.neural.batches import Batch
from explorank.rankers.neural.fitting import frame_of, new_training
from explorank.rankers.neural.losses import TaskLosses
from explorank.rankers.neural.tasks import Task, Tasks

nan = np.nan


def batch(
    labels: list[float],
    teacher: list[list[float]] | None = None,
    *,
    outcomes: list[list[float]] | None = None,
    weights: list[float] | None = None,
    sizes: tuple[int, ...] = (2, 3),
) -> Batch:
    """Return rows of two requests without features; `teacher` and `outcomes` have a list for each head."""
    n, longest = len(labels), max(sizes)
    slots = np.concatenate([place * longest + np.arange(size) for place, size in enumerate(sizes)])
    return Batch(
        numbers=torch.empty(n, 0),
        places=torch.empty(n, 0, dtype=torch.int64),
        labels=torch.tensor(labels, dtype=torch.float32),
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float32),
        outcomes=torch.empty(n, 0) if outcomes is None else torch.tensor(outcomes).T,
        teacher=None if teacher is None else torch.tensor(teacher).T,
        items=None,
        histories=None,
        requests=len(sizes),
        longest=longest,
        slots=torch.from_numpy(slots),
    )


def loss(kind: Any, outputs: list[float], rows: Batch, distillation: float = 0.5) -> float:
    tasks = Tasks((Task("label", kind),), (1.0,))
    return float(TaskLosses(tasks, "mean", distillation)(torch.tensor(outputs)[:, None], rows))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x)))


def cross_entropy(target: Any, logit: Any) -> Any:
    p = sigmoid(logit)
    return -(np.asarray(target) * np.log(p) + (1 - np.asarray(target)) * np.log(1 - p))


# ---- by hand --------------------------------------------------------------------------------------------

OUTPUTS = [0.3, -1.2, 0.5, 2.0, -0.4]


def test_a_probability_is_learnt_beside_what_came() -> None:
    rows = batch([1, 0, nan, 0, 1], [[0.7, nan, 0.2, nan, 0.9]])

    own = cross_entropy([1, 0, 0, 1], np.array(OUTPUTS)[[0, 1, 3, 4]]).mean()
    told = cross_entropy([0.7, 0.2, 0.9], np.array(OUTPUTS)[[0, 2, 4]]).mean()
    assert loss("binary", OUTPUTS, rows) == pytest.approx(own + 0.5 * told, rel=1e-5)
    assert loss("binary", OUTPUTS, rows, distillation=0.0) == pytest.approx(own, rel=1e-5)
    weighed = batch([1, 0, nan, 0, 1], [[0.7, nan, 0.2, nan, 0.9]], weights=[1, 2, 3, 4, 5])
    own = np.average(cross_entropy([1, 0, 0, 1], np.array(OUTPUTS)[[0, 1, 3, 4]]), weights=[1, 2, 4, 5])
    told = np.average(cross_entropy([0.7, 0.2, 0.9], np.array(OUTPUTS)[[0, 2, 4]]), weights=[1, 3, 5])
    assert loss("binary", OUTPUTS, weighed) == pytest.approx(own + 0.5 * told, rel=1e-5)


def test_probabilities_are_gains_within_requests() -> None:
    # The first request has no gain of its own; in the second one row is known to the teacher alone.
    rows = batch([0, 0, 1, nan, 0], [[0.1, 0.3, nan, 0.6, 0.2]])

    def shares(*logits: float) -> Any:
        return np.log(np.exp(logits) / np.exp(logits).sum())

    own = -shares(0.5, -0.4)[0]
    first = -(0.25 * shares(0.3, -1.2)[0] + 0.75 * shares(0.3, -1.2)[1])
    second = -(0.75 * shares(2.0, -0.4)[0] + 0.25 * shares(2.0, -0.4)[1])
    assert loss("listwise", OUTPUTS, rows) == pytest.approx(own + 0.5 * (first + second) / 2, rel=1e-5)


def test_pairs_take_the_teachers_order() -> None:
    rows = batch([0, 1, nan, 0, 0], [[0.2, 0.1, 0.9, nan, 0.3]])

    own = np.log1p(np.exp(0.3 + 1.2))  # the second row above the first
    told = (np.log1p(np.exp(-1.2 - 0.3)) + np.log1p(np.exp(-0.4 - 0.5))) / 2
    assert loss("pairwise", OUTPUTS, rows) == pytest.approx(own + 0.5 * told, rel=1e-5)


def test_in_the_entire_space_a_teacher_speaks_of_both_together() -> None:
    tasks = Tasks((Task("label", "binary"), Task("buys", "binary", entire_space=True)), (0.0, 1.0))
    outputs = torch.tensor([[0.5, -0.3], [1.0, 0.7]])
    rows = batch([0, 1], [[nan, 0.8], [0.1, 0.6]], outcomes=[[nan, 1.0]], sizes=(1, 1))

    clicks, both = sigmoid([0.5, 1.0]), sigmoid([0.5, 1.0]) * sigmoid([-0.3, 0.7])
    own = [-np.log([1 - clicks[0], clicks[1]]).mean(), -np.log([1 - both[0], both[1]]).mean()]
    told = [
        cross_entropy(0.8, 1.0),
        -np.mean(np.array([0.1, 0.6]) * np.log(both) + np.array([0.9, 0.4]) * np.log(1 - both)),
    ]
    found = TaskLosses(tasks, "mean", 2.0).each(outputs, rows)
    assert [float(one) for one in found] == pytest.approx(
        [own[0] + 2 * told[0], own[1] + 2 * told[1]], rel=1e-5
    )


rows = st.lists(st.sampled_from([0.0, 1.0]), min_size=5, max_size=5)
outputs = st.lists(st.floats(-4, 4), min_size=5, max_size=5)


@given(
    labels=rows, logits=outputs, kind=st.sampled_from(["binary", "listwise", "pairwise"]),
    weight=st.floats(0, 3), silent=st.sets(st.integers(0, 4)),
)  # fmt: skip
def test_a_teacher_who_says_what_came_weighs_it_more(
    labels: list[float], logits: list[float], kind: str, weight: float, silent: set[int]
) -> None:
    alone = loss(kind, logits, batch(labels))
    assert loss(kind, logits, batch(labels, [labels]), weight) == pytest.approx(
        (1 + weight) * alone, rel=1e-4, abs=1e-6
    )
    # Of rows without a label it is the teacher alone, who says the same there.
    hidden = [nan if row in silent else label for row, label in enumerate(labels)]
    told = [label if row in silent else nan for row, label in enumerate(labels)]
    assert loss(kind, logits, batch(hidden, [told]), 0.0) == pytest.approx(
        loss(kind, logits, batch(hidden)), abs=1e-6
    )


# ---- learnt ---------------------------------------------------------------------------------------------


def truth(n: int, seed: int) -> tuple[RankingData, np.ndarray]:
    """Draw rows whose label is 1 with a probability that follows from two columns, and those probabilities."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 3)).astype(np.float32)
    probabilities = sigmoid(1.5 * features[:, 0] - features[:, 1])
    labels = (rng.random(n) < probabilities).astype(float)
    return RankingData(features=features, feature_names=("a", "b", "noise"), labels=labels), probabilities


OPTIONS = DCNOptions(
    objective="binary",
    hidden=(16,),
    training=TrainingOptions(epochs=20, batch_rows=64, learning_rate=1e-2, dropout=0.0),
)
FRESH, FRESH_TRUTH = truth(2_000, seed=9)


def error(data: RankingData, distillation: float = 1.0) -> float:
    """Return how far the probabilities of fresh rows are from the truth, after training on `data`."""
    options = replace(OPTIONS, training=replace(OPTIONS.training, distillation=distillation))
    plan, read = DCNRanker._plan(data, options)
    training = new_training(plan, read, data, None, seed=0, checkpoint=None)
    training.run()
    fresh = frame_of(training.network, read(FRESH), FRESH, training.tasks)
    return float(np.abs(training.tasks.score(training.outputs(fresh)) - FRESH_TRUTH).mean())


def test_a_student_learns_a_teachers_probabilities_better_than_from_labels() -> None:
    data, probabilities = truth(300, seed=1)

    taught = replace(data, teacher={"label": probabilities})
    from_labels = error(data)

    assert error(taught, distillation=0.0) == from_labels
    assert error(taught) < 0.8 * from_labels
    assert error(taught, distillation=9.0) < 0.6 * from_labels


def test_rows_without_a_label_teach_what_the_teacher_says_of_them() -> None:
    few, _ = truth(60, seed=2)
    more, probabilities = truth(600, seed=3)
    unlabelled = replace(more, labels=np.full(600, nan), teacher={"label": probabilities})
    both = RankingData(
        features=np.concatenate([few.features, more.features]),
        feature_names=few.feature_names,
        labels=np.concatenate([few.labels, unlabelled.labels]),
        teacher={"label": np.concatenate([np.full(60, nan), probabilities])},
    )

    alone = error(few)
    assert error(both) < 0.5 * alone
    assert error(unlabelled) < 0.05


def test_a_ranker_teaches_and_an_outcome_is_taught_too(crossed_data: Callable[..., RankingData]) -> None:
    data = crossed_data(400, seed=5)
    data = replace(data, outcomes={"buys": 1 - data.labels})
    teacher = LightGBMRanker.fit(
        crossed_data(2_000, seed=6), options=LightGBMOptions(objective="binary", rounds=60, num_threads=1)
    )

    taught = taught_by(teacher, taught_by(teacher, data), head="buys")
    np.testing.assert_array_equal(taught.teacher["label"], teacher.score(data.features))
    options = replace(OPTIONS, tasks=TaskOptions(outcomes=("buys",)))
    plan, read = DCNRanker._plan(taught, options)
    run = new_training(plan, read, taught, None, seed=0, checkpoint=None)
    # Both heads are taught what the teacher says of the label; the data say the opposite of the other outcome.
    told = run._frame.teacher
    assert told is not None
    np.testing.assert_allclose(
        told.cpu().numpy(), np.stack([teacher.score(data.features)] * 2, axis=1), rtol=1e-6
    )
    assert new_training(plan, read, data, None, seed=0, checkpoint=None)._frame.teacher is None


def test_what_is_taught_tells_runs_apart_and_goes_with_its_rows() -> None:
    data, probabilities = truth(50, seed=1)
    taught = replace(data, teacher={"label": probabilities})

    assert (
        len({run_identity(one) for one in (data, taught, replace(data, teacher={"label": data.labels}))}) == 3
    )
    np.testing.assert_array_equal(taught.take([7, 3]).teacher["label"], probabilities[[7, 3]])


# ---- refused --------------------------------------------------------------------------------------------


def test_what_a_teacher_cannot_say_is_refused() -> None:
    data, probabilities = truth(60, seed=1)
    with pytest.raises(InvalidTraining, match=r"teacher's label is 1\.5, and probabilities lie in \[0, 1\]"):
        replace(data, teacher={"label": np.where(probabilities == probabilities[3], 1.5, probabilities)})
    with pytest.raises(InvalidTraining, match=r"speaks of 'buys', which is neither `label` nor .* \(none\)"):
        replace(data, teacher={"buys": probabilities})
    with pytest.raises(InvalidTraining, match="teacher probabilities of label for 60 rows"):
        replace(data, teacher={"label": probabilities[1:]})
    paid = replace(data, outcomes={"pays": np.arange(60.0)}, teacher={"pays": probabilities})
    with pytest.raises(InvalidTraining, match="'pays' of the training data is an amount"):
        DCNRanker.fit(paid, options=replace(OPTIONS, tasks=TaskOptions(outcomes=("pays",))))
    with pytest.raises(InvalidTraining, match="distillation=-1"):
        TrainingOptions(distillation=-1)
    ordering = LightGBMRanker.fit(
        replace(truth(400, seed=2)[0], groups=np.full(40, 10)),
        options=LightGBMOptions(rounds=5, num_threads=1),
    )
    with pytest.raises(InvalidTraining, match=r"which are no probabilities.*`Calibrated`"):
        taught_by(ordering, data)


def test_rows_without_a_label_are_refused_where_they_teach_nothing() -> None:
    data, probabilities = truth(400, seed=1)
    labels = np.where(np.arange(400) == 7, nan, data.labels)
    with pytest.raises(InvalidTraining, match="Row 7 of the training labels is nan"):
        replace(data, labels=labels)
    taught = replace(data, labels=labels, teacher={"label": probabilities})
    with pytest.raises(
        InvalidTraining, match="1 rows of the training data, the first of them row 7, have no label"
    ):
        LightGBMRanker.fit(taught, options=LightGBMOptions(objective="binary", rounds=5))
    with pytest.raises(InvalidTraining, match="learns from labels alone"):
        Blend.fit(taught, options=BlendOptions(members=({"use": "lightgbm", "objective": "binary"},) * 2))
    nothing = replace(data, labels=np.full(400, nan), teacher={"label": np.full(400, 0.5)})
    with pytest.raises(InvalidTraining, match="finds all of them equally probable"):
        DCNRanker.fit(nothing, options=OPTIONS)
