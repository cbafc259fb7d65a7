"""Let learners die at chosen SQL statements, one after the other; print how far each was at its death.

Dying at a statement, rather than after a time, falls within transactions and between them on any machine.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from itertools import count

import explorank.hooks.feedback.learner as learner_module
from explorank.hooks.exploration import LinearThompson
from explorank.hooks.feedback import Learner


def main() -> None:
    folder, state_path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    learner_module._EVENTS_PER_TRANSACTION = 8  # many transactions, so that kills fall within and between
    chance = random.Random(21)  # noqa: S311 - statements to die at, not secrets

    def make() -> Learner:
        return Learner(
            folder,
            LinearThompson(dim=3),
            state_path=state_path,
            reward_weights={"click": 1.0, "conversion": 5.0},
            horizon_s=100.0,
        )

    progress = []
    for _ in range(rounds):
        left = count(chance.randrange(60, 1_000), -1)
        child = os.fork()
        if child == 0:
            learner = make()
            assert learner._checkpoint is not None
            learner._checkpoint.store._connection.set_trace_callback(
                lambda _, left=left: os.kill(os.getpid(), signal.SIGKILL) if next(left) == 0 else None
            )
            for now in range(1000, 100_000, 40):
                learner.step(float(now))
            os._exit(0)
        os.waitpid(child, 0)
        reader = make()
        read = sum(reader._checkpoint.cursors().values())
        progress.append((read, reader.stats.folded))
        reader.close()
    json.dump(progress, sys.stdout)


if __name__ == "__main__":
    main()
