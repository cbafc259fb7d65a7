"""The Open Bandit logs that chance made, replayed: what can be said of learning policies, and how little.

    python -m benchmarks.regret.open_bandit [--quick] [--page PATH]

The small Open Bandit data (ZOZOTOWN, in the wheel of obp 0.4.1, Apache-2.0): three campaigns of 10,000 impressions
each, shown evenly at random. Positions are not told apart, and no features are used: some 100 to 300 rows match
what a policy chooses, with a click or two. All settings are those that the libraries come with.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
from scipy import stats

from benchmarks import environment, foreign
from benchmarks.regret import page
from benchmarks.regret.logs import Log, save_log
from benchmarks.regret.tournament import OURS, Worker, worker

CAMPAIGNS: Final = ("all", "men", "women")
PASSES: Final = 3
# bayesianbandits is left out: its 80 arms take 8 ms a row, a quarter of an hour in all.
LIBRARIES: Final = (OURS, "mabwiser", "vowpalwabbit", "gittins")


def read(campaign: str) -> Log:
    """Return a campaign's random log; raise `FileNotFoundError` where the data's environment is not built."""
    packages = foreign.interpreter("data").parents[1] / "lib"
    (path,) = packages.glob(f"python*/site-packages/obp/dataset/obd/random/{campaign}/{campaign}.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    shown = np.array([int(row["item_id"]) for row in rows])
    clicks = np.array([float(row["click"]) for row in rows])
    return Log(int(shown.max()) + 1, shown, clicks)


def interval(clicks: float, rows: float) -> tuple[float, float]:
    """Return Clopper and Pearson's 95 % interval of a click rate; `clicks` of `rows` may be means over passes."""
    low = stats.beta.ppf(0.025, clicks, rows - clicks + 1.0) if clicks > 0.0 else 0.0
    high = stats.beta.ppf(0.975, clicks + 1.0, rows - clicks) if clicks < rows else 1.0
    return float(low), float(high)


def rate(clicks: float, rows: float) -> str:
    """Return a click rate with its interval, in per cent."""
    low, high = interval(clicks, rows)
    return f"{100.0 * clicks / max(rows, 1.0):.2f} ({100.0 * low:.2f} to {100.0 * high:.2f})"


def lines(campaign: str, log: Log, workers: Sequence[Worker], path: Path, passes: int) -> list[str]:
    """Return a campaign's lines of the table."""
    save_log(log, path)
    clicks, rows = float(log.rewards.sum()), len(log.rewards)
    made = [
        f"| {campaign}, {log.arms} arms | chance (the log itself) | {rows:,} | {clicks:.1f} | {rate(clicks, rows)} |"
    ]
    for playing in workers:
        offered = playing.ask({"list": "arms", "changing": False})["settings"]
        for contestant, settings in offered.items():
            setting = settings[0]
            job = {"log": str(path), "contestant": contestant, "setting": setting}
            found = [playing.ask({**job, "seed": seed}) for seed in range(passes)]
            matched = float(np.mean([each["matched"] for each in found]))
            earned = float(np.mean([each["earned"] for each in found]))
            made.append(
                f"| {campaign} | {playing.library} {contestant} | {matched:.0f} | {earned:.1f} "
                f"| {rate(earned, matched)} |"
            )
    path.unlink()
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay and print the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.regret.open_bandit", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one pass over one campaign's first rows")
    parser.add_argument("--page", type=Path, metavar="PATH", help="also put the table into docs/regret.md")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    folder = foreign.REPOSITORY / "build" / "regret"
    folder.mkdir(parents=True, exist_ok=True)
    table = ["| campaign | policy | rows matched | clicks | click rate, % |", "|---|---|---|---|---|"]
    with ExitStack() as stack:
        known = [OURS, *foreign.available([name for name in LIBRARIES if name != OURS])]
        workers = [stack.enter_context(worker(library)) for library in known]
        for campaign in CAMPAIGNS[:1] if options.quick else CAMPAIGNS:
            log = read(campaign)
            if options.quick:
                log = Log(log.arms, log.shown[:300], log.rewards[:300])
            table += lines(campaign, log, workers, folder / "log.npz", 1 if options.quick else PASSES)
    sys.stdout.write("\n".join(table) + "\n")
    if options.page is not None:
        page.write(options.page, {"replay": table})


if __name__ == "__main__":
    main()
