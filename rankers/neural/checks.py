"""Training data, checked before a network sees it, so that the message names the column or the rule."""

from __future__ import annotations

from typing import Final

import numpy as np

from explorank.rankers._training import check_any_rows, check_two_classes
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.neural.options import NeuralObjective

_FEWEST_ROWS: Final = 40


def check_data(
    data: RankingData, objective: NeuralObjective, *, reads_items: bool, reads_histories: bool
) -> None:
    """Raise `InvalidTraining` where no useful network can be trained from the data."""
    check_target(data, objective)
    if len(data) < _FEWEST_ROWS:
        raise InvalidTraining(
            f"{len(data)} training rows, and a network of thousands of weights would learn them by heart. Gather at "
            f"least {_FEWEST_ROWS}; thousands are better."
        )
    items_vary = reads_items and data.item_ids is not None and len(np.unique(data.item_ids)) > 1
    histories_vary = reads_histories and len(set(data.histories or ())) > 1
    if not (items_vary or histories_vary or _varies(data)):
        raise InvalidTraining(
            f"Each of the {data.features.shape[1]} features is constant over all rows, and no ids that vary are "
            "read, so nothing tells one row from another. Check the join that filled them: they may all be missing."
        )


def check_target(data: RankingData, objective: NeuralObjective) -> None:
    """Raise `InvalidTraining` where the labels, or what a teacher says of rows without, cannot serve the objective."""
    check_any_rows(data)
    if np.isnan(data.labels).all():
        _check_teacher(data)
    elif objective == "binary":
        check_two_classes(data)
    else:
        _check_order(data, objective)


def _check_teacher(data: RankingData) -> None:
    if np.ptp(data.teacher["label"]) == 0.0:
        raise InvalidTraining(
            f"No row of the {data.called} data has a label, and the teacher finds all of them equally probable, so "
            "nothing can be told apart. Ask a teacher that can."
        )


def _check_order(data: RankingData, objective: NeuralObjective) -> None:
    if data.groups is None:
        raise InvalidTraining(
            f"Objective {objective!r} compares rows of one request, and the {data.called} data has no groups. "
            "Pass the number of rows of each request, in order."
        )
    if (data.labels < 0).any():
        raise InvalidTraining(
            f"A {data.called} label is {np.nanmin(data.labels)}, and objective {objective!r} takes labels as gains, "
            "which are 0 or more. Shift them."
        )
    starts = np.cumsum(data.groups) - data.groups
    highest, lowest = np.fmax.reduceat(data.labels, starts), np.fmin.reduceat(data.labels, starts)
    if not (highest > lowest).any():
        raise InvalidTraining(
            f"Within each of the {len(starts)} {data.called} groups all labels are equal, so no row is better than "
            "another. Each request needs items that were taken up and items that were not."
        )


def _varies(data: RankingData) -> bool:
    known = ~np.isnan(data.features)
    lowest = np.where(known, data.features, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(known, data.features, -np.inf).max(axis=0, initial=-np.inf)
    return bool(((lowest < highest) | (known.any(axis=0) & ~known.all(axis=0))).any())
