"""A LightGBM forest, compiled: the same scores to the last bit, in a fraction of the time, on the calling thread."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.rankers import _forest_kernels as kernels
from explorank.rankers._forest_layout import lay_out
from explorank.rankers._lightgbm_text import ModelText
from explorank.rankers.errors import FeatureMismatch, UnsupportedModel

_REGRESSIONS: Final = frozenset(
    {"regression", "regression_l1", "huber", "fair", "quantile", "mape"}
)  # with `sqrt`, LightGBM squares what they predict
_LINKS: Final = {
    "": kernels.IDENTITY,
    "custom": kernels.IDENTITY,
    "lambdarank": kernels.IDENTITY,
    "rank_xendcg": kernels.IDENTITY,
    **dict.fromkeys(_REGRESSIONS, kernels.IDENTITY),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), kernels.EXPONENTIAL),
    **dict.fromkeys(("binary", "multiclassova", "cross_entropy"), kernels.SIGMOID),
    "cross_entropy_lambda": kernels.LOG_ONE_PLUS_EXPONENTIAL,
    "multiclass": kernels.SOFTMAX,
}


class Forest:
    """Predicts what `lightgbm.Booster.predict` would, bit by bit; immutable, and safe for use from many threads.

    Sixteen rows at a time walk down one tree after another, without a branch that depends on them; sums are
    doubles, added in LightGBM's order. Takes every objective and boosting of LightGBM 4, missing values, zeros
    as missing, categories, several classes, features of float32. Numba compiles the walk once per machine (a
    few seconds, kept on disk) and never in a request.
    """

    def __init__(self, model: ModelText) -> None:
        """Take a model that was read; use `of`."""
        trees, columns = lay_out(model)
        link, scale = _link(model.objective)
        rounds = len(model.leaves) / model.classes if model.averaged else -1.0
        self.features: Final = model.features
        """How many features a row has."""
        self.classes: Final = model.classes
        """How many scores a row gets."""
        categories = len(columns.feature) > columns.numerical
        self._predict = kernels.compiled_predict(categories=categories)
        self._model = (
            trees.nodes,
            trees.leaf_values,
            (trees.starts, trees.knees),
            (
                columns.feature,
                columns.when_missing,
                columns.when_zero,
                columns.numerical,
                columns.category_starts,
            ),
            columns.categories,
            columns.sets if categories else None,
            (rounds, link, scale),
        )

    @classmethod
    def of(cls, model_text: str) -> Forest:
        """Compile a model in LightGBM's text format.

        Raises `UnsupportedModel` for linear trees, for trees of more than 8,192 leaves, for more than 16,384
        features (one counts once for each way its missing values go), and for an objective unknown here.
        """
        return cls(ModelText.of(model_text))

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return float64 scores, (n,) or with several classes (n, classes), for float32 features (n, d).

        NaN is missing. Any memory order will do. Raises `FeatureMismatch` for another dtype or shape.
        """
        if features.dtype != np.float32 or features.ndim != 2 or features.shape[1] != self.features:
            raise FeatureMismatch(
                f"Features of shape {features.shape} and dtype {features.dtype} for a forest that takes "
                f"(n, {self.features}) float32; it would read something else. Convert them."
            )
        if not features.flags.aligned:
            features = features.copy()
        scores = np.zeros((len(features), self.classes))
        self._predict(features, features.view(np.uint32), *self._model, scores)
        return scores if self.classes > 1 else scores[:, 0]


def _link(objective: tuple[str, ...]) -> tuple[int, float]:
    """Return how a raw score becomes a prediction, and the sigmoid's scale; raise `UnsupportedModel`."""
    name, *options = objective or ("",)
    if name not in _LINKS:
        raise UnsupportedModel(
            f"The model's objective is {name!r}, and how its raw scores become predictions is not known here."
        )
    if name in _REGRESSIONS and "sqrt" in options:
        return kernels.SIGNED_SQUARE, 1.0
    scales = [float(option.partition(":")[2]) for option in options if option.startswith("sigmoid:")]
    return _LINKS[name], scales[0] if scales else 1.0
