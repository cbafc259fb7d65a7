"""Measures the whole request in process, and over HTTP where asked to."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import faiss
import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import environment
from benchmarks.report import tell_facts
from benchmarks.request_path import over_http, table
from benchmarks.request_path.floors import Floors
from benchmarks.request_path.installation import EXPLORED, TimedStage, folder_of, policy_columns, prepare
from benchmarks.request_path.laps import Laps
from benchmarks.request_path.naive import SIZE_FILE, NaivePeer
from benchmarks.request_path.nearest import exact, flat, recall, well_chosen
from benchmarks.request_path.options import add_world_options, world_of
from benchmarks.request_path.repository import fill, is_filled, serving_store, shared_store, write_repository
from benchmarks.request_path.turns import Request, drawn_users, measure
from benchmarks.request_path.world import World
from explorank import Stage, load

_OURS: Final = "Explorank"
_IN_PROCESS: Final = "in process"
_CLIENTS: Final = 16
_WARM: Final = 20
_QUERIES: Final = 64
"""Users whose nearest items say what an index finds."""


def in_process(world: World, settings: Path, rounds: int, console: Console) -> dict[str, Any]:
    """Print the table of the steps, and return the same for a file."""
    queries = world.user_vectors[:_QUERIES]
    truth = exact(world.vectors, queries, world.size.candidates)
    nearest = well_chosen(world.vectors, queries, truth, world.vectors_folder)
    floors = Floors(world, nearest, EXPLORED, len(policy_columns(world)))
    repository = world.folder / "naive"
    peers = {
        "naive, flat": NaivePeer(world, repository, flat(world.vectors)),
        "naive, chosen index": NaivePeer(world, repository, nearest),
    }

    def ask(peer: NaivePeer) -> Request:
        def request(user: int, laps: Laps) -> str:
            answer = peer.rank(world.user_ids[user], world.size.slots, laps)
            written = json.dumps(answer)
            laps.lap("serialise")
            return written

        return request

    with load(settings) as stage:
        timed = TimedStage(stage, world.size.slots)
        timed.settle(world.user_ids[0])
        timed.learn(world.user_ids[:100])
        k = world.size.candidates
        found_by_chosen = np.stack([nearest(query, k) for query in queries])
        facts = {
            "chosen index": f"{nearest.name}, recall {recall(truth, found_by_chosen):.4f}",
            "Explorank's index": f"{timed.index}, recall {recall(truth, timed.nearest(queries, k)):.4f}",
        }
        contestants: dict[str, Request] = {
            "floors": floors.rank,
            "explorank": lambda user, laps: timed.rank(world.user_ids[user], laps),
            **{name: ask(peer) for name, peer in peers.items()},
        }
        found = measure(contestants, drawn_users(world.size.users, rounds))
    for name, value in facts.items():
        console.print(f"- {name}: {value}", highlight=False)
    told = table.steps_table(found["floors"], found["explorank"], {name: found[name] for name in peers})
    console.print("\n### In process, one thread", told, highlight=False)
    times = {name: {step: _us(seconds) for step, seconds in each.items()} for name, each in found.items()}
    return {"indexes": facts, "us": times}


def through_http(world: World, settings: Path, requests: int, console: Console) -> dict[str, Any]:
    """Ask the servers, one after another; print their table, and return the same for a file.

    Explorank's requests one at a time take turns with a stage of this process, so that both meet the same machine.
    """
    drawn = drawn_users(world.size.users, requests, seed=1)
    slots = world.size.slots
    ranked = [over_http.post("/v1/rank", {"user_id": user, "slots": slots}) for user in world.user_ids]
    naively = [over_http.get(f"/rank/{user}?slots={slots}") for user in world.user_ids]
    asked: dict[str, tuple[Callable[[int], Sequence[str]], Sequence[bytes]]] = {
        "bare Starlette": (over_http.bare, [over_http.get("/")] * world.size.users),
        "naive, flat": (over_http.naive(world.folder), naively),
        _OURS: (over_http.explorank(settings), ranked),
    }
    rows: list[table.ServerRow] = []
    alone: dict[str, NDArray[np.float64]] = {}
    for name, (command, messages) in asked.items():
        with (
            over_http.server(command, messages[0], world.folder / "server.log") as server,
            ExitStack() as held,
        ):
            over_http.settle(server, messages[:_WARM])
            loaded, rate = over_http.at_once(server.port, [messages[user] for user in drawn], _CLIENTS)
            memory_mb = server.memory_mb  # before a stage of this process shares its pages
            contestants: dict[str, Request] = {
                name: held.enter_context(over_http.connected(server.port, messages))
            }
            if name == _OURS:
                contestants[_IN_PROCESS] = _settled(held.enter_context(load(settings)), world)
            alone |= {each: table.whole(steps) for each, steps in measure(contestants, drawn).items()}
            rows.append(table.ServerRow(name, alone[name], loaded, rate, memory_mb))
    console.print("\n### Over HTTP", table.http_table(rows, alone[_IN_PROCESS]), highlight=False)
    written: dict[str, Any] = {
        row.name: {
            "alone_us": _us(row.alone),
            "loaded_us": _us(row.loaded),
            "requests_per_s": row.requests_per_s,
            "memory_mb": row.memory_mb,
        }
        for row in rows
    }
    written[_OURS]["in_process_us"] = _us(alone[_IN_PROCESS])
    return written


def _settled(stage: Stage, world: World) -> Request:
    """Return how a stage of this process is asked, once nothing works in its background any more."""
    timed = TimedStage(stage, world.size.slots)
    timed.settle(world.user_ids[0])
    return lambda user, laps: timed.rank(world.user_ids[user], laps)


def _us(seconds: NDArray[np.float64]) -> list[float]:
    microseconds: list[float] = (seconds * 1e6).round(1).tolist()
    return microseconds


def run(world: World, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Prepare what is missing, measure and print; return the numbers."""
    begin = time.perf_counter()
    written: dict[str, Any] = {}
    (world.folder / SIZE_FILE).write_text(json.dumps(asdict(world.size)), encoding="utf-8")
    with shared_store(world, options.online_store) as section:
        access = write_repository(world, world.folder / "naive", section)
        settings = prepare(world, folder_of(world, options.index), serving_store(section), kind=options.index)
        if not is_filled(world, access):
            fill(world, access)
        console.print(f"- prepared in {time.perf_counter() - begin:.0f} s", highlight=False)
        written["in_process"] = in_process(world, settings, 1 if options.quick else options.rounds, console)
        if options.http:
            written["http"] = through_http(
                world, settings, 32 if options.quick else options.requests, console
            )
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(prog="benchmarks.request_path", description=__doc__)
    add_world_options(parser)
    parser.add_argument("--requests", type=int, default=500, metavar="N", help="requests of each, over HTTP")
    parser.add_argument("--http", action="store_true", help="also measure over HTTP")
    options = parser.parse_args(arguments)
    environment.restart_with_one_thread()
    world = world_of(options)
    console = Console(width=None if sys.stdout.isatty() else 140)
    facts = environment.describe() | {
        "faiss": faiss.__version__,
        "lightgbm": lightgbm.__version__,
        "size": asdict(world.size),
        "online_store": options.online_store,
    }
    tell_facts(facts, console)
    written = {"environment": facts, **run(world, options, console)}
    if options.json is not None:
        options.json.write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    main()
