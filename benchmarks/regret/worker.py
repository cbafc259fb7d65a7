"""Plays one library's contestants in worlds that are read from files; runs in that library's environment.

    <its python> -m benchmarks.regret.worker LIBRARY       jobs on standard input, answers on standard output

Both are lines of JSON. A job is {"world": path, "kind": …, "contestant": …, "setting": …, "seed": …}; its answer
repeats it, with "regret", "earned" and "seconds", with "error" where the library
failed, or with "unfit" where the contestant is not for this world.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from benchmarks.regret.logs import load_log, replay
from benchmarks.regret.play import Entry, Unfit, play
from benchmarks.regret.worlds import Kind, World, load

Entries: TypeAlias = Mapping[Kind, Mapping[str, Mapping[str, Entry]]]
"""By kind of world, name of the contestant, and name of its setting; the first setting is the library's own."""


def entries(library: str, kind: Kind, *, changing: bool) -> dict[str, dict[str, Entry]]:
    """Return the contestants of `library` for a kind of world; importable in its environment only.

    Where the world is `changing`, the settings that forget are among them.
    """
    module = importlib.import_module(f"benchmarks.regret.contestants.{library}")
    forgetful = module.FORGETFUL.get(kind, {}) if changing else {}
    usual = module.ENTRIES.get(kind, {})
    return {name: {**settings, **forgetful.get(name, {})} for name, settings in usual.items()}


@lru_cache(maxsize=2)
def _world(path: str) -> World:
    return load(Path(path))


def answer(library: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to `job`."""
    world = _world(job["world"])
    try:
        known = entries(library, world.kind, changing=True)
        entry = known[job["contestant"]][job["setting"]]
        played = play(world, entry, job["seed"])
    except Unfit as reason:
        return {**job, "unfit": str(reason)}
    except Exception as error:
        # A library's failure is a result, whatever it raises.
        return {**job, "error": f"{type(error).__name__}: {error}"}
    regret = [round(value, 4) for value in played.regret.tolist()]
    return {**job, "regret": regret, "earned": played.earned, "seconds": round(played.seconds, 4)}


def replayed(library: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a job with a "log" in place of a world: what a replay of it matched and earned."""
    log = load_log(Path(job["log"]))
    entry = entries(library, "arms", changing=False)[job["contestant"]][job["setting"]]
    try:
        found = replay(log, entry, job["seed"])
    except Exception as error:
        # As above.
        return {**job, "error": f"{type(error).__name__}: {error}"}
    return {**job, "matched": found.matched, "earned": found.earned}


def serve(library: str, jobs: TextIO, answers: TextIO) -> None:
    """Answer every job, and list the contestants where a line asks for {"list": kind, "changing": …}."""
    for line in jobs:
        job = json.loads(line)
        if "list" in job:
            found = entries(library, job["list"], changing=job["changing"])
            reply: dict[str, Any] = {"settings": {name: list(each) for name, each in found.items()}}
        elif "log" in job:
            reply = replayed(library, job)
        else:
            reply = answer(library, job)
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    # What a library prints must not mix with the answers.
    warnings.simplefilter("ignore")
    stream, sys.stdout = sys.stdout, sys.stderr
    serve(sys.argv[1], sys.stdin, stream)
