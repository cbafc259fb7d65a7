"""The installation that is served is a whole one, and the table says what was measured."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from explorank import load

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY)


def test_the_synthetic_installation_takes_every_step(tmp_path: Path) -> None:
    from benchmarks.synthetic import SLOTS, GatheredFeatures, prepare

    settings = prepare(tmp_path, items=600, candidates=200, trees=3, leaves=7)
    with load(settings, plugins=[GatheredFeatures()]) as stage:
        assert stage.readiness() == {}
        decision = stage.rank(user_id="3", slots=SLOTS)
        record = stage.decision(decision.decision_id)
    assert decision.fallbacks == ()
    assert decision.logged
    assert len(decision.items) == SLOTS
    assert [slot for slot, method in enumerate(decision.methods) if method == "explore"] == [2, 5, 8]
    assert decision.versions["ranker"]
    assert len(record.item_ids) > 150
    assert record.features.shape[1] == 16
    assert len(set(record.scores.tolist())) > 20


def test_the_table_names_the_sizes_and_the_target() -> None:
    from benchmarks.http import Answered, Result, report

    together = Answered(requests=4_000, seconds=10.0, refused=0, p50_ms=30.0, p99_ms=60.0)
    overloaded = Answered(requests=2_000, seconds=10.0, refused=500, p50_ms=40.0, p99_ms=49.0)
    result = Result(
        items=5_000,
        candidates=500,
        in_process_ms=3.0,
        in_process_p99_ms=4.5,
        http_ms=3.3,
        http_p99_ms=5.0,
        ratio=1.1,
        cpu_ratio=1.05,
        together=together,
        overloaded=overloaded,
        shed={"no_ranker": 0.25, "refused": 0.25},
    )
    console = Console(width=160, file=StringIO())
    report([result], {"cores": 2}, console)
    told = console.file.getvalue()
    for said in (
        "- cores: 2", "5,000 items, 500 candidates", "3.00 / 4.50", "3.30 / 5.00", "1.10", "1.05",
        "400", "30.0 / 60.0", "150", "40.0 / 49.0", "no_ranker 25%, refused 25%",
    ):  # fmt: skip
        assert said in told
