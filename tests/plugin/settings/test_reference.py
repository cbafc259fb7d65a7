from __future__ import annotations

from pathlib import Path

from explorank.settings import Settings
from explorank.settings.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_page_is_up_to_date(registry):
    assert PAGE.read_text(encoding="utf-8") == reference(registry), (
        "docs/settings.md lags behind the code; run `python -m explorank.settings.reference > docs/settings.md`"
    )


def test_the_page_has_every_section_and_component(registry):
    page = reference(registry)
    for section in Settings.model_fields:
        assert f"| `{section}` |" in page
    for kind in ("policy", "guard", "retriever", "ranker"):
        for name in registry.names(kind):
            assert f"#### `{name}`" in page
