"""What was measured, and how it is told."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.environment import lines

Unit: TypeAlias = Literal["µs", "times numpy", "rewards/s"]


@dataclass(frozen=True)
class Target:
    """What a case should reach: at most `limit`, or for rewards/s at least."""

    limit: float
    unit: Unit


@dataclass(frozen=True)
class Result:
    """What was measured of a case; times in microseconds."""

    section: str
    name: str
    size: int
    us: float
    quartiles_us: tuple[float, float]
    reference_us: float | None
    ratio: float | None
    rewards_per_s: float | None
    target: Target | None

    @property
    def measured(self) -> float | None:
        """The number that the target speaks of; `None` without a target."""
        if self.target is None:
            return None
        return {"µs": self.us, "times numpy": self.ratio, "rewards/s": self.rewards_per_s}[self.target.unit]

    @property
    def reference_measured(self) -> float | None:
        """What `measured` is for plain numpy; `None` without a reference."""
        if self.target is None or self.reference_us is None:
            return None
        rate = (self.rewards_per_s or 0.0) * self.us / self.reference_us
        return {"µs": self.reference_us, "times numpy": 1.0, "rewards/s": rate}[self.target.unit]

    @property
    def met(self) -> bool | None:
        """Whether the target is met; `None` where there is none."""
        if self.target is None or self.measured is None:
            return None
        limit = self.target.limit
        return self.measured >= limit if self.target.unit == "rewards/s" else self.measured <= limit

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "met": self.met}


def markdown_table(headings: Sequence[str], left: Container[str] = ()) -> Table:
    """Return an empty table in Markdown: the first column and those in `left` stand left, numbers right."""
    table = Table(box=box.MARKDOWN)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 or heading in left else "right")
    return table


def tell_facts(facts: Mapping[str, Any], console: Console) -> None:
    """Print what the numbers depend on."""
    console.print("\n".join(lines(facts)), highlight=False)


def report(results: Sequence[Result], facts: dict[str, Any], console: Console) -> None:
    """Print the environment, a table for each section, and the targets."""
    tell_facts(facts, console)
    for section in dict.fromkeys(result.section for result in results):
        chosen = [result for result in results if result.section == section]
        learns = any(result.rewards_per_s is not None for result in chosen)
        rate = ["rewards/s"] if learns else []
        table = markdown_table(["", "size", "Explorank µs", "reference µs", "ratio", *rate])
        for result in chosen:
            table.add_row(*_cells(result, learns=learns))
        console.print(f"\n### {section}", table, highlight=False)
    console.print("\n### Targets", _targets(results), highlight=False)


def _cells(result: Result, *, learns: bool) -> list[str]:
    low, high = result.quartiles_us
    rate = "" if result.rewards_per_s is None else f"{result.rewards_per_s:,.0f}"
    return [
        result.name,
        f"{result.size:,}",
        f"{_short(result.us)} ({_short(low)} to {_short(high)})",
        "" if result.reference_us is None else _short(result.reference_us),
        "" if result.ratio is None else f"{result.ratio:.2f}",
        *([rate] if learns else []),
    ]


def _targets(results: Sequence[Result]) -> Table:
    table = Table(box=box.MARKDOWN)
    for heading in ("", "target", "Explorank", "reference", ""):
        table.add_column(heading)
    for result in results:
        target, measured = result.target, result.measured
        if target is None or measured is None:
            continue
        bound = "at least" if target.unit == "rewards/s" else "at most"
        table.add_row(
            f"{result.section.partition(':')[0]}, {result.name}, {result.size:,}",
            f"{bound} {target.limit:,.0f} {target.unit}",
            _short(measured),
            "" if result.reference_measured is None else _short(result.reference_measured),
            "met" if result.met else "MISSED",
        )
    return table


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100.0 else f"{number:.3g}"
