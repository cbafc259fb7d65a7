"""Draws what each feature added to the scores of a decision."""

from __future__ import annotations

from pathlib import Path

from explorank.errors import DataError
from explorank.explanation import DecisionExplanation, ItemExplanation


def draw(explained: DecisionExplanation, file: Path, *, features: int = 5) -> None:
    """Write a plot into `file`: a panel per item, with a bar for each of its largest parts, the rest and the base.

    Raises `DataError` where there is nothing to draw, matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise DataError(
            f"Plots need matplotlib, which is not installed ({error}). Run `pip install 'explorank[train]'`, or leave "
            "out --plot."
        ) from error
    items = [one for one in explained.items if one.base is not None]
    if not items:
        raise DataError(
            f"Decision {explained.decision_id} has no attributions to draw: {' '.join(explained.notes)} Leave out "
            "--plot."
        )
    figure = Figure(figsize=(8, 0.8 + len(items) * (0.9 + 0.25 * (features + 2))), layout="constrained")
    for axes, one in zip(figure.subplots(len(items), squeeze=False)[:, 0], items, strict=True):
        labels, sizes = _bars(one, features)
        colours = ["#4477aa" if size >= 0 else "#cc6677" for size in sizes]
        axes.barh(range(len(sizes)), sizes, color=colours)
        axes.set_yticks(range(len(sizes)), labels)
        axes.invert_yaxis()
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_title(
            f"{_escaped(one.item_id)}: score {one.score:.4f}, {_escaped(_place(one))}",
            fontsize=10,
            loc="left",
        )
    figure.supxlabel("added to the raw score")
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} could not be drawn ({error}). Name a file that can be written, ending in .png, .svg or .pdf."
        ) from error


def _bars(one: ItemExplanation, features: int) -> tuple[list[str], list[float]]:
    shown, rest = one.parts[:features], one.parts[features:]
    labels = [_escaped(f"{part.name} = {_value(part.value, part.text)}") for part in shown]
    sizes = [part.attribution for part in shown]
    if rest:
        labels.append(f"{len(rest)} others")
        sizes.append(sum(part.attribution for part in rest))
    assert one.base is not None  # noqa: S101 - `draw` leaves out the others
    return [*labels, "base"], [*sizes, one.base]


def _value(value: float | None, text: str | None) -> str:
    return "missing" if value is None else text or f"{value:.4g}"


def _place(one: ItemExplanation) -> str:
    if one.slot is None:
        return "not shown"
    how = "best by score" if one.method == "score" else f"drawn with probability {one.propensity:.3f}"
    return f"slot {one.slot}, {how}"


def _escaped(text: str) -> str:
    return text.replace("$", r"\$")  # or matplotlib reads a formula
