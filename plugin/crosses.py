"""Columns that follow from two others, computed on arrays: the same code when training and when serving."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

import numpy as np

from explorank.errors import DataError
from explorank.hooks.registry import did_you_mean
from explorank.hooks.types import FeatureArray, Features
from explorank.settings import CrossKind, CrossSettings, Settings

_Two = Callable[[FeatureArray, FeatureArray], FeatureArray]

_KINDS: Final[Mapping[CrossKind, _Two]] = {
    "difference": np.subtract,
    "equal": lambda one, other: np.where(np.isnan(one) | np.isnan(other), np.nan, one == other),
    "product": np.multiply,
    "ratio": np.divide,
}


class Crosses:
    """The crossed columns of `features.crosses`, in their order; later ones may be crossed from earlier ones.

    What is missing on either side is missing in the cross, and so is what is no number: a ratio to 0, or a product
    beyond float32.
    """

    def __init__(self, settings: Sequence[CrossSettings] = ()) -> None:
        self._crosses: Final = tuple(settings)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the configured ones."""
        return cls([] if settings.features is None else settings.features.crosses)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the crossed columns."""
        return tuple(cross.name for cross in self._crosses)

    def missing(self, names: Sequence[str]) -> dict[str, str]:
        """Return the crosses that cannot be made of columns `names`, each with the column that is not there."""
        known, missing = {*names}, dict[str, str]()
        for cross in self._crosses:
            absent = next((name for name in cross.of if name not in known), None)
            if absent is None:
                known.add(cross.name)
            else:
                missing[cross.name] = absent
        return missing

    def made_of(self, name: str) -> frozenset[str]:
        """Return the column `name` and all that is crossed from it, be it through others."""
        made = {name}
        for cross in self._crosses:
            if made & {*cross.of}:
                made.add(cross.name)
        return frozenset(made)

    def check(self, names: Sequence[str]) -> None:
        """Raise `DataError` naming the first column that is not among `names`, or that a cross would be twice."""
        for cross, absent in self.missing(names).items():
            raise DataError(
                f"`features.crosses` makes {cross!r} of {absent!r}, which is no column of the feature services, so it "
                f"cannot be computed.{did_you_mean(absent, names)} Correct the name, or serve the column."
            )
        counts = Counter([*names, *self.names])
        if twice := sorted(name for name in {*self.names} if counts[name] > 1):
            raise DataError(
                f"`features.crosses` makes {twice}, and there is another column of that name; a ranker could not tell "
                "the two apart. Rename the cross."
            )

    def extend(self, features: Features) -> Features:
        """Return the features and, behind them, the crosses that can be made of them, (n, d + c) float32."""
        if not self._crosses:
            return features
        columns = {name: features.values[:, place] for place, name in enumerate(features.names)}
        made: dict[str, FeatureArray] = {}
        for cross in self._crosses:
            one, other = (columns.get(name) for name in cross.of)
            if one is None or other is None:
                continue
            with np.errstate(all="ignore"):
                column = _KINDS[cross.kind](one, other).astype(np.float32, copy=False)
            column[~np.isfinite(column)] = np.nan
            columns[cross.name] = made[cross.name] = column
        if not made:
            return features
        return Features((*features.names, *made), np.column_stack([features.values, *made.values()]))
