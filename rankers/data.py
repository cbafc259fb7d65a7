"""What rankers learn from: rows that fit together, checked so that a message names the column or the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.rankers.errors import InvalidTraining


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingData:
    """Candidates of past requests and what became of them, the rows of a request one after another.

    Whatever can be made an array of the stated type may be passed. Raises `InvalidTraining` for parts that do not
    fit together, naming the part, the row or the column.
    """

    features: NDArray[np.float32]
    """(n, d), NaN for missing; as of the moment of each request."""
    feature_names: tuple[str, ...]
    """(d,) distinct."""
    labels: NDArray[np.float64]
    """(n,) what is to be foreseen, finite: a click, a grade, a revenue. NaN where only a teacher says something of it,
    which not all rankers can learn from."""
    groups: NDArray[np.int64] | None = None
    """(g,) how many consecutive rows belong to each request; they sum to n."""
    categorical: tuple[str, ...] = ()
    """The columns whose numbers are codes without an order."""
    weights: NDArray[np.float64] | None = None
    """(n,) how much each row counts, above 0; an inverse propensity, say."""
    positions: NDArray[np.int64] | None = None
    """(n,) the slot that each row was shown in, counted from 0."""
    outcomes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Further things to foresee by name, (n,) each: `conversion`, `revenue`; NaN where it is not known."""
    teacher: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """How probable another model finds the label (`label`) or an outcome (by its name), (n,) each in [0, 1]; NaN where
    it says nothing. `taught_by` asks a ranker."""
    item_ids: NDArray[np.str_] | None = None
    """(n,) for rankers that learn something of each item."""
    histories: tuple[tuple[str, ...], ...] | None = None
    """(g,) the items that the user had taken up strictly before each request, oldest first."""
    item_texts: Mapping[str, str] = field(default_factory=dict)
    """What items are called, by id, those of the histories too, for rankers that read texts."""
    user_ids: NDArray[np.str_] | None = None
    """(g,) whose each request is, empty where that is not known. Where scores out of fold are learnt from, a user's
    requests are in one fold."""
    window: tuple[float, float] | None = None
    """First and last moment of the requests, in seconds since the Unix epoch."""
    called: str = "training"
    """What messages call these data: `training`, `validation`."""

    def __post_init__(self) -> None:
        names = tuple(self.feature_names)
        _set(self, "feature_names", names)
        _set(self, "categorical", tuple(self.categorical))
        _set(self, "features", self._matrix(names))
        _set(self, "labels", self._column("labels", self.labels))
        _set(self, "teacher", {name: self._probabilities(name, said) for name, said in self.teacher.items()})
        self._check_finite("labels", np.where(self._taught_alone(), 0.0, self.labels))
        self._check_names()
        if self.groups is not None:
            _set(self, "groups", self._group_sizes())
        if self.weights is not None:
            _set(self, "weights", self._weights())
        if self.positions is not None:
            _set(self, "positions", self._positions())
        _set(self, "outcomes", {name: self._column(name, values) for name, values in self.outcomes.items()})
        if self.item_ids is not None:
            _set(self, "item_ids", np.asarray(self.item_ids, np.str_))
            self._check_length("item_ids", len(self.item_ids), len(self))
        if self.histories is not None:
            _set(self, "histories", tuple(tuple(items) for items in self.histories))
            self._check_length("histories", len(self.histories), self.requests)
        if self.user_ids is not None:
            _set(self, "user_ids", np.asarray(self.user_ids, np.str_))
            self._check_length("user_ids", len(self.user_ids), self.requests)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def requests(self) -> int:
        """How many requests the rows belong to; each row is one of its own where no groups are given."""
        return len(self) if self.groups is None else len(self.groups)

    @property
    def request_of(self) -> NDArray[np.int64]:
        """(n,) the number of each row's request, from 0."""
        if self.groups is None:
            return np.arange(len(self))
        return np.repeat(np.arange(len(self.groups)), self.groups)

    def take(self, requests: Sequence[int] | NDArray[np.int64]) -> Self:
        """Return the rows of some requests, in the order given."""
        wanted = np.asarray(requests, np.int64)
        sizes = np.ones(len(self), np.int64) if self.groups is None else self.groups
        starts = np.cumsum(sizes) - sizes
        lengths = sizes[wanted]
        offsets = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = np.repeat(starts[wanted], lengths) + offsets
        return self._taken(rows, wanted, lengths)

    def take_rows(self, kept: NDArray[np.bool_]) -> Self:
        """Return the rows that `kept` (n,) is true of, in their order; requests without any are left out."""
        rows = np.flatnonzero(kept)
        lengths = np.bincount(self.request_of[rows], minlength=self.requests)
        requests = np.flatnonzero(lengths)
        return self._taken(rows, requests, lengths[requests])

    def check_same_features(self, other: RankingData) -> None:
        """Raise `InvalidTraining` unless `other` has the same columns in the same order."""
        if (self.feature_names, self.categorical) != (other.feature_names, other.categorical):
            raise InvalidTraining(
                f"The {other.called} data has other feature columns than the {self.called} data, so a metric on it "
                f"would mean nothing: {_difference(self.feature_names, other.feature_names)}. Build both alike."
            )

    def _taken(
        self, rows: NDArray[np.int64], requests: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Self:
        """Return some rows, `lengths` of them for each of `requests`."""
        return replace(
            self,
            features=self.features[rows],
            labels=self.labels[rows],
            groups=None if self.groups is None else lengths,
            weights=None if self.weights is None else self.weights[rows],
            positions=None if self.positions is None else self.positions[rows],
            outcomes={name: values[rows] for name, values in self.outcomes.items()},
            teacher={name: values[rows] for name, values in self.teacher.items()},
            item_ids=None if self.item_ids is None else self.item_ids[rows],
            histories=None if self.histories is None else tuple(self.histories[i] for i in requests.tolist()),
            user_ids=None if self.user_ids is None else self.user_ids[requests],
        )

    def _matrix(self, names: tuple[str, ...]) -> NDArray[np.float32]:
        matrix = np.ascontiguousarray(self.features, np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != len(names):
            raise InvalidTraining(
                f"The {self.called} features have shape {matrix.shape} for {len(names)} names; columns and names "
                "would not belong together. Pass (rows, features) and one name per column."
            )
        endless = np.isinf(matrix).any(axis=0)
        if endless.any():
            raise InvalidTraining(
                f"Feature {names[int(endless.argmax())]!r} of the {self.called} data holds infinity, which bins "
                "beside all other values. Use NaN for missing values."
            )
        return matrix

    def _column(self, what: str, values: ArrayLike) -> NDArray[np.float64]:
        column = np.asarray(values, np.float64)
        if column.shape != (len(self.features),):
            raise InvalidTraining(
                f"{column.shape} {self.called} {what} for {len(self.features)} rows; each row needs one. Pass (rows,)."
            )
        return column

    def _check_length(self, what: str, found: int, wanted: int) -> None:
        if found != wanted:
            raise InvalidTraining(
                f"{found} {self.called} {what} where {wanted} are needed; they could not be told whose they are. "
                "`item_ids` has one per row, `histories` and `user_ids` one per request."
            )

    def _check_finite(self, what: str, values: NDArray[np.float64]) -> None:
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InvalidTraining(
                f"Row {row} of the {self.called} {what} is {values[row]}; a row without an outcome teaches nothing. "
                "Leave it out."
            )

    def _probabilities(self, name: str, said: ArrayLike) -> NDArray[np.float64]:
        if name != "label" and name not in self.outcomes:
            raise InvalidTraining(
                f"The {self.called} data's teacher speaks of {name!r}, which is neither `label` nor among the outcomes "
                f"({', '.join(self.outcomes) or 'none'}); nothing would learn from it. Correct the name."
            )
        probabilities = self._column(f"teacher probabilities of {name}", said)
        wrong = ~np.isnan(probabilities) & ~((probabilities >= 0) & (probabilities <= 1))
        if wrong.any():
            row = int(wrong.argmax())
            raise InvalidTraining(
                f"Row {row} of the {self.called} teacher's {name} is {probabilities[row]}, and probabilities lie in "
                "[0, 1]. Pass those of a ranker that was trained with objective 'binary', or wrapped in `Calibrated`."
            )
        return probabilities

    def _taught_alone(self) -> NDArray[np.bool_]:
        """Return which rows have no label but a teacher's word on it, (n,)."""
        said = self.teacher.get("label")
        return np.zeros(len(self), np.bool_) if said is None else np.isnan(self.labels) & ~np.isnan(said)

    def _weights(self) -> NDArray[np.float64]:
        weights = self._column("weights", self.weights if self.weights is not None else ())
        self._check_finite("weights", weights)
        if (weights <= 0).any():
            row = int((weights <= 0).argmax())
            raise InvalidTraining(
                f"Row {row} of the {self.called} weights is {weights[row]}; a row that should not count is left out, "
                "and one that counts weighs more than 0."
            )
        return weights

    def _positions(self) -> NDArray[np.int64]:
        given = np.asarray(self.positions)
        positions = self._column("positions", given)
        wrong = ~np.isfinite(positions) | (positions < 0) | (positions != np.floor(positions))
        if wrong.any():
            raise InvalidTraining(
                f"Row {int(wrong.argmax())} of the {self.called} positions is {given[wrong][0]}; a slot is a whole "
                "number, counted from 0."
            )
        return positions.astype(np.int64)

    def _group_sizes(self) -> NDArray[np.int64]:
        sizes = np.asarray(self.groups)
        rows = len(self)
        if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or (sizes <= 0).any() or sizes.sum() != rows:
            raise InvalidTraining(
                f"The {self.called} groups sum to {sizes.sum()} for {rows} rows, or are not whole numbers above 0; "
                "rows would belong to the wrong requests. Pass the number of rows of each request, in order."
            )
        return sizes.astype(np.int64)

    def _check_names(self) -> None:
        names = self.feature_names
        repeated = next((name for position, name in enumerate(names) if name in names[:position]), None)
        if repeated is not None:
            raise InvalidTraining(
                f"Feature {repeated!r} is named twice; serving could not tell the columns apart. Rename one."
            )
        unknown = [name for name in self.categorical if name not in names]
        if unknown:
            raise InvalidTraining(
                f"Categorical {', '.join(unknown)} is not among the feature names, so it would be read as a "
                "number. Correct the spelling."
            )


def _difference(wanted: Sequence[str], found: Sequence[str]) -> str:
    missing = [name for name in wanted if name not in found]
    added = [name for name in found if name not in wanted]
    if not missing and not added:
        return "the order or the categorical ones differ"
    return "; ".join(
        f"{what} {', '.join(names)}" for what, names in (("without", missing), ("added", added)) if names
    )


def _set(data: RankingData, name: str, value: Any) -> None:
    object.__setattr__(data, name, value)
