"""The benchmark runs and writes what it says; what it compares with does the same job. No speed is judged."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "exploration.json"
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "2"}
    subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.exploration", "--quick", "--json", path],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def exploration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY)
    return importlib.import_module("benchmarks.exploration")


def test_the_run_says_on_what_it_ran(written: dict[str, Any]) -> None:
    environment = written["environment"]

    assert {"date", "cpu", "cores", "python", "numpy", "blas"} <= environment.keys()
    assert environment["blas_threads"] == 1
    assert "OPENBLAS_CORETYPE was set to Haswell and has been unset" in environment["blas_kernels"]
    assert written["method"]["quick"] is True


def test_every_policy_decides_among_10_100_and_1000(written: dict[str, Any], exploration: ModuleType) -> None:
    decided = {
        (one["name"], one["size"]) for one in written["results"] if one["section"].startswith("Decisions: ")
    }

    assert decided == {(name, n) for name in exploration.policies() for n in (10, 100, 1_000)}


def test_every_result_has_times_and_a_target_is_met_or_missed(written: dict[str, Any]) -> None:
    for one in written["results"]:
        low, high = one["quartiles_us"]
        assert 0.0 < low <= one["us"] <= high
        assert (one["reference_us"] is None) == (one["ratio"] is None)
        assert (one["target"] is None) == (one["met"] is None)
    assert {one["target"]["unit"] for one in written["results"] if one["target"]} == {
        "µs",
        "times numpy",
        "rewards/s",
    }


def test_the_reference_has_the_distribution_of_the_policy(exploration: ModuleType) -> None:
    """Averaged over 40 seeds of 256 draws, shares of 60 candidates are less than 0.05 apart (total variation)."""
    apart = {}
    for name, factory in exploration.policies().items():
        learnt = exploration.Learnt(name, factory, exploration.World(60))
        everyone = np.ones(60, np.bool_)
        policy = theirs = 0.0
        for seed in range(40):
            rng = np.random.default_rng(seed)
            contest = learnt.policy.contest(learnt.state, learnt.world.batch, everyone, rng)
            policy += contest.distribution(everyone) / 40
            theirs += learnt.model.contest(learnt.world.candidates, rng)(everyone) / 40
        apart[name] = np.abs(policy - theirs).sum() / 2

    del apart["bootstrapped_thompson"]  # its replicates see other resamples
    assert {name: distance for name, distance in apart.items() if not distance < 0.05} == {}
