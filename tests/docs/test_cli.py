"""The page of the commands is the one that the commands give."""

from pathlib import Path

from explorank.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "docs/cli.md lags behind the code; run `python -m explorank.cli.reference > docs/cli.md`"
    )
