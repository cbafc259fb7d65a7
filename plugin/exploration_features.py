"""The matrix an exploration policy sees: chosen columns, standardised, with a constant in front."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from explorank.errors import SettingsError
from explorank.hooks.errors import InvalidBatch
from explorank.hooks.types import FeatureArray, Features, FloatArray
from explorank.rankers import Ranker
from explorank.settings import Settings

SCORE = "score"
"""The ranker's score, standardised within the request: its scale is the model's own and changes with it."""
CONSTANT = "constant"
_CLIP = 5.0  # standard deviations; one absurd value must not rule a linear model


def exploration_columns(settings: Settings, newest: Callable[[], Ranker | None]) -> tuple[str, ...]:
    """Return the columns that `exploration.features` names; `"*"` is the score and all of the `newest` ranker's.

    The ranker is only asked for where it matters. Raises `SettingsError` for `"*"` where no ranker is trained.
    """
    configured = settings.exploration.features
    if configured != "*":
        return configured
    ranker = newest()
    if ranker is None:
        raise SettingsError(
            f'{settings.source}: `exploration.features: "*"` means all columns of the trained ranker, and none is '
            "trained yet, so the policy's dimension is unknown. Run `explorank train` first, or name the columns."
        )
    return (SCORE, *ranker.manifest.feature_names)


class ExplorationFeatures:
    """Standardises the columns that `exploration.features` names.

    Columns are scaled by the training mean and standard deviation where the ranker's manifest knows them,
    else within the request. A missing value becomes 0, the mean.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names: tuple[str, ...] = (CONSTANT, *names) if names else ()
        self.version: str = hashlib.blake2b("\n".join(self.names).encode(), digest_size=8).hexdigest()

    @property
    def dim(self) -> int:
        """The number of columns, the constant included; 0 where none is configured."""
        return len(self.names)

    def names_of(self, matrix: FeatureArray | None) -> tuple[str, ...]:
        """Return the names of a matrix' columns: ours, or numbered ones where the host brought its own."""
        if matrix is None:
            return ()
        if matrix.shape[1] == self.dim:
            return self.names
        return tuple(f"column_{position}" for position in range(matrix.shape[1]))

    def matrix(
        self, features: Features, scores: FloatArray, scale: Mapping[str, tuple[float, float]]
    ) -> FeatureArray | None:
        """Return (n, dim) float32, or None where no column is configured.

        `scale` maps a column to its training mean and standard deviation. Raises `InvalidBatch` naming the
        columns that no plugin supplied.
        """
        if not self.names:
            return None
        wanted = self.names[1:]
        missing = [name for name in wanted if name != SCORE and name not in features.names]
        if missing:
            raise InvalidBatch(
                f"`exploration.features` names {missing}, which no plugin supplied for this request "
                f"(supplied: {list(features.names)}). Exploration is left out until they are there again."
            )
        matrix = np.empty((len(scores), self.dim), np.float32)
        matrix[:, 0] = 1.0
        for position, name in enumerate(wanted, start=1):
            column = scores if name == SCORE else features.column(name).astype(np.float64)
            mean, deviation = scale.get(name) or _mean_and_deviation(column)
            matrix[:, position] = (column - mean) / (deviation or 1.0)
        np.nan_to_num(matrix, copy=False, nan=0.0)
        return np.clip(matrix, -_CLIP, _CLIP, out=matrix)


def _mean_and_deviation(column: FloatArray) -> tuple[float, float]:
    present = column[np.isfinite(column)]
    return (float(present.mean()), float(present.std())) if len(present) else (0.0, 1.0)
