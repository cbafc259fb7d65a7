"""What HTTP adds to a request, what two workers answer together, and what overload does to both.

    python -m benchmarks.http [--items 5000] [--candidates 500] [--rounds 8] [--quick] [--json PATH]

`wrk` must be installed. Everything runs on this machine, the client too: it has a share of the same cores, and
throughput with as many workers as cores is what is left beside it.

**Concurrency 1.** One worker, one connection, beside `stage.rank()` in this process with an installation of the same
content; both have their turn in every round, and the ratio is the median over the rounds. Guards, exploration and
durable decisions are on. **Concurrency 16.** Two workers, sixteen connections. **Overload.** One worker with a
latency bound and many more connections than it can answer in time: percentiles of all answers, refusals included,
and what the requests went without.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from socket import create_server
from typing import Any, Final

import numpy as np
from rich.console import Console
from starlette.applications import Starlette

from benchmarks.environment import describe, restart_with_one_thread
from benchmarks.report import markdown_table, tell_facts
from benchmarks.synthetic import SLOTS, GatheredFeatures, prepare
from explorank import Stage, load
from explorank.host.runner import app_of, serve_app
from explorank.process import settle
from explorank.settings import Settings
from explorank.workers import serve_workers

_USERS: Final = 200
_BOUND_MS: Final = 50.0
_STARTS_WITHIN_S: Final = 120.0
_SCRIPT: Final = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local n = 0
request = function()
  n = n + 1
  return wrk.format(nil, "/v1/rank", nil, '{"user_id": "' .. (n % USERS) .. '", "slots": SLOTS}')
end
done = function(summary, latency, requests)
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "refused": %d, "p50_ms": %f, "p99_ms": %f}',
    summary.requests, summary.duration / 1e6, summary.errors.status,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """What one run of the client saw; percentiles are of all answers, refusals included."""

    requests: int
    seconds: float
    refused: int
    p50_ms: float
    p99_ms: float

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured for one size."""

    items: int
    candidates: int
    in_process_ms: float
    in_process_p99_ms: float
    http_ms: float
    http_p99_ms: float
    ratio: float
    """HTTP over in process, the median over the rounds."""
    cpu_ratio: float
    """The same of the CPU time of a request, the server's alone; the client and the network are left out."""
    together: Answered
    """Two workers, sixteen connections."""
    overloaded: Answered
    """One worker, its latency bound set, sixty-four connections."""
    shed: Mapping[str, float]
    """The share of the overloaded requests that got each effort."""


def make_app(settings: Settings) -> Starlette:
    """Return the application of one worker."""
    return app_of(settings, _stage(settings))


def _stage(settings: Settings) -> Stage:
    return load(settings, plugins=[GatheredFeatures()])


def _serve(settings: Settings, port: int, workers: int) -> None:
    sys.stdin = None  # multiprocessing's own stands for nothing that workers could inherit
    if workers == 1:
        serve_app(make_app(settings), "127.0.0.1", port, log_level="warning")
    else:
        serve_workers(partial(make_app, settings), "127.0.0.1", port, workers=workers, log_level="warning")


@contextmanager
def _server(settings: Settings, workers: int) -> Iterator[str]:
    """Yield the address of a server in processes of its own, all of them ready."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(settings, port, workers))
    process.start()
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address)
        _load(address, connections=4 * workers, seconds=3.0)
        yield address
    finally:
        if process.pid is not None and process.is_alive():
            process.terminate()
        process.join()


def _wait_for(address: str) -> None:
    until = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):  # noqa: S310 - our own address
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{address} was not ready within {_STARTS_WITHIN_S:g} s")


def _load(address: str, *, connections: int, seconds: float) -> Answered:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.replace("USERS", str(_USERS)).replace("SLOTS", str(SLOTS)))
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "-s",
            script.name,
            address,
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own
    found = re.search(r"RESULT (\{.*\})", said)
    if found is None:
        raise RuntimeError(f"wrk said nothing that can be read: {said}")
    return Answered(**json.loads(found[1]))


def _in_process(stage: Stage, seconds: float) -> list[float]:
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        stage.rank(user_id=str(len(taken) % _USERS), slots=SLOTS)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def _metrics(address: str) -> str:
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:  # noqa: S310 - our own address
        told: str = answer.read().decode()
    return told


def _cpu_s(address: str) -> float:
    found = re.search(r"^process_cpu_seconds_total (\S+)$", _metrics(address), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{address} does not say how much CPU time it has used")
    return float(found[1])


def _shed(address: str) -> dict[str, float]:
    text = _metrics(address)
    return {
        name: float(count)
        for name, count in re.findall(r'explorank_shed_total\{effort="(\w+)"\} (\S+)', text)
    }


def measure(items: int, candidates: int, rounds: int, round_s: float) -> Result:
    """Return what was measured of an installation of this size."""
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        settings = prepare(Path(here), items=items, candidates=candidates)
        load_section = {"load": {"latency_ms": _BOUND_MS}}
        bounded = prepare(Path(there), items=items, candidates=candidates, changes=load_section)
        in_process: list[list[float]] = []
        http: list[Answered] = []
        ratios: list[float] = []
        cpu_ratios: list[float] = []
        with _stage(settings) as stage, _server(settings, workers=1) as address:
            _in_process(stage, 2.0)
            settle()
            for number in range(rounds):
                cpu_s = dict[bool, float]()
                for served in (False, True) if number % 2 == 0 else (True, False):
                    began_s = _cpu_s(address) if served else time.process_time()
                    if served:
                        http.append(_load(address, connections=1, seconds=round_s))
                        cpu_s[served] = (_cpu_s(address) - began_s) / http[-1].requests
                    else:
                        in_process.append(_in_process(stage, round_s))
                        cpu_s[served] = (time.process_time() - began_s) / len(in_process[-1])
                ratios.append(http[-1].p50_ms / float(np.median(in_process[-1])))
                cpu_ratios.append(cpu_s[True] / cpu_s[False])
        with _server(settings, workers=2) as address:
            together = _load(address, connections=16, seconds=rounds * round_s / 2)
        with _server(bounded, workers=1) as address:
            before = _shed(address)
            overloaded = _load(address, connections=64, seconds=rounds * round_s / 2)
            counts = {name: count - before.get(name, 0.0) for name, count in _shed(address).items()}
    all_in_process = np.concatenate(in_process)
    return Result(
        items=items,
        candidates=candidates,
        in_process_ms=float(np.median(all_in_process)),
        in_process_p99_ms=float(np.percentile(all_in_process, 99)),
        http_ms=float(np.median([run.p50_ms for run in http])),
        http_p99_ms=float(np.median([run.p99_ms for run in http])),
        ratio=float(np.median(ratios)),
        cpu_ratio=float(np.median(cpu_ratios)),
        together=together,
        overloaded=overloaded,
        shed={name: count / overloaded.requests for name, count in counts.items()},
    )


def report(results: Sequence[Result], facts: Mapping[str, Any], console: Console) -> None:
    """Print the environment and a table."""
    tell_facts(facts, console)
    table = markdown_table(["", *(f"{r.items:,} items, {r.candidates:,} candidates" for r in results)])
    overload = f"1 worker, concurrency 64, bound {_BOUND_MS:g} ms"
    rows = {
        "in process, p50 / p99 ms": [f"{r.in_process_ms:.2f} / {r.in_process_p99_ms:.2f}" for r in results],
        "HTTP, concurrency 1, p50 / p99 ms": [f"{r.http_ms:.2f} / {r.http_p99_ms:.2f}" for r in results],
        "HTTP / in process (at most 1.3)": [f"{r.ratio:.2f}" for r in results],
        "the same, CPU time of the server alone": [f"{r.cpu_ratio:.2f}" for r in results],
        "2 workers, concurrency 16: per second": [f"{r.together.per_s:,.0f}" for r in results],
        "2 workers, concurrency 16: p50 / p99 ms": [
            f"{r.together.p50_ms:.1f} / {r.together.p99_ms:.1f}" for r in results
        ],
        f"{overload}: slates per second": [
            f"{(r.overloaded.requests - r.overloaded.refused) / r.overloaded.seconds:,.0f}" for r in results
        ],
        f"{overload}: p50 / p99 ms": [
            f"{r.overloaded.p50_ms:.1f} / {r.overloaded.p99_ms:.1f}" for r in results
        ],
        f"{overload}: what was shed": [
            ", ".join(f"{name} {share:.0%}" for name, share in r.shed.items()) or "nothing" for r in results
        ],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print("", table, highlight=False)


def main() -> None:
    """Measure, and print a table."""
    restart_with_one_thread()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[5_000, 100_000])
    parser.add_argument("--candidates", type=int, nargs="+", default=[500, 200])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("`wrk` is not installed; it makes the requests.")
    sizes = list(zip(chosen.items, chosen.candidates, strict=True))[: 1 if chosen.quick else None]
    rounds, round_s = (2, 1.0) if chosen.quick else (chosen.rounds, 3.0)
    results = [measure(items, candidates, rounds, round_s) for items, candidates in sizes]
    facts = describe()
    report(results, facts, Console(width=160))
    if chosen.json is not None:
        written = {"environment": facts, "results": [asdict(result) for result in results]}
        chosen.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()
