"""Clicks are seen through slots: how likely each slot is looked at, and data that allow for it.

The position-based model (Richardson et al. 2007): a click is an item that is taken up once it is looked at, times a
slot that was looked at. P(click at slot k) = θ_k · P(relevant).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.rankers._training import Objective
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining

PositionBias: TypeAlias = Literal["none", "weights", "lightgbm"]

LARGEST_WEIGHT: Final = 20.0
"""No click counts more often than this, so that one in a slot that nobody looks at does not rule the rest."""


def check_examination(examination: Sequence[float]) -> None:
    """Raise `InvalidTraining` unless these are probabilities above 0, one per slot."""
    curve = np.asarray(examination, np.float64)
    if curve.ndim != 1 or not ((curve > 0) & (curve <= 1)).all():
        raise InvalidTraining(
            f"`examination` is {list(examination)}; it holds the probability that each slot is looked at, from the "
            "first one on, above 0 and at most 1. `examination_from_random_slots` estimates it."
        )


def examination_from_random_slots(
    positions: ArrayLike, clicks: ArrayLike, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return how likely each slot is looked at, relative to the likeliest one, (slots,), from randomised slots.

    `positions` (n,) and `clicks` (n,) are of rows whose slot did not depend on how good they are: explored ones, say.
    `weights` (n,) are their inverse propensities where slots were drawn unevenly. As an item is as good in one slot as
    in another, the mean of clicks by slot is proportional to the probability of examination (Joachims et al. 2017).
    Raises `InvalidTraining` for a slot without a click, of which nothing can be said.
    """
    slots, taken = np.asarray(positions, np.int64), np.asarray(clicks, np.float64)
    weigh = np.ones(len(slots)) if weights is None else np.asarray(weights, np.float64)
    shown = np.bincount(slots, weigh)
    clicked = np.bincount(slots, weigh * taken)
    if not len(shown) or (clicked <= 0).any():
        slot = int(clicked.argmin()) if len(shown) else 0
        raise InvalidTraining(
            f"No click was seen in slot {slot} of {len(shown)}, so how likely it is looked at is unknown. Gather more "
            "randomised slots, or leave the last ones out."
        )
    rates = clicked / shown
    relative: NDArray[np.float64] = rates / rates.max()
    return relative


def corrected(data: RankingData, objective: Objective, examination: Sequence[float]) -> RankingData:
    """Return `data` with clicks weighed by the inverse propensity of having been looked at.

    - `lambdarank`: each row that was taken up becomes a request of its own with the rows below it in grade, and all
      of that request's pairs weigh 1/θ of its slot: the propensity-weighted pairwise loss (Joachims et al. 2017), which
      one weight per row cannot express, because a row that was not taken up is compared with several that were.
    - `binary`: rows that were taken up weigh 1/θ. The odds come out as r / (1 - θ r) for a rate r: close to r where
      few are taken up.
    - `regression`, `poisson`, `tweedie`: the amount is divided by θ. Its mean is then that of a slot that is looked at,
      and these losses are linear in the amount.

    No weight exceeds `LARGEST_WEIGHT`. Weights that `data` has are kept as factors. Raises `InvalidTraining` for data
    without positions, or with slots beyond `examination`.
    """
    inverse = _inverse_propensities(data, examination)
    before = np.ones(len(data)) if data.weights is None else data.weights
    if objective == "lambdarank":
        return _one_request_per_click(replace(data, weights=before), inverse)
    if objective == "binary":
        return replace(data, weights=np.where(data.labels > 0, inverse, 1.0) * before)
    return replace(data, labels=data.labels * inverse)


def _inverse_propensities(data: RankingData, examination: Sequence[float]) -> NDArray[np.float64]:
    if data.positions is None:
        raise InvalidTraining(
            f"`position_bias` asks in which slot each row was shown, and the {data.called} data has no positions. Pass "
            "them, or set `position_bias: none`."
        )
    curve = np.asarray(examination, np.float64)
    last = int(data.positions.max(initial=0))
    if last >= len(curve):
        raise InvalidTraining(
            f"The {data.called} data has a row in slot {last}, and `examination` ends with slot {len(curve) - 1}; what "
            "a click there counts is unknown. Add the slots that are missing."
        )
    inverse: NDArray[np.float64] = np.minimum(1.0 / curve, LARGEST_WEIGHT)[data.positions]
    return inverse


def _one_request_per_click(data: RankingData, inverse: NDArray[np.float64]) -> RankingData:
    """Return one request for each row above grade 0: itself and the rows of its request that have a lower grade."""
    request_of = data.request_of
    sizes = np.ones(len(data), np.int64) if data.groups is None else data.groups
    starts = np.cumsum(sizes) - sizes
    clicks = np.flatnonzero(data.labels > 0)
    lengths = sizes[request_of[clicks]]
    click_of = np.repeat(clicks, lengths)
    offsets = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = starts[request_of[click_of]] + offsets
    kept = (rows == click_of) | (data.labels[rows] < data.labels[click_of])
    rows, click_of = rows[kept], click_of[kept]
    weights = np.ones(len(data)) if data.weights is None else data.weights
    return replace(
        data,
        features=data.features[rows],
        labels=data.labels[rows],
        groups=np.unique(click_of, return_counts=True)[1],
        weights=inverse[click_of] * weights[rows],
        positions=None,
        outcomes={},
        teacher={},
        item_ids=None,
        histories=None,
        user_ids=None,
    )
