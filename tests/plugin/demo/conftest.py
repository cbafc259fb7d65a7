"""A small shop's tables, and a way to run `explorank demo` on tables as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest

from explorank import cli
from explorank.cli import console

Tables: TypeAlias = dict[str, pd.DataFrame]
RunDemo: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]

EXPLORANK = Path(sys.executable).with_name("explorank")
KINDS = ("tea", "bread", "soap", "candle", "cheese", "paper")


@pytest.fixture(scope="session")
def shop() -> Tables:
    """40 customers who each favour two kinds of 60 goods; ids are texts that a shell has to quote."""
    random = np.random.default_rng(8)
    goods = pd.DataFrame(
        {
            "item_id": [f"{kind}'s no. {number}" for kind in KINDS for number in range(10)],
            "title": [f"{kind.title()} <b>{number}</b>" for kind in KINDS for number in range(10)],
            "price": random.uniform(1, 20, 60).round(2),
            "maker": random.choice(["Ann", "Bob", "Cem"], 60),
            "tags": [list(random.choice(["new", "organic", "gift"], 2, replace=False)) for _ in range(60)],
            "in_season": random.random(60) < 0.5,
            "weight": [*map(str, random.integers(10, 900, 57)), "heavy", "n/a", ""],
        }
    )
    people = pd.DataFrame(
        {
            "user_id": [f"{number} O'Neil" for number in range(40)],
            "age": random.integers(18, 80, 40),
            "newsletter": random.random(40) < 0.3,
        }
    )
    kind_of = np.repeat(np.arange(6), 10)
    events = []
    for number, user in enumerate(people["user_id"]):
        favourite = np.isin(kind_of, [number % 6, (number // 6) % 6])
        weights = np.where(favourite, 3.0, 1.0)
        bought = random.choice(60, 32, replace=False, p=weights / weights.sum())
        hours = random.choice(24 * 60, 32, replace=False)
        events.append(
            pd.DataFrame(
                {
                    "user_id": user,
                    "item_id": goods["item_id"].to_numpy()[bought],
                    "timestamp": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(hours, unit="h"),
                    "value": np.where(
                        favourite[bought], random.integers(4, 6, 32), random.integers(1, 4, 32)
                    ),
                }
            )
        )
    return {"interactions": pd.concat(events, ignore_index=True), "items": goods, "users": people}


def demo_of(folder: Path, tables: Tables, suffix: str) -> list[str]:
    """Write tables into `folder`, as CSV or parquet, and return the command that runs the demo on them there."""
    named: list[str] = []
    for name, table in tables.items():
        path = folder / f"{name}{suffix}"
        if suffix == ".csv":
            table.to_csv(path, index=False)
        else:
            table.to_parquet(path)
        named += [f"--{name}", path.name]
    return ["demo", *named, "--seeds", "2"]


@pytest.fixture
def demo_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunDemo:
    """Run the demo as `run_demo` does, in this process, which has imported already what it takes."""

    def run(
        folder: Path, tables: Tables, *options: str, suffix: str = ".parquet"
    ) -> subprocess.CompletedProcess[str]:
        command = demo_of(folder, tables, suffix)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(sys, "argv", [str(EXPLORANK), *command, *options])
        for screen in (console.output, console.errors):
            monkeypatch.setattr(screen, "width", 80)
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = 0 if end.code is None else int(end.code)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(command, code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def run_demo() -> RunDemo:
    """Write tables into `folder`, as CSV or parquet, and run the demo on them there, in a process of its own."""

    def run(
        folder: Path, tables: Tables, *options: str, suffix: str = ".parquet"
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [EXPLORANK, *demo_of(folder, tables, suffix), *options],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env={
                **os.environ,
                "COLUMNS": "80",
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "PYTHONWARNINGS": "default",
            },
        )

    return run
