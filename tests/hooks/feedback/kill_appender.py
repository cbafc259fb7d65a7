"""Fork a worker that appends and says so, kill it, again and again; print every id it acknowledged."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

from records import impression, make_record, reward

from explorank.hooks.feedback import DecisionLog


def append_for_ever(folder: str, round_number: int, durability: str, acknowledge: int) -> None:
    log = DecisionLog(folder, durability=durability)
    for number in range(1_000_000):
        decision_id = f"{round_number}-{number}"
        log.append_decision(make_record(decision_id))
        os.write(acknowledge, f"decision {decision_id}\n".encode())
        log.append_impression(impression(decision_id))
        os.write(acknowledge, f"impression {decision_id}\n".encode())
        log.append_rewards([reward(decision_id, 0), reward(decision_id, 1)])
        os.write(acknowledge, f"rewards {decision_id}\n".encode())


def main() -> None:
    folder, durability, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    chance = random.Random(20)  # noqa: S311 - moments to kill at, not secrets
    acknowledged = []
    for round_number in range(rounds):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            append_for_ever(folder, round_number, durability, write_end)
        os.close(write_end)
        with os.fdopen(read_end) as lines:
            # The first word shows that it runs; the kill then comes at any point of an append.
            acknowledged.append(lines.readline())
            time.sleep(chance.uniform(0.0, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            acknowledged += lines.readlines()
    json.dump([line.split() for line in acknowledged if line.endswith("\n")], sys.stdout)


if __name__ == "__main__":
    main()
