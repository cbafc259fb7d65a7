"""How well each system foresees what users take up, on MovieLens-100K or on your own tables.

    python -m benchmarks.accuracy [--protocol user75|user80|time|time-earlier|last-out] [--seeds 3] [--json PATH]
        [--interactions A.parquet --items B.parquet [--users C.parquet]] [--rankers lightgbm dcn …] [--ablation]
        [--cold-start] [--no-towers] [--no-stage]

or `make accuracy`. `docs/accuracy.md` says what is measured, and what came of it. One process, one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from benchmarks import environment
from benchmarks.accuracy import cold_start, contenders
from benchmarks.accuracy.metrics import accuracy, best_of
from benchmarks.accuracy.protocols import PROTOCOLS, Protocol
from benchmarks.accuracy.served import Served
from benchmarks.accuracy.situations import Found
from benchmarks.accuracy.summary import Record, table, told
from benchmarks.accuracy.two_stage import OPTIONS, rankers
from benchmarks.accuracy.worlds import World, world
from explorank.demo.data import DemoData, movielens, own_data
from explorank.errors import DataError
from explorank.rankers import RankerError
from explorank.retrieval import RetrievalError

CACHE: Final = Path(__file__).parents[2] / "build" / "accuracy" / "embeddings.db"
_CUTOFF: Final = 10


def play(
    data: World,
    protocol: Protocol,
    *,
    seeds: Sequence[int],
    ranker_names: Sequence[str],
    ablation: bool,
    with_towers: bool = True,
    stage: Served | None = None,
) -> Iterator[list[Record]]:
    """Yield the figures of every contender, in the order of the table, under the first of `seeds`, the first two, …."""
    records: dict[str, Record] = {}
    for seed in seeds:
        split = protocol.split(data.interactions, seed)
        if not len(split.users):
            raise DataError(
                f"Under {protocol.name} no user of the test part is known from training, so nothing can be foreseen. "
                "Bring more interactions of each user, or choose another protocol."
            )
        taken, test = (part.matrix[split.users] for part in (split.train, split.test))
        entries = chain(
            contenders.simple(split, data.side, seed),
            contenders.towers(split, data.side, seed) if with_towers else (),
            contenders.staged(split, data.side, seed, ranker_names, ablation=ablation)
            if ranker_names
            else (),
            () if stage is None else stage.contenders(split, seed),
        )
        for entry in entries:
            record = records.setdefault(
                entry.name, Record(entry.name, len(data.interactions.user_ids), entry.ablation)
            )
            found = accuracy(best_of(entry.scores, taken, _CUTOFF), test)
            record.add(split.users, found, entry.effort.seconds, entry.effort.mib)
            sys.stderr.write(
                f"{protocol.name}, seed {seed}: {entry.name} {record.of_seeds('ndcg')[-1]:.4f}\n"
            )
        yield list(records.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables in Markdown, and write JSON where asked to."""
    options = _parser().parse_args(arguments)
    environment.restart_with_one_thread()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run(options, Path(folder))
    except (DataError, RankerError, RetrievalError) as error:
        sys.exit(f"benchmarks.accuracy: {error}")


def _run(options: argparse.Namespace, folder: Path) -> None:
    unknown = [name for name in options.protocol if name not in PROTOCOLS]
    if unknown:
        raise DataError(f"--protocol {unknown[0]} is none of {', '.join(PROTOCOLS)}. Name some of them.")
    if options.ablation and not options.rankers:
        raise DataError(
            "--ablation takes parts away from the full system with a ranker, and --rankers names none. Name one."
        )
    _one_torch_thread()
    tables = _data(options)
    data = world(tables, options.cache)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    facts = {**environment.describe(), "data": data.name, "seeds": ", ".join(map(str, seeds))}
    written: dict[str, Any] = {"environment": facts, "protocols": {}}
    lines = environment.lines(facts)
    for name in options.protocol:
        protocol = PROTOCOLS[name]
        records: list[Record] = []
        for records in play(
            data,
            protocol,
            seeds=seeds,
            ranker_names=options.rankers,
            ablation=options.ablation,
            with_towers=not options.no_towers,
            stage=None if options.no_stage else Served.of(tables, options.cache, folder),
        ):
            written["protocols"][name] = told(records)
            _write(options.json, written)
        lines += ["", f"### {name}: {protocol.says}", "", *table(records, (contenders.POPULAR, "EASE"))]
    if options.cold_start:
        found: list[Found] = []
        for found in cold_start.play(data, seeds=seeds):
            written["cold_start"] = [one.to_dict() for one in found]
            _write(options.json, written)
        lines += ["", *cold_start.tables(found)]
    sys.stdout.write("\n".join(lines) + "\n")


def _write(path: Path | None, written: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def _data(options: argparse.Namespace) -> DemoData:
    if (options.interactions is None) != (options.items is None):
        raise DataError("--interactions and --items go together; name both, or neither for MovieLens-100K.")
    if options.interactions is None:
        return movielens()
    return own_data(options.interactions, options.items, options.users, None)


def _one_torch_thread() -> None:
    import torch  # noqa: PLC0415 - after the restart with one thread

    torch.set_num_threads(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.accuracy", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--interactions", type=Path, metavar="PATH", help="parquet or CSV: user_id, item_id, timestamp"
    )
    parser.add_argument(
        "--items", type=Path, metavar="PATH", help="item_id, text or title, and any other columns"
    )
    parser.add_argument("--users", type=Path, metavar="PATH", help="user_id and any other columns")
    parser.add_argument(
        "--protocol", nargs="*", metavar="NAME", default=["user75", "user80", "time"],
        help=f"some of {', '.join(PROTOCOLS)}, or none at all; default: user75 user80 time",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument(
        "--first-seed", type=int, default=1, metavar="N", help="default: 1; tuning looks at seed 0"
    )
    parser.add_argument(
        "--rankers", nargs="*", choices=rankers(), default=list(OPTIONS), metavar="NAME",
        help="of the full system, or none to leave it out; the first is the ablation's; default: "
        f"{' '.join(OPTIONS)}",
    )  # fmt: skip
    parser.add_argument(
        "--ablation", action="store_true", help="also say what each part of the full system adds"
    )
    parser.add_argument(
        "--no-towers", action="store_true", help="leave out TwoTower, which takes most of the time"
    )
    parser.add_argument(
        "--no-stage", action="store_true", help="leave out the stage as it is served, under `time`"
    )
    parser.add_argument("--cold-start", action="store_true", help="also measure items and users never seen")
    parser.add_argument(
        "--json", type=Path, metavar="PATH",
        help="also write the figures to PATH, after each seed, with everybody's difference to everybody else",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, default=CACHE, help="keeps the texts' embeddings")
    return parser


if __name__ == "__main__":
    main()
