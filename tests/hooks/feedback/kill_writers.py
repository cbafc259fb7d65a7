"""Fork a writer that appends and learns, kill it, again and again; print what it acknowledged and what was learnt."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

import numpy as np
from records import make_record, reward

import explorank.hooks.feedback.learner as learner_module
from explorank.hooks.exploration import GaussianThompson
from explorank.hooks.feedback import DecisionLog, Learner

SLOTS = 3


def make_learner(folder: str, state_path: str) -> Learner:
    # A reward for each item, once: the count of an item is how often its reward was learnt.
    return Learner(
        folder, GaussianThompson(), state_path=state_path, reward_weights={"click": 1.0}, horizon_s=1e6
    )


def write_for_ever(folder: str, state_path: str, round_number: int, acknowledge: int) -> None:
    log, learner = DecisionLog(folder), make_learner(folder, state_path)
    for number in range(1_000_000):
        name = f"{round_number}-{number}"
        items = [f"{name}-{slot}" for slot in range(SLOTS)]
        log.append_decision(make_record(name, item_ids=np.array([*items, "x", "y", "z"])))
        log.append_rewards([reward(name, slot, item_id=item) for slot, item in enumerate(items)])
        if number == 0 == round_number:  # on a busy machine every life may end before its first step does
            learner.step(1000.0)
        os.write(acknowledge, f"{name}\n".encode())
        if number % 3 == 0:
            learner.step(1000.0)


def main() -> None:
    folder, state_path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    learner_module._EVENTS_PER_TRANSACTION = 4  # many transactions, so that kills fall within and between
    chance = random.Random(22)  # noqa: S311 - moments to kill at, not secrets
    acknowledged: list[str] = []
    for round_number in range(rounds):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            write_for_ever(folder, state_path, round_number, write_end)
        os.close(write_end)
        with os.fdopen(read_end) as lines:
            # The first word shows that it runs; the kill then comes at any point of an append or a step.
            acknowledged.append(lines.readline())
            time.sleep(chance.uniform(0.0, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            acknowledged += lines.readlines()
    heir = make_learner(folder, state_path)
    learnt_before = len(heir.snapshot.item_ids)
    heir.step(1000.0)
    state = heir.snapshot
    counts = dict(zip(state.item_ids.tolist(), state.counts.tolist(), strict=True))
    stats = heir.stats
    heir.close()
    told = [line.strip() for line in acknowledged if line.endswith("\n")]
    answer = {
        "acknowledged": told,
        "counts": counts,
        "before": learnt_before,
        "folded": stats.folded,
        "version": state.version,
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
