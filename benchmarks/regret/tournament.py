"""Every contestant in every world, each library in its own environment.

Settings are chosen on tuning seeds, by the mean regret at the end, for all contestants alike; what is reported was
played on other seeds. What has been played is kept in a file, line by line, so that a run that was cut off goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from benchmarks import foreign
from benchmarks.regret.worlds import Numbers, Recipe, World, build, save

OURS: Final = "explorank"
FIRST_TUNING_SEED: Final = 1_000


@dataclass(frozen=True)
class Run:
    """How much is played."""

    seeds: int = 20
    tuning_seeds: int = 3
    rounds: int | None = None
    """Instead of each world's own."""

    @property
    def testing(self) -> range:
        """The seeds that results come from."""
        return range(self.seeds)

    @property
    def tuning(self) -> range:
        """The seeds that settings are chosen on."""
        return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.tuning_seeds)


@dataclass(frozen=True)
class Result:
    """A contestant in a world, with the setting that was chosen for it."""

    library: str
    contestant: str
    setting: str
    """The chosen one."""
    tuning: Mapping[str, float]
    """The mean regret of each setting on the tuning seeds; the first is as the library comes."""
    regret: Numbers  # (seeds, C) on the testing seeds
    us_per_round: float
    """CPU time of choosing and learning, of the chosen setting."""

    @property
    def name(self) -> str:
        """Library and contestant."""
        return f"{self.library} {self.contestant}"

    @property
    def tuned(self) -> float:
        """The mean regret of the chosen setting on the tuning seeds."""
        return self.tuning[self.setting]


@dataclass(frozen=True)
class Outcome:
    """What came of a world."""

    recipe: Recipe
    rounds: int
    results: Sequence[Result]
    failures: Sequence[str] = ()


class Worker:
    """A program that answers lines of JSON for one library: `benchmarks.regret.worker`, or another."""

    def __init__(self, library: str, python: Path, program: str = "benchmarks.regret.worker") -> None:
        self.library = library
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [str(python), "-m", program, library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=foreign.REPOSITORY,
            env=foreign.surroundings(),
        )

    def ask(self, job: Mapping[str, Any]) -> Any:
        """Return the answer to one line; raise `RuntimeError` where the program ends without one."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - pipes were asked for
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(
                f"The worker of {self.library!r} ended with code {self._process.wait()} at {job}; its results "
                "are missing. What it wrote to standard error says why."
            )
        return json.loads(line)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


@contextmanager
def worker(library: str, program: str = "benchmarks.regret.worker") -> Iterator[Worker]:
    """Yield a worker of `library`; Explorank's runs in this very environment."""
    python = Path(sys.executable) if library == OURS else foreign.interpreter(library)
    started = Worker(library, python, program)
    try:
        yield started
    finally:
        started.close()


@dataclass
class Ledger:
    """What has been played, by who and where; lines are added to `path`, where one is given."""

    path: Path | None = None
    _known: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    _asked: set[tuple[Any, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Read what is there."""
        if self.path is not None and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                answer = json.loads(line)
                self._known[self._key(answer)] = answer

    def played(
        self, job: Mapping[str, Any], ask: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the answer to `job`, asked for unless it is known."""
        key = self._key(job)
        self._asked.add(key)
        if key not in self._known:
            self._known[key] = answer = ask(job)
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(answer) + "\n")
        return self._known[key]

    @property
    def cpu_minutes(self) -> float:
        """The CPU time of choosing and learning in what has been asked for, by this run or an earlier one."""
        seconds: list[float] = [self._known[key].get("seconds", 0.0) for key in self._asked]
        return sum(seconds) / 60.0

    @staticmethod
    def _key(job: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(job[name] for name in ("library", "world", "contestant", "setting", "seed"))


def play_world(
    name: str, recipe: Recipe, workers: Iterable[Worker], run: Run, ledger: Ledger, folder: Path, log: TextIO
) -> Outcome:
    """Return what became of everyone in one world, whose files are made in `folder`."""
    rounds = recipe.rounds if run.rounds is None else min(run.rounds, recipe.rounds)
    paths = {seed: folder / f"{name}-{seed}-{rounds}.npz" for seed in (*run.tuning, *run.testing)}
    worlds: dict[int, World] = {}
    for seed, path in paths.items():
        worlds[seed] = build(name, recipe, seed, rounds)
        save(worlds[seed], path)
    kind = worlds[0].kind
    results: list[Result] = []
    failures: list[str] = []
    for playing in workers:
        library = playing.library
        offered: dict[str, list[str]] = playing.ask({"list": kind, "changing": recipe.changing})["settings"]
        if not offered:
            failures.append(f"{library} has nothing for this kind of world.")
        for contestant, settings in offered.items():

            def answers(
                setting: str, seeds: Iterable[int], contestant: str = contestant, playing: Worker = playing
            ) -> list[dict[str, Any]]:
                found = []
                for seed in seeds:
                    job = {
                        "library": playing.library,
                        "world": str(paths[seed]),
                        "contestant": contestant,
                        "setting": setting,
                        "seed": seed,
                    }
                    found.append(ledger.played(job, playing.ask))
                return found

            result = _result(library, contestant, settings, run, answers, rounds)
            if isinstance(result, Result):
                results.append(result)
                regret = result.regret[:, -1].mean()
                log.write(f"  {result.name}: {regret:.1f} ({result.setting}), {result.us_per_round:.0f} µs\n")
            elif result is not None:
                failures.append(result)
                log.write(f"  {result}\n")
            log.flush()
    for path in paths.values():
        path.unlink()
    return Outcome(recipe, rounds, results, failures)


def _result(
    library: str,
    contestant: str,
    settings: Sequence[str],
    run: Run,
    answers: Callable[[str, Iterable[int]], list[dict[str, Any]]],
    rounds: int,
) -> Result | str | None:
    tuning: dict[str, float] = {}
    for setting in settings:
        tried = answers(setting, run.tuning)
        if any("unfit" in answer for answer in tried):
            return None
        failed = [answer["error"] for answer in tried if "error" in answer]
        if failed:
            return f"{library} {contestant} ({setting}) failed: {failed[0]}"
        tuning[setting] = float(np.mean([answer["regret"][-1] for answer in tried]))
    chosen = min(tuning, key=lambda setting: tuning[setting])
    tested = answers(chosen, run.testing)
    failed = [answer["error"] for answer in tested if "error" in answer]
    if failed:
        return f"{library} {contestant} ({chosen}) failed: {failed[0]}"
    seconds = float(np.mean([answer["seconds"] for answer in tested]))
    curves = np.array([answer["regret"] for answer in tested])
    return Result(library, contestant, chosen, tuning, curves, seconds / rounds * 1e6)
