"""What a serving process sets for itself, seen from processes of their own: it would last for all other tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

PINNED = """
import json, os, sys
import explorank.cli  # what the command has imported by then
from explorank.process import pin_threads

early = "numpy" in sys.modules
pin_threads()
import numpy, threadpoolctl
print(json.dumps({
    "early": early,
    "environment": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
    "pools": {pool["user_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()},
}))
"""
SETTLED = """
import gc, json
from explorank.process import settle

class Cycle:
    def __init__(self):
        self.me = self

settle()
frozen = gc.get_freeze_count()
walked = len(gc.get_objects())
for _ in range(200_000):
    Cycle()
print(json.dumps({"frozen": frozen, "walked": walked, "left": sum(type(each) is Cycle for each in gc.get_objects())}))
"""


def say(code: str, **environment: str) -> Any:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env={**inherited, **environment},
    )
    return json.loads(done.stdout)


def test_native_libraries_get_one_thread_before_they_look() -> None:
    told = say(PINNED)
    assert not told["early"]
    assert told["environment"] == {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert told["pools"]["blas"] == 1


def test_what_the_operator_set_stays() -> None:
    told = say(PINNED, OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2")
    assert told["environment"] == {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}


def test_what_was_loaded_is_never_walked_again_and_garbage_still_goes() -> None:
    told = say(SETTLED)
    assert told["frozen"] > 5_000
    assert told["walked"] < 100
    # 200,000 cycles and their dictionaries, and no more than one threshold of them is left.
    assert told["left"] <= 50_000
