"""What one ranker says, for another to learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._fits import Fits
from explorank.rankers.applying import score_data
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.fused import check_folds
from explorank.rankers.members import MemberOptions, Plan, checked_members
from explorank.rankers.ranker import Progress, Ranker


def learns_from_teacher(ranker_class: type) -> bool:
    """Return whether rankers of a class read `RankingData.teacher`; it says so by a true `learns_from_teacher`."""
    return bool(getattr(ranker_class, "learns_from_teacher", False))


def taught_by(teacher: Ranker, data: RankingData, *, head: str = "label") -> RankingData:
    """Return `data` with how probable `teacher` finds each row's label, or the outcome that `head` names.

    A teacher that was trained on the same rows is surer of them than of others; ask one that was not, or let
    `taught_out_of_fold` train some. Raises `InvalidTraining` where a score is no probability, and `FeatureMismatch` for
    columns that `data` lacks.
    """
    scores = score_data(teacher, data)
    _check_probabilities(scores, teacher.manifest.name, data.called)
    return replace(data, teacher={**data.teacher, head: scores})


def taught_out_of_fold(
    teacher: MemberOptions | Plan,
    data: RankingData,
    *,
    valid: RankingData | None = None,
    unlabelled: NDArray[np.bool_] | None = None,
    folds: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> RankingData:
    """Return `data` with how probable a teacher finds the label of each row, none of which it was trained on.

    `teacher` names a ranker as members of a blend are named: `{"use": "lightgbm", "objective": "binary"}`. Requests are
    cut into `folds`, all of a user's into one where it is known whose they are, and each fold is scored by a teacher
    that was trained on the others (cross-fitting). `valid` stops its training. Of rows that `unlabelled` (n,) is true
    of nothing is learnt by the teacher, whatever their label, which becomes NaN: its word on them is all that a student
    has (pseudo-labels; Lee, 2013). `seed`, `progress` and `checkpoint` are as for `TrainableRanker.fit`.

    Raises `InvalidTraining` where a score is no probability, and as the teacher's `fit` does.
    """
    check_folds(folds)
    plan = teacher if isinstance(teacher, Plan) else Plan.of(checked_members([teacher], at_least=1)[0])
    learnt = None if unlabelled is None else ~_checked_mask(unlabelled, data)
    fits = Fits(
        data,
        valid,
        options=(plan, folds, None if learnt is None else learnt.tobytes()),
        seed=seed,
        total=folds,
        progress=progress,
        checkpoint=checkpoint,
    )
    said = np.empty(len(data))
    for rows, scores in fits.each_fold([plan], folds, learnt):
        said[rows] = scores[:, 0]
        _check_probabilities(said[rows], plan.use or plan.trainable.__name__, data.called)
    labels = data.labels if unlabelled is None else np.where(unlabelled, np.nan, data.labels)
    return replace(data, labels=labels, teacher={**data.teacher, "label": said})


def _check_probabilities(scores: NDArray[np.float64], name: str, called: str) -> None:
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise InvalidTraining(
            f"Ranker {name!r} scores the {called} data from {scores.min():g} to {scores.max():g}, which are no "
            "probabilities, so nothing can be taught by them. Train the teacher with objective 'binary', or wrap it in "
            "`Calibrated` (`use: calibrated`)."
        )


def _checked_mask(unlabelled: NDArray[np.bool_], data: RankingData) -> NDArray[np.bool_]:
    mask = np.asarray(unlabelled)
    if mask.shape != (len(data),) or mask.dtype != np.bool_:
        raise InvalidTraining(
            f"unlabelled has shape {mask.shape} and type {mask.dtype} for {len(data)} {data.called} rows; it could not "
            "be told which of them have no label. Pass one bool per row."
        )
    return mask
