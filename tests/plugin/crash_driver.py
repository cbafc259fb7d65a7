"""A host that ranks and takes rewards as fast as it can, to be killed; `python crash_driver.py FOLDER`.

For every line on standard input a child process is forked (so that the imports are paid once) and its id
printed as `P pid`. The child prints `D decision` and `R reward` once each is acknowledged, until it is
killed; then `X` is printed.
"""

import os
import sys

import numpy as np

from explorank import load
from explorank.assembly import collect_components
from explorank.hooks.exploration.compiled import warm_up
from explorank.settings import load_settings

ITEMS = [f"i{number}" for number in range(12)]


def say(line: str) -> None:
    """Write at once; what is acknowledged must not wait in a buffer of the process to be killed."""
    os.write(1, f"{line}\n".encode())


def work(config: str) -> None:
    """Decide and reward for ever."""
    stage = load(load_settings(config))
    random = np.random.default_rng(os.getpid())
    while True:
        features = random.normal(size=(12, 3))
        decision = stage.explore(ITEMS, random.random(12), features, user_id="u", slots=3)
        say(f"D {decision.decision_id}")
        slot = int(random.integers(3))
        stage.reward(decision.decision_id, slot=slot, value=float(random.random()))
        say(f"R {decision.decision_id}:{slot}:click")


collect_components(load_settings(sys.argv[1]))  # imports what a stage needs
warm_up()
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        work(sys.argv[1])
    say(f"P {child}")
    os.waitpid(child, 0)
    say("X")
