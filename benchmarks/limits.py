"""What the limits cost a request; `python -m benchmarks.limits`, about a minute.

First the steps of one process, in CPU time, each with its turn in 60 rounds: the median and the quartiles.
Every visitor has 5 rejected and 9 resting items and a kept decision, the ledger holds 20,000 visitors and
counts 50,000 items, a request has 300 candidates and 10 slots of which 3 explore.

Then 4 processes at one ledger, by the clock on the wall, each beside its own refresh once a second: once as
fast as they can, once with a pause of 5 ms. Percentiles of all their requests. They share the machine with
each other and with whatever else runs: the load average is part of the result.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.environment import describe, restart_with_one_thread
from benchmarks.timing import Contestant, measure, repeated
from explorank.hooks.limits import Explorable, Kept, Rejected, Rule, SqliteExposures, visitor_of
from explorank.hooks.types import FloatArray, RankingBatch, RankingRequest

NOON = 20_000.5 * 86_400.0
QUESTION = bytes(16)
CAP = 1_000_000_000


def filled(path: Path, visitors: int, items: int) -> SqliteExposures:
    """Return a ledger that has been in use for a while."""
    ledger = SqliteExposures(path, counts_items=True, patience_s=5.0)
    ledger.count_shown(f"item-{number}" for number in range(items))
    for number in range(visitors):
        visitor = visitor_of(request_of(number))
        assert visitor is not None  # noqa: S101 - the request has a user
        ledger.spend(visitor, NOON, 3, CAP, kept_by(number))
        ledger.rest(visitor, [f"item-{number + step}" for step in range(9)], NOON, 3_600.0)
        for step in range(5):
            ledger._rejected.setdefault(visitor, {})[f"item-{number + step}"] = (
                NOON + 1e5,
                time.time() + 1e5,
            )
    ledger.refresh()
    return ledger


def request_of(number: int) -> RankingRequest:
    """Return a request of the visitor of this number."""
    return RankingRequest(decision_id=f"d{number}", slots=10, user_id=f"user-{number}", time=NOON)


def kept_by(number: int) -> Kept:
    """Return the decision to keep for the visitor of this number."""
    return Kept("home", 10, QUESTION, f"d{number}", NOON + 1_800.0)


def steps(ledger: SqliteExposures, visitors: int) -> dict[str, Callable[[], object]]:
    """Return the steps of a request, each for another visitor whenever it is called."""
    turn = count()
    ids = np.array([f"item-{number * 7}" for number in range(300)])
    batch = RankingBatch(ids, columns={"age": np.linspace(0.0, 90.0, 300)})
    by_column = Explorable([Rule(new_within_days=14)], age_column="age")
    by_count = Explorable([Rule(impressions_below=100)], impressions=ledger)
    guard, nothing = Rejected(ledger), np.zeros(0, np.int64)

    def next_one() -> tuple[int, bytes]:
        number = next(turn) % visitors
        visitor = visitor_of(request_of(number))
        assert visitor is not None  # noqa: S101 - the request has a user
        return number, visitor

    def spend(cap: int) -> None:
        number, visitor = next_one()
        ledger.spend(visitor, NOON, 3, cap, kept_by(number))

    def hide() -> None:
        number, _ = next_one()
        request = request_of(number)
        state = {guard.name: guard.snapshot(request)}
        guard.eligible(RankingRequest(decision_id="", slots=10, guard_state=state), batch, nothing, 0)

    return {
        "who asks": next_one,
        "reserve slots, and keep the decision": lambda: spend(CAP),
        "refuse who has used up the day": lambda: spend(1),
        "look for a kept decision": lambda: ledger.kept(next_one()[1], "home", 10, QUESTION, NOON),
        "hide 5 rejected among 300": hide,
        "look for items at rest": lambda: ledger.resting(next_one()[1], NOON),
        "rule on a column, 300": lambda: by_column.mask(batch),
        "rule on impressions, 300": lambda: by_count.mask(batch),
        "count 10 items as shown": lambda: ledger.count_shown(ids[:10].tolist()),
    }


def contend(path: Path, requests: int, pause_s: float, worker: int, out: Path) -> None:
    """Make requests as one of several processes; save the seconds of reading and of reserving, (2, requests)."""
    ledger = SqliteExposures(path, patience_s=5.0)
    stopped = threading.Event()

    def refresh() -> None:
        while not stopped.wait(1.0):
            ledger.refresh()

    ledger.rejected(QUESTION, NOON)  # opens the file
    refresher = threading.Thread(target=refresh)
    refresher.start()
    taken = np.empty((2, requests))
    for number in range(requests):
        visitor = visitor_of(request_of(number * 4 + worker if number % 2 else number))
        assert visitor is not None  # noqa: S101 - the request has a user
        begin = time.perf_counter()
        ledger.rejected(visitor, NOON)
        ledger.kept(visitor, "home", 10, QUESTION, NOON)
        ledger.resting(visitor, NOON)
        read = time.perf_counter()
        ledger.spend(visitor, NOON, 3, CAP, kept_by(number))
        taken[:, number] = read - begin, time.perf_counter() - read
        ledger.rest(visitor, ("a", "b", "c"), NOON, 3_600.0)
        if pause_s:
            time.sleep(pause_s)
    stopped.set()
    refresher.join()
    ledger.close()
    np.save(out, taken)


def contended(folder: Path, requests: int, pause_s: float) -> tuple[FloatArray, float]:
    """Return what `contend` saved, of 4 processes together, and their requests per second."""
    context = multiprocessing.get_context("spawn")
    files = [folder / f"{pause_s}-{worker}.npy" for worker in range(4)]
    processes = [
        context.Process(target=contend, args=(folder / f"{pause_s}.db", requests, pause_s, worker, file))
        for worker, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    taken = np.concatenate([np.load(file) for file in files], axis=1)
    return taken, 4.0 / float(taken.sum(axis=0).mean() + pause_s)


def tell(text: object) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    quick = parser.parse_args().quick
    restart_with_one_thread()
    tell(describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        visitors = 100 if quick else 20_000
        ledger = filled(folder / "one.db", visitors, items=100 if quick else 50_000)
        work = steps(ledger, visitors)
        contestants = [Contestant(repeated(call)) for call in work.values()]
        seconds = measure(contestants, rounds=3 if quick else 60, sample_s=0.0005 if quick else 0.005)
        tell("\n| step | CPU µs |\n|---|---|")
        for step, taken in zip(work, seconds, strict=True):
            low, middle, high = np.percentile(taken * 1e6, (25, 50, 75))
            tell(f"| {step} | {middle:.1f} [{low:.1f}, {high:.1f}] |")
        ledger.close()
        size = (folder / "one.db").stat().st_size
        tell(f"\nOn disk: {size / visitors:.0f} bytes a visitor.")
        tell(
            "\n| 4 processes | requests/s | read p50 / p99 µs | reserve p50 / p99 / p99.9 µs |\n|---|---|---|---|"
        )
        for pause_s, requests in ((0.0, 10_000), (0.005, 3_000)):
            taken, rate = contended(folder, 20 if quick else requests, pause_s)
            read = np.percentile(taken[0] * 1e6, (50, 99))
            spent = np.percentile(taken[1] * 1e6, (50, 99, 99.9))
            told = [" / ".join(f"{value:.0f}" for value in values) for values in (read, spent)]
            tell(f"| pause of {pause_s * 1e3:g} ms | {rate:.0f} | {told[0]} | {told[1]} |")


if __name__ == "__main__":
    main()
