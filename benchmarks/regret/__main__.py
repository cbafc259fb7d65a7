"""Regret of Explorank's policies beside other libraries and theory.

    python -m benchmarks.regret [--quick] [--json PATH] [--plots FOLDER] [--page PATH] [--worlds …] [--resume]

or `make regret`.

`docs/regret.md` says what is played, and what came of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment, foreign
from benchmarks.regret import page, plots, summary
from benchmarks.regret.tournament import OURS, Ledger, Outcome, Run, play_world, worker
from benchmarks.regret.worlds import recipes

FOLDER = foreign.REPOSITORY / "build" / "regret"


def data_sets(folder: Path) -> Mapping[str, Any]:
    """Return the classification sets, exported once; none where the environment `data` is not built."""
    path = folder / "data.npz"
    if not path.exists():
        if not foreign.available(["data"]):
            return {}
        subprocess.run(  # noqa: S603 - our own program
            [str(foreign.interpreter("data")), "-m", "benchmarks.regret.datasets", str(path)],
            cwd=foreign.REPOSITORY,
            env=foreign.surroundings(),
            check=True,
        )
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _told(outcome: Outcome) -> list[str]:
    title = outcome.recipe.title
    return [
        f"### {title}",
        f"{outcome.recipe.says} {outcome.rounds:,} rounds.",
        "",
        *summary.everyone(outcome),
        "",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Play, print tables, and write JSON and plots where asked to."""
    parser = argparse.ArgumentParser(prog="benchmarks.regret", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few seeds and rounds, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="also draw the curves, as SVG")
    parser.add_argument("--page", type=Path, metavar="PATH", help="also put the tables into docs/regret.md")
    parser.add_argument("--worlds", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--libraries", nargs="*", metavar="NAME", help="only these beside Explorank")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where worlds and what has been played lie"
    )
    parser.add_argument("--resume", action="store_true", help="keep what an earlier run has played")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    run = Run(seeds=2, tuning_seeds=1, rounds=25) if options.quick else Run()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    played = folder / ("quick.jsonl" if options.quick else "played.jsonl")
    if not options.resume:
        played.unlink(missing_ok=True)
    wanted = foreign.LIBRARIES if options.libraries is None else options.libraries
    libraries = [OURS, *foreign.available(wanted)]
    for missing in set(wanted) - set(libraries):
        sys.stderr.write(f"{missing} is not compared with: build it by `python -m benchmarks.foreign`.\n")
    facts = environment.describe()
    worlds = recipes(data_sets(folder))
    outcomes: dict[str, Outcome] = {}
    ledger = Ledger(played)
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(library)) for library in libraries]
        for name, recipe in worlds.items():
            if options.worlds is None or name in options.worlds:
                sys.stderr.write(f"{recipe.title}\n")
                outcomes[name] = play_world(name, recipe, workers, run, ledger, folder, sys.stderr)
    facts["cpu_minutes"] = round(ledger.cpu_minutes, 1)
    sections = {
        "run": environment.lines(facts),
        "verdicts": summary.verdicts(outcomes),
        "theory": summary.against_theory(outcomes),
        "everyone": [line for outcome in outcomes.values() for line in _told(outcome)],
    }
    sys.stdout.write("\n".join("\n".join([*lines, ""]) for lines in sections.values()))
    if options.page is not None:
        page.write(options.page, sections)
    if options.json is not None:
        written = {"environment": facts, "method": vars(run), "worlds": summary.to_dict(outcomes)}
        options.json.write_text(json.dumps(written, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.plots is not None:
        plots.draw(outcomes, options.plots)


if __name__ == "__main__":
    main()
