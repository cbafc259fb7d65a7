"""The matrix an exploration policy sees: chosen columns, standardised, with a constant in front."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from explorank.errors import SettingsError
from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration.compiled import FEATURES, FLOAT, ROWS, VECTOR, kernel
from explorank.hooks.types import FeatureArray, Features, FloatArray, IndexArray, Scores
from explorank.rankers import Ranker, RepresentingRanker, id_columns_of
from explorank.settings import Settings

REPRESENTATION: Final = "representation"
"""All columns of the ranker's last hidden layer."""
SCORE: Final = "score"
"""The ranker's score, standardised within the request: its scale is the model's own and changes with it."""
CONSTANT: Final = "constant"
_CLIP: Final = 5.0  # standard deviations; one absurd value must not rule a linear model


def exploration_columns(settings: Settings, newest: Callable[[], Ranker | None]) -> tuple[str, ...]:
    """Return the columns that `exploration.features` names; `"*"` is the score and all of the `newest` ranker's.

    Columns that the ranker computes from ids are left out: they are codes. The ranker is only asked for where it
    matters. Raises `SettingsError` for `"*"` where no ranker is trained.
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
    computed = id_columns_of(ranker)
    return (SCORE, *(name for name in ranker.manifest.feature_names if name not in computed))


class ExplorationFeatures:
    """Standardises the columns that `exploration.features` names.

    Columns are scaled by the training mean and standard deviation where the ranker's manifest knows them,
    else within the request. A missing value becomes 0, the mean.

    The `width` columns of a representation stand last, divided by √width: the sum of their squares is then about 1,
    and a prior says how much candidates differ, however wide the layer is.
    """

    def __init__(self, names: Sequence[str], width: int = 0) -> None:
        """Take the names, of which `representation` stands for `width` columns."""
        self._plain = tuple(name for name in names if name != REPRESENTATION)
        self._width = width if REPRESENTATION in names else 0
        hidden = [f"{REPRESENTATION}_{place:0{len(str(width))}}" for place in range(self._width)]
        self.names: tuple[str, ...] = (CONSTANT, *self._plain, *hidden) if names else ()
        self._plan: _Plan | None = None
        self.version: str = hashlib.blake2b("\n".join(self.names).encode(), digest_size=8).hexdigest()

    @classmethod
    def of(cls, settings: Settings, newest: Callable[[], Ranker | None]) -> Self:
        """Return the columns of an installation, a representation being as wide as that of the `newest` ranker.

        Raises `SettingsError` where the settings ask for what no ranker or this one does not have.
        """
        names = exploration_columns(settings, newest)
        if REPRESENTATION not in names:
            return cls(names)
        ranker = newest()
        if not isinstance(ranker, RepresentingRanker):
            what = "none is trained yet" if ranker is None else f"a {ranker.manifest.name!r} ranker has none"
            raise SettingsError(
                [
                    settings.problem(
                        ("exploration", "features"),
                        f"names `{REPRESENTATION}`, the last hidden layer of the ranker, and {what}, so that the "
                        "policy's dimension is unknown. Train one that has, by `explorank train --ranker dcn`, or "
                        "name other columns.",
                    )
                ]
            )
        return cls(names, len(ranker.representation_scale[0]))

    def misfit(self, ranker: Ranker | None) -> str:
        """Return why nothing can be explored over what `ranker` represents; empty where it can, or need not be."""
        if not self._width or ranker is None:
            return ""
        width = len(ranker.representation_scale[0]) if isinstance(ranker, RepresentingRanker) else 0
        if width == self._width:
            return ""
        layer = f"a last layer of {width} columns" if width else "no last layer to explore over"
        return (
            f"Ranker {ranker.manifest.version} has {layer}, and `exploration.features` named one of {self._width} when "
            "the server was started: it serves, and nothing is explored. Start the server anew, or promote a ranker "
            "whose last layer is as wide."
        )

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
        self, features: Features, scores: Scores, scale: Mapping[str, tuple[float, float]]
    ) -> FeatureArray | None:
        """Return (n, dim) float32, or None where no column is configured.

        `scale` maps a column to its training mean and standard deviation. Raises `InvalidBatch` naming the
        columns that no plugin supplied, and for a representation that is missing or of another width.
        """
        if not self.names:
            return None
        plan = self._plan_for(features.names, scale)
        matrix = _standardised(
            features.values, scores.values, plan.sources, plan.mean, plan.deviation, plan.unknown, _CLIP
        )
        if not self._width:
            return matrix
        return np.concatenate([matrix, self._hidden(scores)], axis=1)

    def _hidden(self, scores: Scores) -> FeatureArray:
        """Return the representation (n, h) as a policy sees it."""
        hidden = scores.representation
        if hidden is None or hidden.shape[1] != self._width:
            found = "came with none" if hidden is None else f"came with one of {hidden.shape[1]} columns"
            raise InvalidBatch(
                f"`exploration.features` names the ranker's representation, of {self._width} columns when the server "
                f"was started, and the scores of {scores.version or 'no ranker'!r} {found}. Exploration is left out "
                "while they do. Promote a ranker whose last layer is as wide, or start the server anew."
            )
        seen = np.nan_to_num(hidden.astype(np.float32, copy=False), nan=0.0)
        visible: FeatureArray = np.clip(seen, -_CLIP, _CLIP) * np.float32(1.0 / np.sqrt(self._width))
        return visible

    def _plan_for(self, names: tuple[str, ...], scale: Mapping[str, tuple[float, float]]) -> _Plan:
        """Return what stands where; remembered, since columns and scales rarely change."""
        plan = self._plan
        if plan is None or plan.names != names or plan.scale is not scale:
            self._plan = plan = _Plan.of(self._plain, names, scale)
        return plan


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the columns of one kind of request become the matrix; places count without the constant."""

    names: tuple[str, ...]
    scale: Mapping[str, tuple[float, float]]
    sources: IndexArray
    """Where each wanted column stands among the features; -1 is the score."""
    unknown: IndexArray
    """The wanted columns whose mean and deviation are the request's own."""
    mean: FloatArray
    deviation: FloatArray

    @classmethod
    def of(
        cls, wanted: Sequence[str], names: tuple[str, ...], scale: Mapping[str, tuple[float, float]]
    ) -> _Plan:
        missing = [name for name in wanted if name != SCORE and name not in names]
        if missing:
            raise InvalidBatch(
                f"`exploration.features` names {missing}, which no plugin supplied for this request "
                f"(supplied: {list(names)}). Exploration is left out until they are there again."
            )
        known = [scale.get(name, (0.0, 1.0)) for name in wanted]
        return cls(
            names=names,
            scale=scale,
            sources=np.array([-1 if name == SCORE else names.index(name) for name in wanted], np.int64),
            unknown=np.array([place for place, name in enumerate(wanted) if name not in scale], np.int64),
            mean=np.array([mean for mean, _ in known], np.float64),
            deviation=np.array([deviation or 1.0 for _, deviation in known], np.float64),
        )


@kernel((FEATURES, VECTOR, ROWS, VECTOR, VECTOR, ROWS, FLOAT))
def _standardised(
    values: FeatureArray,
    scores: FloatArray,
    sources: IndexArray,
    mean: FloatArray,
    deviation: FloatArray,
    unknown: IndexArray,
    limit: float,
) -> FeatureArray:
    """Return the constant and the columns at `sources`, (n, 1 + c), in deviations from the mean, cut at `limit`.

    Those of the columns `unknown` are the request's own, over what is finite; a constant column has deviation 1.
    """
    n, width = len(scores), len(sources)
    mean, deviation = mean.copy(), deviation.copy()
    for column in unknown:
        source = sources[column]
        total, present = 0.0, 0
        for row in range(n):
            value = np.float64(values[row, source]) if source >= 0 else scores[row]
            if np.isfinite(value):
                total += value
                present += 1
        mean[column] = total / max(present, 1)
        total = 0.0
        for row in range(n):
            value = np.float64(values[row, source]) if source >= 0 else scores[row]
            if np.isfinite(value):
                total += (value - mean[column]) ** 2
        spread = np.sqrt(total / max(present, 1))
        deviation[column] = spread if spread > 0.0 else 1.0
    per_deviation = 1.0 / deviation  # a division takes longer than all the rest of a cell
    matrix = np.empty((n, 1 + width), np.float32)
    for row in range(n):
        matrix[row, 0] = 1.0
        for column in range(width):
            source = sources[column]
            value = np.float64(values[row, source]) if source >= 0 else scores[row]
            value = (value - mean[column]) * per_deviation[column]
            matrix[row, 1 + column] = 0.0 if np.isnan(value) else min(max(value, -limit), limit)
    return matrix
