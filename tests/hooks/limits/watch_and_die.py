"""Let learners with a monitor die at chosen SQL statements; print how many decisions were settled at each death.

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
import explorank.hooks.limits.monitor as monitor_module
from explorank.hooks.exploration import BetaThompson
from explorank.hooks.feedback import KillSwitch, Learner
from explorank.hooks.limits import EarningRules, Monitor


def main() -> None:
    folder, state_path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Many transactions, so that kills fall within and between.
    learner_module._EVENTS_PER_TRANSACTION = monitor_module._DECISIONS_PER_TRANSACTION = 8
    chance = random.Random(22)  # noqa: S311 - statements to die at, not secrets

    def make() -> tuple[Monitor, Learner]:
        rules = EarningRules(weights={"click": 1.0}, window_s=100.0, minimum=0.0, maximum=1.0)
        monitor = Monitor(rules, KillSwitch(f"{state_path}.off"))
        learner = Learner(
            folder,
            BetaThompson(),
            state_path=state_path,
            reward_weights={"click": 1.0},
            horizon_s=100.0,
            observer=monitor,
        )
        return monitor, learner

    settled = []
    for _ in range(rounds):
        left = count(chance.randrange(60, 1_000), -1)
        child = os.fork()
        if child == 0:
            _, learner = make()
            assert learner._checkpoint is not None
            learner._checkpoint.store._connection.set_trace_callback(
                lambda _, left=left: os.kill(os.getpid(), signal.SIGKILL) if next(left) == 0 else None
            )
            for now in range(1000, 100_000, 40):
                learner.step(float(now))
            os._exit(0)
        os.waitpid(child, 0)
        monitor, reader = make()
        settled.append(sum(account.settled.count for account in monitor.snapshot.earnings.accounts.values()))
        reader.close()
    json.dump(settled, sys.stdout)


if __name__ == "__main__":
    main()
