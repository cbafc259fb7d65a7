"""Training data, checked before LightGBM sees it, so that the message names the column or the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.rankers.errors import InvalidTraining

Objective: TypeAlias = Literal["lambdarank", "binary"]

_UNFIT_FOR_NAMES: Final = frozenset('",:[]{}')
_MOST_GRADES: Final = 31
"""LightGBM's table of gains ends here: a gain is 2^grade - 1."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """One slice of rows that fit together."""

    features: NDArray[np.float32]
    """(n, d), NaN for missing."""
    labels: NDArray[np.float64]
    """(n,)"""
    groups: NDArray[np.int64] | None
    """(g,) how many consecutive rows belong to each request; they sum to n."""

    @classmethod
    def of(
        cls, what: str, features: ArrayLike, labels: ArrayLike, groups: ArrayLike | None, names: Sequence[str]
    ) -> TrainingData:
        """Return a slice called `what` in messages; raise `InvalidTraining` where its parts do not fit."""
        matrix = np.ascontiguousarray(features, np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != len(names):
            raise InvalidTraining(
                f"The {what} features have shape {matrix.shape} for {len(names)} names; columns and names "
                "would not belong together. Pass (rows, features) and one name per column."
            )
        endless = np.isinf(matrix).any(axis=0)
        if endless.any():
            raise InvalidTraining(
                f"Feature {names[int(endless.argmax())]!r} of the {what} data holds infinity, which bins "
                "beside all other values. Use NaN for missing values."
            )
        target = np.asarray(labels, np.float64)
        if target.shape != (len(matrix),):
            raise InvalidTraining(
                f"{target.shape} {what} labels for {len(matrix)} rows; each row needs one. Pass (rows,)."
            )
        if not np.isfinite(target).all():
            row = int(np.flatnonzero(~np.isfinite(target))[0])
            raise InvalidTraining(
                f"Label {row} of the {what} data is {target[row]}; a row without an outcome teaches nothing. "
                "Leave it out."
            )
        return cls(matrix, target, None if groups is None else _groups(what, groups, len(matrix)))

    def check_objective(self, what: str, objective: Objective) -> None:
        """Raise `InvalidTraining` where the labels cannot serve the objective."""
        if objective == "binary":
            self._check_binary(what)
        else:
            self._check_grades(what)

    def _check_binary(self, what: str) -> None:
        classes = np.unique(self.labels)
        if not np.isin(classes, [0.0, 1.0]).all():
            raise InvalidTraining(
                f"The {what} labels hold {classes[~np.isin(classes, [0.0, 1.0])][0]}; objective 'binary' "
                "knows 0 and 1 only. Set a threshold, or use 'lambdarank' for grades."
            )
        if len(classes) < 2:
            raise InvalidTraining(
                f"All {what} labels are {classes.tolist()}; from one class alone nothing can be told apart. "
                "Add rows of the other: items that were shown and not taken up, say."
            )

    def _check_grades(self, what: str) -> None:
        if self.groups is None:
            raise InvalidTraining(
                f"Objective 'lambdarank' compares rows of one request, and the {what} data has no groups. "
                "Pass the number of rows of each request, in order."
            )
        grades = self.labels
        wrong = (grades < 0) | (grades >= _MOST_GRADES) | (grades != np.floor(grades))
        if wrong.any():
            raise InvalidTraining(
                f"A {what} label is {grades[wrong][0]}; grades for 'lambdarank' are whole numbers from 0 to "
                f"{_MOST_GRADES - 1}. Round or bin them."
            )
        starts = np.concatenate([[0], np.cumsum(self.groups)[:-1]]).astype(np.int64)
        if (np.maximum.reduceat(grades, starts) == np.minimum.reduceat(grades, starts)).all():
            raise InvalidTraining(
                f"Within each of the {len(starts)} {what} groups all labels are equal, so no row is better "
                "than another. Each request needs items that were taken up and items that were not."
            )


def check_names(names: Sequence[str], categorical: Sequence[str]) -> None:
    """Raise `InvalidTraining` for names that repeat, are unknown, or do not fit the text format."""
    repeated = next((name for position, name in enumerate(names) if name in names[:position]), None)
    if repeated is not None:
        raise InvalidTraining(
            f"Feature {repeated!r} is named twice; serving could not tell the columns apart. Rename one."
        )
    unfit = next(
        (name for name in names if not _UNFIT_FOR_NAMES.isdisjoint(name) or name.split() != [name]), None
    )
    if unfit is not None:
        raise InvalidTraining(
            f"Feature name {unfit!r} holds a space or one of {' '.join(sorted(_UNFIT_FOR_NAMES))}, or is "
            "empty; LightGBM's text format cannot hold it. Rename the feature."
        )
    unknown = [name for name in categorical if name not in names]
    if unknown:
        raise InvalidTraining(
            f"Categorical {', '.join(unknown)} is not among the feature names, so it would be read as a "
            "number. Correct the spelling."
        )


def check_enough(data: TrainingData, min_data_in_leaf: int) -> None:
    """Raise `InvalidTraining` where no split is possible at all."""
    if len(data.labels) < 2 * min_data_in_leaf:
        raise InvalidTraining(
            f"{len(data.labels)} training rows, and a first split needs {2 * min_data_in_leaf} "
            f"(min_data_in_leaf={min_data_in_leaf} on each side). Gather more, or lower min_data_in_leaf."
        )
    with_values = ~np.isnan(data.features)
    lowest = np.where(with_values, data.features, np.inf).min(axis=0)
    highest = np.where(with_values, data.features, -np.inf).max(axis=0)
    partly_missing = with_values.any(axis=0) & ~with_values.all(axis=0)
    if not ((lowest < highest) | partly_missing).any():
        raise InvalidTraining(
            f"Each of the {data.features.shape[1]} features is constant over all rows, so they tell no row "
            "from another. Check the join that filled them: they may all be missing."
        )


def _groups(what: str, groups: ArrayLike, rows: int) -> NDArray[np.int64]:
    sizes = np.asarray(groups)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or (sizes <= 0).any() or sizes.sum() != rows:
        raise InvalidTraining(
            f"The {what} groups sum to {sizes.sum()} for {rows} rows, or are not whole numbers above 0; "
            "rows would count for the wrong request. Pass the number of consecutive rows of each request."
        )
    return sizes.astype(np.int64)
