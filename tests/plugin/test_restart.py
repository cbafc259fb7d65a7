"""Rank, reward, kill -9, start again: nothing acknowledged is lost, and nothing counts twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from explorank import load
from explorank.hooks.feedback import Learner, read_log

DRIVER = Path(__file__).with_name("crash_driver.py")
KILLS = 10

SETTINGS = """\
version: 1
ranker: null
retrieval: {{retrievers: []}}
exploration:
  mode: live
  holdout: 0.0
  policy: {{use: {policy}}}
feedback: {{durability: {durability}, learn_every_s: 0.002}}
"""


@pytest.fixture(params=[("linear_thompson, dim: 3", "process"), ("beta_thompson", "power")])
def driver(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    policy, durability = request.param
    written = SETTINGS.format(policy=policy, durability=durability)
    (tmp_path / "explorank.yaml").write_text(written, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), str(tmp_path / "explorank.yaml")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=300) == 0


def run_and_kill(
    driver: subprocess.Popen[str], after: int, delay_s: float, acknowledged: Counter[str]
) -> None:
    """Start the host, kill it some time after its `after`th acknowledgement, note all that it acknowledged."""
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write("go\n")
    driver.stdin.flush()
    pid = 0
    killed = False
    seen = 0
    for line in driver.stdout:
        kind, _, what = line.strip().partition(" ")
        if kind == "X":
            break
        if kind == "P":
            pid = int(what)
        else:
            acknowledged[line.strip()] += 1
            seen += 1
        if pid and seen >= after and not killed:
            time.sleep(delay_s)
            os.kill(pid, signal.SIGKILL)
            killed = True
    assert killed


@pytest.mark.slow
def test_a_kill_loses_nothing_and_repeats_nothing(tmp_path: Path, driver: subprocess.Popen[str]) -> None:
    random = np.random.default_rng(9)
    acknowledged: Counter[str] = Counter()
    for _ in range(KILLS):
        run_and_kill(driver, int(random.integers(1, 30)), float(random.uniform(0, 0.004)), acknowledged)
    assert max(acknowledged.values()) == 1
    assert sum(line.startswith("D") for line in acknowledged) >= KILLS

    with load(tmp_path / "explorank.yaml") as stage:
        learner, policy = stage.installation.learner, stage.installation.policy
        learner.step()
        logged = Counter(
            line
            for entry in read_log(tmp_path / ".explorank" / "log")
            for line in (
                f"D {entry.record.decision_id}",
                *(f"R {reward.reward_id}" for reward in entry.rewards),
            )
        )
        assert max(logged.values()) == 1
        assert logged.keys() >= acknowledged.keys()
        # What was stored in the instant before a kill may lack its acknowledgement: one line for each kill.
        assert len(logged) - len(acknowledged) <= KILLS

        rewards = sum(line.startswith("R") for line in logged)
        assert learner.stats.folded == rewards
        assert learner.stats.duplicates == learner.stats.refused == 0
        uninterrupted = Learner(
            tmp_path / ".explorank" / "log",
            policy,
            state_path=tmp_path / "uninterrupted.db",
            reward_weights={"click": 1.0},
            horizon_s=86_400.0,
        )
        try:
            assert uninterrupted.step() == rewards
            _, learnt = policy.pack(learner.snapshot)
            _, expected = policy.pack(uninterrupted.snapshot)
            assert learnt.keys() == expected.keys()
            for name, values in expected.items():
                if values.dtype.kind == "U":
                    np.testing.assert_array_equal(learnt[name], values)
                else:
                    np.testing.assert_allclose(learnt[name], values, rtol=1e-9, atol=1e-9)
        finally:
            uninterrupted.close()

        # A reward that was acknowledged before a kill is known as such after it.
        reward_id = next(line.removeprefix("R ") for line in acknowledged if line.startswith("R"))
        decision_id, slot, _ = reward_id.split(":")
        assert not stage.reward(decision_id, slot=int(slot))
