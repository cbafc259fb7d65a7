"""The commented explorank.yaml that `explorank init` writes."""

from __future__ import annotations

from importlib.resources import files


def template() -> str:
    """Return the text of a complete explorank.yaml that explains each of its sections."""
    return files(__package__).joinpath("template.yaml").read_text(encoding="utf-8")
