"""`explorank check-data`, and what `features` and `train` put aside, as somebody types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from explorank.pipeline import quarantine

pytest.importorskip("pandera")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(installation: Path, monkeypatch: pytest.MonkeyPatch, run_command: Run) -> Run:
    monkeypatch.chdir(installation)
    bad = pd.read_parquet("interactions.parquet").astype({"user_id": object})
    bad.loc[3, "user_id"] = None
    bad.loc[5, "timestamp"] = pd.Timestamp("2150-01-01", tz="UTC")
    bad.to_parquet("bad.parquet")
    return run_command


def test_tables_are_looked_over_and_nothing_is_written(run: Run, installation: Path) -> None:
    code, out, _ = run("check-data", "--interactions", "bad.parquet", "--items", "items.parquet")
    assert code == 0
    for part in (
        "missing id",
        "time travel: future",
        "1 of 1,200 interactions (0.08%)",
        "put aside",
        "row 3: user_id None",
    ):
        assert part in out
    code, out, _ = run("check-data", "--interactions", "bad.parquet", "--json")
    findings = json.loads(out)["findings"]
    assert [one["rule"] for one in findings if one["put_aside"]] == ["missing id", "time travel: future"]
    _, out, _ = run("check-data", "--interactions", "interactions.parquet", "--users", "users.parquet")
    assert out == "40 users, 1,200 interactions: every row keeps every rule\n"
    assert not (installation / ".explorank" / "quarantine").exists()


def test_training_puts_bad_rows_aside_and_says_where(run: Run, installation: Path) -> None:
    code, out, err = run(
        "train", "--interactions", "bad.parquet", "-o", "rounds=5", "--tracker", "none", "--no-promote"
    )
    assert code == 0, err
    assert "time travel: future" in out
    (file,) = (installation / ".explorank" / "quarantine").glob("interactions-*.parquet")
    assert f"put aside: {file}" in out
    assert pd.read_parquet(file)["row"].tolist() == [3, 5]


def test_without_pandera_the_tables_are_used_and_that_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "can_check", lambda: False)
    arguments = ("train", "-o", "rounds=5", "--tracker", "none", "--no-promote", "--interactions")
    code, out, _ = run(*arguments, "interactions.parquet")
    assert code == 0
    assert "not checked for bad rows: pandera is not installed" in out
    code, _, err = run(*arguments, "bad.parquet")
    assert code == 1
    assert "Column 'user_id' of interactions, row 3" in err
