"""Training data, checked before LightGBM sees it, so that the message names the column or the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining

Objective: TypeAlias = Literal["lambdarank", "binary", "regression", "poisson", "tweedie"]

_COUNTS: Final = ("poisson", "tweedie")

_UNFIT_FOR_NAMES: Final = frozenset('",:[]{}')
_MOST_GRADES: Final = 31
"""LightGBM's table of gains ends here: a gain is 2^grade - 1."""


def check_all_labelled(data: RankingData) -> None:
    """Raise `InvalidTraining` where a row has no label, but a teacher's word on it."""
    without = np.isnan(data.labels)
    if without.any():
        raise InvalidTraining(
            f"{without.sum()} rows of the {data.called} data, the first of them row {int(without.argmax())}, have no "
            "label but what a teacher says of it, and this ranker learns from labels alone. Leave them out, or train "
            "`dcn` or `sequence`."
        )


def check_any_rows(data: RankingData) -> None:
    """Raise `InvalidTraining` where there are no rows."""
    if not len(data):
        raise InvalidTraining(
            f"The {data.called} data has no rows, so nothing can be learnt from it. Gather some."
        )


def check_labels(data: RankingData, objective: Objective) -> None:
    """Raise `InvalidTraining` where the labels cannot serve the objective."""
    check_any_rows(data)
    check_all_labelled(data)
    if objective == "binary":
        check_two_classes(data)
    elif objective == "lambdarank":
        _check_grades(data)
    else:
        _check_amounts(data, objective)


def check_two_classes(data: RankingData) -> None:
    """Raise `InvalidTraining` unless the labels that are known are 0 and 1."""
    classes = np.unique(data.labels[~np.isnan(data.labels)])
    if not np.isin(classes, [0.0, 1.0]).all():
        raise InvalidTraining(
            f"The {data.called} labels hold {classes[~np.isin(classes, [0.0, 1.0])][0]}; objective 'binary' "
            "knows 0 and 1 only. Set a threshold, or use 'lambdarank' for grades."
        )
    if len(classes) < 2:
        raise InvalidTraining(
            f"All {data.called} labels are {classes.tolist()}; from one class alone nothing can be told apart. "
            "Add rows of the other: items that were shown and not taken up, say."
        )


def _check_grades(data: RankingData) -> None:
    if data.groups is None:
        raise InvalidTraining(
            f"Objective 'lambdarank' compares rows of one request, and the {data.called} data has no groups. "
            "Pass the number of rows of each request, in order."
        )
    grades = data.labels
    wrong = (grades < 0) | (grades >= _MOST_GRADES) | (grades != np.floor(grades))
    if wrong.any():
        raise InvalidTraining(
            f"A {data.called} label is {grades[wrong][0]}; grades for 'lambdarank' are whole numbers from 0 to "
            f"{_MOST_GRADES - 1}. Round or bin them."
        )
    starts = np.concatenate([[0], np.cumsum(data.groups)[:-1]]).astype(np.int64)
    if (np.maximum.reduceat(grades, starts) == np.minimum.reduceat(grades, starts)).all():
        raise InvalidTraining(
            f"Within each of the {len(starts)} {data.called} groups all labels are equal, so no row is better "
            "than another. Each request needs items that were taken up and items that were not."
        )


def _check_amounts(data: RankingData, objective: Objective) -> None:
    if np.ptp(data.labels) == 0.0:
        raise InvalidTraining(
            f"All {data.called} labels are {data.labels[0]:g}; from one value alone nothing can be told apart. Add "
            "rows with others: items that were shown and earned nothing, say."
        )
    if objective in _COUNTS and data.labels.min() < 0:
        row = int(data.labels.argmin())
        raise InvalidTraining(
            f"Row {row} of the {data.called} labels is {data.labels[row]:g}; objective {objective!r} knows amounts "
            "from 0 on. Leave refunds out, or use 'regression'."
        )


def check_names(names: Sequence[str]) -> None:
    """Raise `InvalidTraining` for names that do not fit LightGBM's text format."""
    unfit = next(
        (name for name in names if not _UNFIT_FOR_NAMES.isdisjoint(name) or name.split() != [name]), None
    )
    if unfit is not None:
        raise InvalidTraining(
            f"Feature name {unfit!r} holds a space or one of {' '.join(sorted(_UNFIT_FOR_NAMES))}, or is "
            "empty; LightGBM's text format cannot hold it. Rename the feature."
        )


def monotone_constraints(data: RankingData, monotone: Mapping[str, int]) -> list[int]:
    """Return LightGBM's list of constraints; raise `InvalidTraining` for a name that stands for no number."""
    for name in monotone:
        if name not in data.feature_names or name in data.categorical:
            why = "categorical, and has no order" if name in data.categorical else "not among the features"
            raise InvalidTraining(
                f"`monotone` constrains {name!r}, which is {why}, so the promise could not be kept. Name numerical "
                f"features: {', '.join(one for one in data.feature_names if one not in data.categorical)}."
            )
    return [monotone.get(name, 0) for name in data.feature_names]


def check_enough(data: RankingData, min_data_in_leaf: int) -> None:
    """Raise `InvalidTraining` where no split is possible at all."""
    if len(data) < 2 * min_data_in_leaf:
        raise InvalidTraining(
            f"{len(data)} training rows, and a first split needs {2 * min_data_in_leaf} "
            f"(min_data_in_leaf={min_data_in_leaf} on each side). Gather more, or lower min_data_in_leaf."
        )
    lowest, highest = np.fmin.reduce(data.features, axis=0), np.fmax.reduce(data.features, axis=0)
    if (lowest < highest).any():
        return
    missing = np.isnan(data.features)
    if not (missing.any(axis=0) & ~missing.all(axis=0)).any():
        raise InvalidTraining(
            f"Each of the {data.features.shape[1]} features is constant over all rows, so they tell no row "
            "from another. Check the join that filled them: they may all be missing."
        )
