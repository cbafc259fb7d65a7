"""The measured parts of `docs/regret.md`, which stand between marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

END = "<!-- end of what was measured -->"


def mark(section: str) -> str:
    """Return the line after which a section's lines stand."""
    return f"<!-- measured: {section} -->"


def filled(text: str, sections: Mapping[str, Sequence[str]]) -> str:
    """Return `text` with the lines of each section in place; raise `ValueError` where it has no such marks."""
    for section, lines in sections.items():
        before, found, rest = text.partition(mark(section) + "\n")
        _, ended, after = rest.partition(END)
        if not found or not ended:
            raise ValueError(
                f"The page has no lines {mark(section)!r} and {END!r} after it, so that the results of "
                f"{section!r} have no place there. Add them."
            )
        text = before + found + "\n".join(lines) + "\n" + ended + after
    return text


def write(path: Path, sections: Mapping[str, Sequence[str]]) -> None:
    """Put the lines of each section into the page at `path`."""
    path.write_text(filled(path.read_text(encoding="utf-8"), sections), encoding="utf-8")
