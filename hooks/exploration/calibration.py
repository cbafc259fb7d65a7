"""From a ranker's score to the reward that it stands for: where a warm start begins.

A ranker orders candidates on a scale of its own. Exploration that is to begin from what it knows needs
g(score), what is earned on average at that score, in the reward's unit: policies then learn the residual
r - g(score), and before any reward, their expectation is g. Learning from residuals corrects a g that is wrong
for an item; what g must be is monotone, so that the ranker's order is kept, and of the right size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState, InvalidBatch
from explorank.hooks.exploration.logistic import laplace, sigmoid
from explorank.hooks.types import FloatArray

Method: TypeAlias = Literal["isotonic", "logistic", "linear"]

METHODS: Final[tuple[Method, ...]] = ("isotonic", "logistic", "linear")
_FILE: Final = "calibration.bin"
# Knots of a logistic curve. Between two of 512 over the scores seen, a straight line is within 1e-4 of it, unless
# it rises as a step.
_KNOTS: Final = 512


@dataclass(frozen=True, eq=False)
class Calibration:
    """A monotone map by its knots: straight between two of them, constant beyond the first and the last."""

    scores: FloatArray  # (k,) rising
    rewards: FloatArray  # (k,) never falling
    method: Method = "isotonic"
    ranker: str = ""
    """The version of the ranker whose scores it maps; empty for scores that a host brings."""

    def __post_init__(self) -> None:
        """Check that the knots are a map."""
        scores = np.asarray(self.scores, dtype=np.float64)
        rewards = np.asarray(self.rewards, dtype=np.float64)
        if (
            scores.ndim != 1
            or not len(scores)
            or scores.shape != rewards.shape
            or not (np.isfinite(scores).all() and np.isfinite(rewards).all())
            or (np.diff(scores) <= 0.0).any()
            or (np.diff(rewards) < 0.0).any()
        ):
            raise InvalidBatch(
                f"A calibration was given knots of shapes {scores.shape} and {rewards.shape} that are no map: "
                "scores must rise, and rewards never fall, all finite. Make one by `Calibration.fit`."
            )
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "rewards", rewards)

    @property
    def version(self) -> str:
        """Names the map in decisions: 16 hex digits that follow from its knots and its ranker."""
        digest = hashlib.blake2b(self.ranker.encode(), digest_size=8)
        digest.update(self.scores.tobytes())
        digest.update(self.rewards.tobytes())
        return digest.hexdigest()

    def __call__(self, scores: ArrayLike) -> FloatArray:
        """Return what each of `scores` (n,) stands for in the reward's unit, (n,)."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.rewards)

    @classmethod
    def fit(
        cls,
        scores: ArrayLike,
        rewards: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        method: Method = "isotonic",
        ranker: str = "",
    ) -> Self:
        """Return the map that fits what was earned at each score, all (m,).

        `isotonic` takes any monotone shape (Zadrozny and Elkan, *Transforming Classifier Scores into Accurate
        Multiclass Probability Estimates*, 2002), which wants some thousand rewards. `logistic` is a curve for
        rewards in [0, 1] (Platt, *Probabilistic Outputs for Support Vector Machines*, 1999, without its smoothing
        of targets), `linear` a straight line for any; both are constant beyond the scores seen, and flat where the
        reward falls with the score.

        Raises `InvalidBatch` for numbers that are not finite, negative weights, and nothing of weight.
        """
        x, y, w = _observed(scores, rewards, weights)
        if method == "logistic":
            return cls(*_logistic(x, y, w), method, ranker)
        if method == "linear":
            return cls(*_linear(x, y, w), method, ranker)
        return cls(*_isotonic(x, y, w), method, ranker)

    def carried_over(self, scores: ArrayLike, others: ArrayLike, *, ranker: str) -> Calibration:
        """Return this map for the scores of another ranker, by rank: equal shares of candidates earn alike.

        `scores` (m,) are this ranker's of some candidates, `others` (m,) the other's of the same ones. The scale of
        the reward is kept; who is worth what is as the other ranks them. It holds as far as the two are about as
        good, until rewards of the other have come to fit a map of its own.
        """
        x, y, _ = _observed(scores, others, None)
        shares = np.linspace(0.0, 1.0, _KNOTS)
        knots, place = np.unique(np.quantile(y, shares), return_inverse=True)
        values = np.bincount(place, weights=self(np.quantile(x, shares))) / np.bincount(place)
        return Calibration(knots, np.maximum.accumulate(values), self.method, ranker)

    def dumps(self) -> bytes:
        """Return the map as checksummed bytes, nothing pickled."""
        meta = {"calibration": 1, "method": self.method, "ranker": self.ranker}
        return arrays.dumps(meta, {"scores": self.scores, "rewards": self.rewards})

    @classmethod
    def loads(cls, data: bytes) -> Self:
        """Return what `dumps` wrote; raise `CorruptState` for anything else."""
        meta, named = arrays.loads(data)
        try:
            if meta.get("calibration") == 1:
                return cls(named["scores"], named["rewards"], meta["method"], meta["ranker"])
            reason = f"of layout {meta.get('calibration')!r}"
        except (KeyError, InvalidBatch) as error:
            reason = str(error)
        raise CorruptState(
            f"These bytes are intact and no calibration of this version ({reason}); scores would be taken for "
            "rewards that they do not stand for. Fit it again."
        )

    def save(self, folder: Path) -> None:
        """Write the map into `folder`."""
        arrays.write_atomic(folder / _FILE, self.dumps())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the map in `folder`; raise `CorruptState` for a damaged one."""
        return cls.loads((folder / _FILE).read_bytes())


@dataclass(frozen=True, slots=True)
class Bin:
    """Rewards whose score stands for about the same."""

    lowest_score: float
    highest_score: float
    count: int
    expected: float
    """The mean of what the map says."""
    observed: float
    """The mean of what was earned."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How true a map is of rewards that it was not fitted to."""

    error: float
    """The mean distance of expected and observed over the bins, by weight (ECE), in the reward's unit."""
    squared_error: float
    """The mean square of reward less expectation."""
    bins: tuple[Bin, ...]


def reliability(
    calibration: Calibration,
    scores: ArrayLike,
    rewards: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    bins: int = 10,
) -> Reliability:
    """Return how far the map is from `rewards` earned at `scores`, both (m,), in bins of about equal weight.

    Scores that are equal share a bin. With m rewards of variance v a perfect map has an error of about
    sqrt(2 · v · bins / (π · m)), not 0.
    """
    x, y, w = _observed(scores, rewards, weights)
    _, place = np.unique(x, return_inverse=True)
    by_score = np.bincount(place, weights=w)
    # The middle of each score's weight says which share of all lies below it.
    middle = (np.cumsum(by_score) - by_score / 2.0) / by_score.sum()
    group = np.minimum((middle * bins).astype(np.int64), bins - 1)[place]
    expected = calibration(x)
    made = []
    error = 0.0
    for number in np.unique(group).tolist():
        at = group == number
        mean_expected = float(np.average(expected[at], weights=w[at]))
        mean_observed = float(np.average(y[at], weights=w[at]))
        error += float(w[at].sum()) * abs(mean_expected - mean_observed)
        made.append(Bin(float(x[at].min()), float(x[at].max()), int(at.sum()), mean_expected, mean_observed))
    squared = float(np.average((y - expected) ** 2, weights=w))
    return Reliability(error / float(w.sum()), squared, tuple(made))


def effective_number(weights: ArrayLike) -> float:
    """Return how many rewards of equal weight say as much: (Σ w)² / Σ w² (Kish)."""
    w = np.asarray(weights, dtype=np.float64)
    squares = float(w @ w)
    return float(w.sum()) ** 2 / squares if squares else 0.0


def _observed(
    scores: ArrayLike, rewards: ArrayLike, weights: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the columns, (m,) each, those of weight 0 left out."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not x.shape == y.shape == w.shape or x.ndim != 1:
        raise InvalidBatch(
            f"{x.shape} scores, {y.shape} rewards and {w.shape} weights; a map is fitted to one of each per reward."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(w).all()) or (w < 0.0).any():
        raise InvalidBatch(
            "A score, reward or weight is not finite, or a weight is negative; no mean could be taken. Leave such "
            "rows out."
        )
    counted = w > 0.0
    if not counted.any():
        raise InvalidBatch(
            "There is no reward of any weight, so nothing says what a score stands for. Collect some first."
        )
    return x[counted], y[counted], w[counted]


def _isotonic(x: FloatArray, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    # A second of imports, and needed where a map is fitted only, never in a request.
    from scipy.optimize import isotonic_regression  # noqa: PLC0415

    levels, place = np.unique(x, return_inverse=True)
    weight = np.bincount(place, weights=w)
    mean = np.bincount(place, weights=w * y) / weight
    fitted: NDArray[Any] = isotonic_regression(mean, weights=weight).x
    # Within a step only its ends are knots.
    ends = np.ones(len(levels), np.bool_)
    ends[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    return levels[ends], np.maximum.accumulate(fitted[ends])


def _linear(x: FloatArray, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    center, mean = np.average(x, weights=w), np.average(y, weights=w)
    spread = w @ (x - center) ** 2
    slope = max(float(w @ ((x - center) * (y - mean)) / spread), 0.0) if spread > 0.0 else 0.0
    knots = np.unique([x.min(), x.max()])
    return knots, mean + slope * (knots - center)


def _logistic(x: FloatArray, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    if (y < 0.0).any() or (y > 1.0).any():
        raise InvalidBatch(
            f"Rewards from {y.min()} to {y.max()} have no logistic map, whose values are probabilities. Use "
            "`isotonic` or `linear`."
        )
    center = np.average(x, weights=w)
    deviation = np.sqrt(np.average((x - center) ** 2, weights=w)) or 1.0
    design = np.column_stack([np.ones(len(x)), (x - center) / deviation])
    # Half a success and half a failure more, at no score in particular, keep separable data from infinity.
    prior = 0.5 * np.eye(2)
    theta, _ = laplace(np.zeros(2), prior, design, y, w)
    knots = np.unique(np.linspace(x.min(), x.max(), _KNOTS))
    if theta[1] <= 0.0:
        return knots[[0, -1]] if len(knots) > 1 else knots, np.full(
            min(len(knots), 2), np.average(y, weights=w)
        )
    curve = sigmoid(theta[0] + theta[1] * (knots - center) / deviation)
    return knots, np.maximum.accumulate(curve)
