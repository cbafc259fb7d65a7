"""The columnar online store beside Feast's own SQLite and Redis stores; `python -m benchmarks.online_store`.

One process, one thread, CPU time, about two minutes. The same rows lie in every store: two views of 25 features
each, of which 20 are floating numbers, 3 whole ones, a text and a time. Reads ask for 500 random items through
`FeatureStore.get_online_features`, 25 features of one view, and turn the answer into a dictionary, a data frame
or an Arrow table; each store has its turn in every round, and a ratio is the median of the rounds' ratios.
The client's share of a Redis read is measured, not the server's.

The gather asks the array door for both views, 500 by 50 float32, by key and by known position; beside it numpy
copies the same rows out of two matrices, which is the floor.

Materializing is timed whole, from parquet into a fresh store, in turns; its ratio is that to the backing store
alone. Freshness is measured by the clock on the wall: another process writes one row after another and says
when each was acknowledged, and the reader asks until it sees it. Last, `feast serve` is started over the
columnar store, and its answers are compared with those of Feast's own store, value by value.

Without a `redis-server` on the path the rows of Redis are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.environment import describe, restart_with_one_thread
from benchmarks.report import markdown_table, tell_facts
from benchmarks.request_path.redis_server import free_port, redis_server
from benchmarks.request_path.settling import until_idle
from benchmarks.timing import Contestant, measure, repeated
from explorank.retrieval.columnar_store import KnownKeys

if TYPE_CHECKING:
    from feast import FeatureStore

CLASS_PATH: Final = "explorank.retrieval.columnar_store.ColumnarOnlineStore"
VIEWS: Final = ("first", "second")
ASKED: Final = 500
REQUESTS: Final = 50
DEFINITIONS: Final = """
from datetime import timedelta
from pathlib import Path
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

DATA = Path({data!r})
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)


def view(name):
    kinds = {{**{{f"f{{n}}": Float64 for n in range(20)}}, **{{f"n{{n}}": Int64 for n in range(3)}}}}
    return FeatureView(
        name=name,
        entities=[item],
        ttl=timedelta(days=3650),
        schema=[
            Field(name=f"{{name}}_{{feature}}", dtype=kind)
            for feature, kind in {{**kinds, "text": String, "time": UnixTimestamp}}.items()
        ],
        source=FileSource(path=str(DATA / f"{{name}}.parquet"), timestamp_field="event_timestamp"),
    )


first, second = view("first"), view("second")
"""


def features_of(view: str) -> list[str]:
    """Return the names of a view's 25 features."""
    names = [*(f"f{n}" for n in range(20)), *(f"n{n}" for n in range(3)), "text", "time"]
    return [f"{view}_{name}" for name in names]


def write_data(folder: Path, items: int) -> None:
    """Write the rows of both views as parquet."""
    random = np.random.default_rng(20261125)
    now = datetime.now(UTC).replace(microsecond=0)
    for view in VIEWS:
        columns: dict[str, Any] = {"item_id": [item_id(number) for number in range(items)]}
        for name in features_of(view):
            kind = name.rsplit("_", 1)[1]
            if kind == "text":
                columns[name] = random.choice(["red", "green", "blue", "grey"], items)
            elif kind == "time":
                moments = [now - timedelta(days=int(age)) for age in random.integers(0, 900, items)]
                columns[name] = pd.to_datetime(moments).as_unit("us")
            elif kind.startswith("n"):
                columns[name] = random.integers(0, 1_000, items)
            else:
                columns[name] = random.random(items)
        columns["event_timestamp"] = pd.to_datetime([now - timedelta(hours=1)] * items).as_unit("us")
        pd.DataFrame(columns).to_parquet(folder / f"{view}.parquet")


def item_id(number: int) -> str:
    """Return the id of an item."""
    return f"item-{number:07}"


def repository(folder: Path, data: Path, online_store: dict[str, Any]) -> FeatureStore:
    """Write and apply a Feast repository; return it opened."""
    from feast import FeatureStore  # noqa: PLC0415 - takes seconds
    from feast.repo_config import load_repo_config  # noqa: PLC0415 - takes seconds
    from feast.repo_operations import apply_total  # noqa: PLC0415 - takes seconds

    folder.mkdir(parents=True)
    settings = {
        "project": "bench",
        "provider": "local",
        "registry": {"path": str(folder / "registry.db"), "cache_ttl_seconds": 600},
        "online_store": online_store,
        "offline_store": {"type": "duckdb"},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    (folder / "definitions.py").write_text(DEFINITIONS.format(data=str(data)))
    with contextlib.chdir(folder), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        sys.modules.pop("definitions", None)
        sys.path.insert(0, str(folder))
        try:
            apply_total(
                load_repo_config(folder, folder / "feature_store.yaml"), folder, skip_source_validation=True
            )
        finally:
            sys.path.remove(str(folder))
    return FeatureStore(repo_path=str(folder))


def over(backing: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a columnar store in front of another."""
    return {"type": CLASS_PATH, "backing": backing}


def wait_for(port: int) -> None:
    """Wait until something listens to a port."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"Nothing listens to port {port} after 90 s.")


def materialize(store: FeatureStore) -> float:
    """Load all rows into the online store; return the CPU seconds."""
    begin = time.process_time()
    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        store.materialize(datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC))
    return time.process_time() - begin


def keys_of(items: int) -> list[list[str]]:
    """Return the ids that each of some requests asks for."""
    random = np.random.default_rng(1)
    return [[item_id(number) for number in random.integers(0, items, ASKED)] for _ in range(REQUESTS)]


def reading(store: FeatureStore, form: str, items: int) -> Callable[[], object]:
    """Return what reads 25 features of 500 items, others at every call."""
    references = [f"first:{name}" for name in features_of("first")]
    rows = [[{"item_id": key} for key in keys] for keys in keys_of(items)]
    turn = iter(range(sys.maxsize))

    def read() -> object:
        answer = store.get_online_features(features=references, entity_rows=rows[next(turn) % REQUESTS])
        return getattr(answer, form)()

    return read


def text_codes(feature: str, texts: Sequence[str | None]) -> NDArray[np.float32]:
    """Return a number for each text."""
    return np.array([hash((feature, text)) % 97 for text in texts], np.float32)


def gathering(store: FeatureStore, items: int) -> dict[str, Callable[[], object]]:
    """Return ways to gather 50 features of 500 items, others at every call."""
    views = [(store.get_feature_view(name), features_of(name)) for name in VIEWS]
    matrix = store._get_provider().online_store.matrix(store.config, views, text_codes)
    keys = keys_of(items)
    positions = [np.array([int(key[5:]) for key in part]) for part in keys]
    known = KnownKeys(items, lambda numbers: [item_id(number) for number in numbers.tolist()])
    plain = [np.random.default_rng(2).random((items, 25), np.float32) for _ in VIEWS]
    turn = iter(range(sys.maxsize))
    now = time.time()

    def floor() -> object:
        chosen = positions[next(turn) % REQUESTS]
        out = np.empty((ASKED, 50), np.float32)
        out[:, :25] = np.take(plain[0], chosen, axis=0, mode="clip")
        out[:, 25:] = np.take(plain[1], chosen, axis=0, mode="clip")
        return out

    return {
        "by key": lambda: matrix.gather(keys[next(turn) % REQUESTS], now),
        "by known position": lambda: matrix.gather_known(known, positions[next(turn) % REQUESTS], now),
        "floor: numpy copies the rows": floor,
    }


def tell(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = markdown_table(headings)
    for row in rows:
        table.add_row(*row)
    console.print(f"\n### {title}", table, highlight=False)


def compare_reads(console: Console, stores: dict[str, FeatureStore], items: int, rounds: int) -> None:
    """Measure the forms of Feast's answer."""
    rows = []
    for form in ("to_dict", "to_df", "to_arrow"):
        contestants = [Contestant(repeated(reading(store, form, items))) for store in stores.values()]
        seconds = dict(zip(stores, measure(contestants, rounds, 0.05), strict=True))
        for name, taken in seconds.items():
            cells = [form, name, f"{np.median(taken) * 1e3:.3g}"]
            for other in ("Feast, SQLite", "Feast, Redis"):
                ratio = np.median(seconds[other] / taken) if other in seconds else np.nan
                cells.append("" if name == other or np.isnan(ratio) else f"{ratio:.3g}")
            rows.append(cells)
    tell(console, "Reads, 500 by 25", ("form", "store", "ms", "times faster than SQLite", "than Redis"), rows)


def compare_gathers(console: Console, store: FeatureStore, items: int, rounds: int) -> None:
    """Measure the array door."""
    ways = gathering(store, items)
    seconds = dict(
        zip(ways, measure([Contestant(repeated(way)) for way in ways.values()], rounds, 0.02), strict=True)
    )
    floor = seconds["floor: numpy copies the rows"]
    rows = [
        (name, f"{np.median(taken) * 1e6:.3g}", f"{np.median(taken / floor):.3g}")
        for name, taken in seconds.items()
    ]
    tell(console, "Array door, 500 by 50 from two views", ("", "µs", "times the floor"), rows)


def compare_writes(
    console: Console,
    folder: Path,
    data: Path,
    backings: dict[str, Callable[[Path], dict[str, Any]]],
    rounds: int,
) -> None:
    """Measure materialize into fresh stores."""
    rows = []
    for name, backing in backings.items():
        ratios, alone, columnar = [], [], []
        for number in range(rounds):
            place = folder / f"{name}-{number}"
            taken = {}
            # Each goes first every other time.
            for kind in ("alone", "columnar") if number % 2 else ("columnar", "alone"):
                settings = backing(place / kind)
                store = repository(place / kind, data, settings if kind == "alone" else over(settings))
                taken[kind] = materialize(store)
                with contextlib.redirect_stdout(None):
                    store.teardown()
            ratios.append(taken["columnar"] / taken["alone"])
            alone.append(taken["alone"])
            columnar.append(taken["columnar"])
        rows.append(
            (
                name,
                f"{statistics.median(alone):.3g}",
                f"{statistics.median(columnar):.3g}",
                f"{statistics.median(ratios):.3g}",
            )
        )
    tell(console, "Materialize", ("backing store", "alone, s", "columnar in front, s", "ratio"), rows)


WRITER: Final = """
import random, sys, time
import pandas as pd
from datetime import UTC, datetime
from feast import FeatureStore
store = FeatureStore(repo_path=sys.argv[1])
frame = pd.read_parquet(sys.argv[2]).iloc[:1]
for number in range(int(sys.argv[3])):
    frame["event_timestamp"] = pd.to_datetime([datetime.now(UTC)]).as_unit("us")
    frame["first_n0"] = 1_000_000 + number
    store.write_to_online_store("first", frame)
    print(1_000_000 + number, time.time(), flush=True)
    time.sleep(0.2 + random.random())
"""


def measure_freshness(
    console: Console, reader: FeatureStore, writers: dict[str, Path], data: Path, writes: int
) -> None:
    """Measure how long after its acknowledgement a row of another process is seen."""
    rows = []
    for name, writer in writers.items():
        process = subprocess.Popen(  # noqa: S603 - nothing comes from outside
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                WRITER,
                str(writer),
                str(data / "first.parquet"),
                str(writes),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        delays = []
        for line in process.stdout:
            number, acknowledged = line.split()
            seen = -1
            while seen != int(number):
                answer = reader.get_online_features(
                    features=["first:first_n0"], entity_rows=[{"item_id": item_id(0)}]
                )
                seen = answer.to_dict()["first_n0"][0]
                time.sleep(0.001)
            delays.append(max(0.0, time.time() - float(acknowledged)))
        process.wait()
        rows.append((name, str(len(delays)), f"{statistics.median(delays):.3f}", f"{max(delays):.3f}"))
    tell(
        console,
        "Seen by another process, bound 1 s",
        ("written by", "writes", "median s", "longest s"),
        rows,
    )


def compare_served(console: Console, folder: Path, plain: FeatureStore, items: int) -> None:
    """Ask `feast serve` over the columnar store what Feast's own store answers."""
    port = free_port()
    server = subprocess.Popen(  # noqa: S603 - nothing comes from outside
        [
            *(sys.executable, "-W", "ignore", "-m", "feast.cli.cli", "-c", str(folder)),
            *("serve", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        references = [f"{view}:{name}" for view in VIEWS for name in features_of(view)]
        keys = [item_id(number) for number in range(1, 2 * items, items // 50)]  # not the one written above
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/get-online-features",
            json.dumps({"features": references, "entities": {"item_id": keys}}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - our own server
            answer = json.load(response)
        served = dict(
            zip(answer["metadata"]["feature_names"], (r["values"] for r in answer["results"]), strict=True)
        )
        expected = plain.get_online_features(features=references, entity_rows={"item_id": keys}).to_df()
        equal = total = 0
        for name in expected:
            for ours, theirs in zip(served[name], expected[name], strict=True):
                total += 1
                missing = theirs is None or pd.isna(theirs)
                if isinstance(theirs, pd.Timestamp) and ours is not None:
                    theirs = int(theirs.timestamp())  # noqa: PLW2901 - as JSON has it
                equal += (ours is None) if missing else (ours == theirs)
        console.print(f"\nfeast serve: {equal:,} of {total:,} values equal to those of Feast's own store")
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    arguments = parser.parse_args()
    items = 500 if arguments.quick else arguments.items
    rounds = 3 if arguments.quick else 15
    console = Console(width=110)
    tell_facts(describe(), console)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        redis = None
        if shutil.which("redis-server") is not None:
            redis = f"127.0.0.1:{stack.enter_context(redis_server(folder / 'redis-data'))}"
        data = folder / "data"
        data.mkdir()
        write_data(data, items)
        sqlite = {"type": "sqlite", "path": str(folder / "plain.db")}
        behind = {"type": "sqlite", "path": str(folder / "behind.db")}
        stores = {
            "Feast, SQLite": repository(folder / "sqlite", data, sqlite),
            "columnar, SQLite": repository(folder / "columnar", data, over(behind)),
        }
        backings: dict[str, Callable[[Path], dict[str, Any]]] = {
            "SQLite": lambda place: {"type": "sqlite", "path": str(place / "online.db")}
        }
        if redis is not None:
            server = {"type": "redis", "connection_string": redis}
            stores["Feast, Redis"] = repository(folder / "redis", data, server)
            stores["columnar, Redis"] = repository(folder / "columnar-redis", data, over(server))
            backings["Redis"] = lambda _: {"type": "redis", "connection_string": f"{redis},db=1"}
        for name, store in stores.items():
            if name != "columnar, Redis":  # the same server
                materialize(store)
        for store in stores.values():
            reading(store, "to_dict", items)()
        until_idle(time.process_time)
        compare_reads(console, stores, items, rounds)
        compare_gathers(console, stores["columnar, SQLite"], items, 4 * rounds)
        compare_writes(console, folder / "writes", data, backings, 1 if arguments.quick else 5)
        repository(folder / "plain-writer", data, behind)
        writers = {
            "Feast's own SQLite store": folder / "plain-writer",
            "the columnar store over SQLite": folder / "columnar",
        }
        if arguments.quick:
            writers.popitem()
        measure_freshness(console, stores["columnar, SQLite"], writers, data, 2 if arguments.quick else 20)
        if redis is not None and not arguments.quick:
            measure_freshness(
                console,
                stores["columnar, Redis"],
                {"the columnar store over Redis": folder / "columnar-redis"},
                data,
                20,
            )
        materialize(stores["columnar, SQLite"])
        compare_served(console, folder / "columnar", stores["Feast, SQLite"], items)


if __name__ == "__main__":
    restart_with_one_thread()
    main()
