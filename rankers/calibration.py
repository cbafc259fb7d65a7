"""How well probabilities come true: the reliability curve, the expected calibration error, and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.rankers.errors import InvalidProbabilities, MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Z: Final = 1.959963984540054
"""Of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityCurve:
    """Rows sorted by probability and cut into bins of equal size: what was foreseen and what happened, bin by bin."""

    foreseen: NDArray[np.float64]
    """(bins,) the mean probability of each bin's rows."""
    observed: NDArray[np.float64]
    """(bins,) the share of them whose label is 1."""
    lower: NDArray[np.float64]
    """(bins,) where the 95 % interval of `observed` begins (Wilson 1927),"""
    upper: NDArray[np.float64]
    """(bins,) and where it ends."""
    rows: NDArray[np.int64]
    """(bins,) how many rows each bin holds."""

    @property
    def expected_calibration_error(self) -> float:
        """The mean distance of `foreseen` from `observed`, each bin weighing its rows (Naeini et al. 2015)."""
        return float(np.average(np.abs(self.foreseen - self.observed), weights=self.rows))


def reliability_curve(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> ReliabilityCurve:
    """Return the curve of probabilities (n,) beside labels (n,) of 0 and 1, in `bins` bins of equally many rows.

    Equal probabilities stay in one bin, so there may be fewer bins. Raises `InvalidProbabilities` for what is no
    probability, and for labels other than 0 and 1.
    """
    chances, found = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    _check(chances, found, bins)
    order = np.argsort(chances, kind="stable")
    chances, found = chances[order], found[order]
    starts = np.linspace(0, len(chances), min(bins, len(chances)), endpoint=False).astype(np.int64)
    starts = np.unique(np.searchsorted(chances, chances[starts]))
    rows = np.diff(np.append(starts, len(chances)))
    observed = np.add.reduceat(found, starts) / rows
    centre = (observed + _Z**2 / (2 * rows)) / (1 + _Z**2 / rows)
    half = _Z / (1 + _Z**2 / rows) * np.sqrt(observed * (1 - observed) / rows + _Z**2 / (4 * rows**2))
    return ReliabilityCurve(
        foreseen=np.add.reduceat(chances, starts) / rows,
        observed=observed,
        lower=centre - half,
        upper=centre + half,
        rows=rows,
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """Return the mean distance between foreseen and observed rates, over `bins` bins of equally many rows.

    Chance alone makes it greater than 0: with r rows a bin, about 0.8 √(p (1 - p) / r). Raises
    `InvalidProbabilities` as `reliability_curve` does.
    """
    return reliability_curve(probabilities, labels, bins=bins).expected_calibration_error


def plot_reliability(curves: Mapping[str, ReliabilityCurve], axes: Axes | None = None) -> Axes:
    """Draw curves by name, with their intervals, beside the diagonal; return the axes they are drawn on.

    Raises `MissingDependency` without matplotlib.
    """
    if axes is None:
        axes = _figure().add_subplot()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="comes true")
    for name, curve in curves.items():
        around = np.maximum([curve.observed - curve.lower, curve.upper - curve.observed], 0.0)
        label = f"{name} (ECE {curve.expected_calibration_error:.3f})"
        axes.errorbar(
            curve.foreseen, curve.observed, around, marker="o", markersize=3, capsize=2, label=label
        )
    furthest = max((max(curve.foreseen.max(), curve.upper.max()) for curve in curves.values()), default=1.0)
    axes.set(xlim=(0, furthest * 1.02), ylim=(0, furthest * 1.02), xlabel="foreseen", ylabel="observed")
    axes.legend()
    return axes


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only who plots needs it
    except ImportError as error:
        raise MissingDependency(
            "matplotlib is not installed, which draws the curve; its numbers need nothing. Install it with "
            "`pip install 'explorank[train]'`."
        ) from error
    return Figure(figsize=(4.5, 4.5), layout="constrained")


def _check(probabilities: NDArray[np.float64], labels: NDArray[np.float64], bins: int) -> None:
    if probabilities.ndim != 1 or probabilities.shape != labels.shape or not len(labels):
        raise InvalidProbabilities(
            f"{probabilities.shape} probabilities for {labels.shape} labels; each row needs both, and there must be "
            "one at least. Pass (n,) and (n,)."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InvalidProbabilities(
            "Some probabilities lie outside [0, 1]; nothing can be said of whether they come true. Scores of a ranking "
            "objective become probabilities by `Calibrated`."
        )
    if not np.isin(labels, [0.0, 1.0]).all():
        raise InvalidProbabilities("Some labels are neither 0 nor 1. Set a threshold.")
    if bins < 1:
        raise InvalidProbabilities(f"bins={bins} hold no rows. Set 1 or more; 15 is usual.")
