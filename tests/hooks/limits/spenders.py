"""Fork workers that spend the same visitors' slots from one ledger; print what each was granted.

Usage: spenders.py LEDGER WORKERS VISITORS CAP ROUNDS [kill]. With `kill`, each worker is killed at a random
moment, and another one takes its place; a grant counts once its worker has said so.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

from explorank.hooks.limits import SqliteExposures


def spend(path: str, visitors: int, cap: int, rounds: int, worker: int, told: int) -> None:
    ledger = SqliteExposures(path, patience_s=10.0)
    chance = random.Random(worker)  # noqa: S311 - an order, not secrets
    for _ in range(rounds):
        visitor = chance.randrange(visitors)
        granted = ledger.spend(b"%d" % visitor, 1_000.0, chance.randint(1, 3), cap)
        os.write(told, f"{visitor} {granted}\n".encode())


def main() -> None:
    path, (workers, visitors, cap, rounds) = sys.argv[1], map(int, sys.argv[2:6])
    killed = sys.argv[6:] == ["kill"]
    chance = random.Random(4)  # noqa: S311 - moments to kill at, not secrets
    read_end, write_end = os.pipe()
    children = []
    for worker in range(workers):
        child = os.fork()
        if child == 0:
            os.close(read_end)
            spend(path, visitors, cap, rounds, worker, write_end)
            os._exit(0)
        children.append(child)
        if killed:
            time.sleep(chance.uniform(0.01, 0.05))
            os.kill(child, signal.SIGKILL)
    os.close(write_end)
    with os.fdopen(read_end) as lines:
        grants = [[int(number) for number in line.split()] for line in lines if line.endswith("\n")]
    for child in children:
        os.waitpid(child, 0)
    json.dump(grants, sys.stdout)


if __name__ == "__main__":
    main()
