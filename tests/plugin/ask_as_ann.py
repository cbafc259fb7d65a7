"""Ask as the same visitor in several processes at once; print the slots that each of their answers explored in.

Usage: ask_as_ann.py SETTINGS REQUESTS NAME…. A process for each name is forked, so that the imports are paid once. Each
request is for another page, so that none is served again.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from functools import partial
from typing import Any

import numpy as np

from explorank import assembly, load
from explorank.assembly import collect_components
from explorank.hooks.exploration.compiled import warm_up
from explorank.hooks.limits import SqliteExposures
from explorank.settings import load_settings


def ask(settings: str, requests: int, name: str, start: Any, answers: Any) -> None:
    """Open a stage, wait for the others, and ask."""
    with load(settings) as stage:
        start.wait(600.0)
        items, scores = [f"i{number}" for number in range(12)], np.linspace(2.0, 0.9, 12)
        decisions = [
            stage.explore(items, scores, user_id="ann", slots=3, context={"page": f"{name} {page}"})
            for page in range(requests)
        ]
    answers.put([decision.methods.count("explore") for decision in decisions])


def main() -> None:
    settings, requests, *names = sys.argv[1:]
    # Whom another process keeps waiting beyond its patience explores nothing, and the cap may not be reached.
    assembly.SqliteExposures = partial(SqliteExposures, patience_s=60.0)
    collect_components(load_settings(settings))  # imports what a stage needs
    warm_up()
    forking = multiprocessing.get_context("fork")
    start, answers = forking.Barrier(len(names)), forking.SimpleQueue()
    processes = [
        forking.Process(target=ask, args=(settings, int(requests), name, start, answers)) for name in names
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)
    json.dump([answers.get() for _ in processes], sys.stdout)


if __name__ == "__main__":
    main()
