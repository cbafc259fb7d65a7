"""Which way a LightGBM model is scored: by the compiled forest where it is exact, by LightGBM itself otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import lightgbm
import numpy as np
from numba.core.errors import NumbaError
from numpy.typing import NDArray

from explorank.rankers._lightgbm_text import ModelText
from explorank.rankers.errors import UnsupportedModel
from explorank.rankers.forest import Forest

_ROWS: Final = 512
_SPECIAL: Final = np.array(
    [
        *(np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 9e-36, 1e-35, 1.1e-35, -1e-35, -1.1e-35),
        *(3.4028235e38, -3.4028235e38, -0.5, 0.5, -1.0, 1.0, 1.5, 2.0, 3.0, 7.9, 2.1474836e9, -2.1474836e9),
        *(2.0**31, 1e10, -1e10),
    ],
    np.float32,
)
"""Where comparisons and conversions change: missing, zero to LightGBM and just not, ends of the number lines."""
_ENDS: Final = np.array([-np.inf, np.inf], np.float32)
_SPECIAL_ROWS: Final = 6 * len(_SPECIAL)
"""How many of each feature's values are special; the others lie at its thresholds."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a ranker scores."""

    method: Literal["lockstep", "booster"]
    """`lockstep`: the compiled forest, rows walking in step. `booster`: LightGBM's own prediction, slower."""
    reason: str = ""
    """Why it is not `lockstep`."""


def exact_forest(model_text: str, booster: lightgbm.Booster) -> tuple[Forest | None, Scoring]:
    """Return the model as a compiled forest if that predicts exactly what the booster does, and how to score.

    This compiles whatever is to be compiled, and compares both on rows of `probe_rows`.
    """
    try:
        model = ModelText.of(model_text)
        forest = Forest(model)
    except UnsupportedModel as error:
        return None, Scoring("booster", str(error))
    except NumbaError as error:
        return None, Scoring("booster", f"Numba cannot compile the forest on this machine: {error}")
    rows = probe_rows(model)
    ours, theirs = forest.predict(rows), booster.predict(rows, num_threads=1)
    different = int((ours.view(np.int64) != theirs.view(np.int64)).reshape(len(rows), -1).any(axis=1).sum())
    if different:
        return None, Scoring(
            "booster",
            f"On {different} of {len(rows)} probe rows the compiled forest and LightGBM {lightgbm.__version__} "
            "give different scores.",
        )
    return forest, Scoring("lockstep")


def probe_rows(model: ModelText) -> NDArray[np.float32]:
    """Return rows (512, d) of values at which the model's decisions change, or other code's often do.

    They are thresholds and their next neighbours on both sides, categories, and values that are special to
    LightGBM; always the same for the same model.
    """
    rng = np.random.default_rng(0)
    special = np.tile(_SPECIAL, _SPECIAL_ROWS // len(_SPECIAL))
    is_category = (model.decision & 1) > 0
    order = np.argsort(model.feature, kind="stable")
    bounds = np.searchsorted(model.feature[order], np.arange(model.features + 1))
    rows = np.zeros((_ROWS, model.features), np.float32)
    for feature in range(model.features):
        splits = order[bounds[feature] : bounds[feature + 1]]
        usual = rng.integers(0, 32 * int(model.set_words.max(initial=1)) + 2, _ROWS - _SPECIAL_ROWS)
        if len(splits) and not is_category[splits].any():
            with np.errstate(over="ignore"):
                usual = rng.choice(model.threshold[splits], len(usual)).astype(np.float32)
                for _ in range(2):  # two steps reach both neighbours, and come back as often
                    usual = np.nextafter(usual, rng.choice(_ENDS, len(usual)))
        rows[:, feature] = rng.permutation(np.concatenate([special, usual]))
    return rows
