"""One look for all plots: headless, colours that the colour-blind can tell apart, labels beside the lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("agg")
from matplotlib import pyplot as plt

# Okabe and Ito, *Color Universal Design* (2008), without the yellow that white paper swallows.
COLOURS: Final[dict[str, str]] = {
    "explorank": "#0072B2",
    "mabwiser": "#D55E00",
    "contextualbandits": "#009E73",
    "bayesianbandits": "#CC79A7",
    "vowpalwabbit": "#E69F00",
    "gittins": "#56B4E9",
}
GREY: Final = "#666666"
_STYLE: Final[dict[str, Any]] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "svg.fonttype": "none",
    # The same plot is the same file.
    "svg.hashsalt": "explorank",
    "figure.constrained_layout.use": True,
}


@contextmanager
def panels(path: Path, titles: Sequence[str], columns: int = 2, height: float = 2.4) -> Iterator[list[Any]]:
    """Yield a pair of axes for each title, and write the figure to `path` (SVG)."""
    rows = -(-len(titles) // columns)
    with plt.style.context(_STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(4.1 * columns, height * rows), squeeze=False)
        for axis in axes.flat[len(titles) :]:
            axis.remove()
        for axis, title in zip(axes.flat, titles, strict=False):
            axis.set_title(title)
        yield list(axes.flat[: len(titles)])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def curve(axis: Any, x: NDArray[Any], values: NDArray[Any], half: NDArray[Any], colour: str) -> None:
    """Draw a line, (C,), with its interval."""
    axis.plot(x, values, color=colour)
    axis.fill_between(x, values - half, values + half, color=colour, alpha=0.18, linewidth=0)


def label_ends(axis: Any, x: float, ends: Sequence[tuple[float, str, str]], gap: float = 0.075) -> None:
    """Write (height, text, colour) beside the right ends of lines, moved apart where they would touch.

    `gap` is the least distance, as a share of the axis.
    """
    low, high = axis.get_ylim()
    order = sorted(range(len(ends)), key=lambda row: ends[row][0])
    wanted = np.array([(ends[row][0] - low) / (high - low) for row in order])
    for row, height in zip(order, apart(wanted, gap), strict=True):
        _, text, colour = ends[row]
        axis.annotate(
            text,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=7,
        )
    axis.set_xlim(0, x)


def apart(heights: NDArray[Any], gap: float) -> NDArray[Any]:
    """Return rising `heights` (n,) moved as little as keeps neighbours `gap` apart, within 0 to 1 if they fit."""
    # Sums of steps that are at least `gap`: subtract the steps, make what is left rise, add them again.
    steps = gap * np.arange(len(heights))
    blocks: list[list[float]] = []
    for value in (heights - steps).tolist():
        blocks.append([value, 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (left, many), (right, more) = blocks[-2:]
            blocks[-2:] = [[(left * many + right * more) / (many + more), many + more]]
    rising = np.concatenate([np.full(int(size), value) for value, size in blocks]) if blocks else np.zeros(0)
    moved: NDArray[Any] = np.maximum(np.minimum(rising, 1.0 - gap * (len(heights) - 1)), 0.0) + steps
    return moved
