"""Other libraries are timed as they say they are; no speed is judged."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def libraries() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        yield importlib.import_module("benchmarks.libraries")


def test_a_worker_prepares_what_a_library_has_and_times_it() -> None:
    asked = [
        {"prepare": "disjoint", "arms": 6, "dim": 4},
        {"time": ["disjoint", 6, "disjoint_lin_ucb", "act"], "calls": 3},
        {"time": ["disjoint", 6, "disjoint_lin_ucb", "learn"], "calls": 2},
        {"prepare": "shared", "arms": 6, "dim": 4},
        {"time": ["shared", 6, "lin_ucb", "act"], "calls": 1},
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.library_worker", "explorank"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        input="".join(json.dumps(each) + "\n" for each in asked),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    disjoint, act, learn, shared, scored = map(json.loads, ended.stdout.splitlines())

    assert disjoint == ["disjoint_linear_thompson", "disjoint_lin_ucb"]
    assert shared == ["linear_thompson", "lin_ucb"]  # the logistic one is not for such rewards
    assert min(act, learn, scored) > 0.0
    assert (
        max(act, learn, scored) < 60.0
    )  # seconds, of which a busy machine adds some to a call of microseconds


def test_all_take_turns_and_slow_ones_make_fewer_calls(libraries: ModuleType) -> None:
    asked: list[tuple[str, int]] = []

    def timed(name: str, seconds: float) -> object:
        def call(calls: int) -> float:
            asked.append((name, calls))
            return seconds

        return libraries.Timed(call)

    taken = libraries.take_turns([timed("fast", 1e-3), timed("slow", 1.0)], rounds=2, sample_s=0.01)

    assert taken.tolist() == [[1e-3, 1.0]] * 2
    assert asked[-4:] == [("fast", 10), ("slow", 1), ("slow", 1), ("fast", 10)]


def test_ratios_are_to_explorank_s_best_from_arrays(libraries: ModuleType) -> None:
    whos = ["Explorank a", "Explorank b", "Explorank a, batches ready", "other"]
    rows = [libraries.Row("disjoint", 100, "act", who) for who in whos]
    seconds = np.array([[2e-6, 3e-6, 1e-6, 2e-5], [4e-6, 5e-6, 1e-6, 4e-5]])

    assert libraries.ratio(rows, seconds, 3) == pytest.approx(10.0)
    assert libraries.ratio(rows, seconds, 2) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert "| other | 30 (10 times) |" in libraries.table(rows, seconds)


def test_explorank_and_plain_numpy_stand_in_every_question(libraries: ModuleType) -> None:
    rows = [row for kind in libraries.KINDS for row, _ in libraries.own(kind, 60)]

    for question in {row.question for row in rows}:
        whos = [row.who for row in rows if row.question == question]
        assert any(who.startswith("Explorank") for who in whos)
        assert any(who.startswith("plain numpy") for who in whos)
    for kind in libraries.KINDS:
        for _, timed in libraries.own(kind, 60):
            assert timed.seconds(1) > 0.0
