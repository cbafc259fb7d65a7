"""The example host runs as it stands, and its shop learns what its visitors want."""

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from explorank.hooks.feedback import read_log

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A copy, so that the log lies in a folder of its own."""
    for name in ("host.py", "host.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    return tmp_path / "host.py"


def test_it_shows_what_its_visitors_click(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(host), run_name="__main__")
    # One of 20 items earns every reward; after 200 pages it must be in one of the two explored slots.
    assert "mug-13" in capsys.readouterr().out


def test_every_page_and_click_is_in_the_log(host: Path) -> None:
    shop = runpy.run_path(str(host))["Shop"](host.with_suffix(".yaml"))
    pages: list[tuple[Any, ...]] = []
    try:
        for visit in range(5):
            decision_id, items, propensities = shop.page(f"visitor-{visit}")
            shop.clicked(decision_id, 1, items[1], 1.0)
            shop.clicked(decision_id, 1, items[1], 1.0)  # sent again: counts once
            pages.append((decision_id, items, propensities))
    finally:
        shop.manager.hook.ranking_shutdown()
    logged = {entry.record.decision_id: entry for entry in read_log(host.parent / ".explorank" / "log")}
    assert set(logged) == {decision_id for decision_id, _, _ in pages}
    for decision_id, items, propensities in pages:
        assert logged[decision_id].record.shown_ids == items
        assert logged[decision_id].record.slate.propensities.tolist() == propensities
        assert [(reward.slot, reward.item_id) for reward in logged[decision_id].rewards] == [(1, items[1])]


def test_it_is_as_short_as_it_says() -> None:
    assert len((EXAMPLES / "host.py").read_text(encoding="utf-8").splitlines()) < 60
