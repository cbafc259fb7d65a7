"""The accuracy benchmark: splits do not leak, figures are those of their definitions, and any tables will do."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from explorank.demo.data import own_data
from explorank.errors import DataError
from explorank.retrieval import InvalidTable
from explorank.retrieval.collaborative import Interactions, SideInformation

REPOSITORY = Path(__file__).parents[2]
DAY = 86_400.0


def module(name: str) -> ModuleType:
    sys.path.insert(0, str(REPOSITORY))
    try:
        return importlib.import_module(f"benchmarks.accuracy.{name}")
    finally:
        sys.path.remove(str(REPOSITORY))


def interactions(seed: int, *, count: int = 200, users: int = 12, items: int = 40) -> Interactions:
    generator = np.random.default_rng(seed)
    return Interactions.of(
        [f"u{n:02}" for n in generator.integers(users, size=count)],
        [f"i{n:02}" for n in generator.integers(items, size=count)],
        times=np.floor(generator.random(count) * 20) * DAY,
    )


def pairs(some: Interactions) -> set[tuple[int, int]]:
    return set(zip(some.users.tolist(), some.items.tolist(), strict=True))


@pytest.mark.parametrize("protocol", ["user75", "user80", "time", "last-out"])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_split_parts_everything_and_leaks_nothing(protocol: str, seed: int) -> None:
    every = interactions(seed)
    split = module("protocols").PROTOCOLS[protocol].split(every, seed)

    assert pairs(split.train) | pairs(split.test) == pairs(every)
    assert not pairs(split.train) & pairs(split.test)
    assert set(split.users.tolist()) <= set(split.train.users.tolist()) & set(split.test.users.tolist())
    if split.now is None:
        assert split.train.times is None
        assert split.test.times is None
    else:
        assert (split.train.times < split.now).all()
        assert (split.test.times >= split.now).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_shares_are_each_users(seed: int) -> None:
    every = interactions(seed)
    protocols = module("protocols").PROTOCOLS

    kept = protocols["user75"].split(every, seed).train.activity
    assert kept.tolist() == np.round(0.75 * every.activity).tolist()
    last = protocols["last-out"].split(every, seed)
    assert last.test.activity.tolist() == np.minimum(every.activity, 1).tolist()


def test_the_last_is_held_out() -> None:
    every = Interactions.of(["u", "u", "v", "v"], ["a", "b", "a", "b"], times=[2.0, 1.0, 1.0, 2.0])
    split = module("protocols").PROTOCOLS["last-out"].split(every, 0)

    assert pairs(split.test) == {(0, 0), (1, 1)}


def test_figures_by_hand() -> None:
    lists = np.array([[0, 1, 2], [3, 2, 1], [0, -1, -1], [4, 3, 2]])
    test = csr_matrix(np.array([[0, 1, 0, 1, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]))
    found = module("metrics").accuracy(lists, test)

    second, best_of_two = 1 / np.log2(3), 1 + 1 / np.log2(3)
    np.testing.assert_allclose(found.ndcg, [second / best_of_two, 1.0, 0.0, np.nan])
    np.testing.assert_allclose(found.recall, [0.5, 1.0, 0.0, np.nan])
    np.testing.assert_allclose(found.mrr, [0.5, 1.0, 0.0, np.nan])
    assert found.coverage == 1.0


def test_lists_leave_out_what_is_known_and_what_is_no_candidate() -> None:
    scores = np.array([[3.0, 2.0, -np.inf, 1.0], [1.0, 1.0, 1.0, 1.0]])
    taken = csr_matrix(np.array([[1, 0, 0, 0], [0, 0, 0, 0]]))

    assert module("metrics").best_of(scores, taken, 3).tolist() == [[1, 3, -1], [0, 1, 2]]


def test_intervals_are_over_users_and_over_seeds() -> None:
    summary, metrics = module("summary"), module("metrics")
    record = summary.Record("one", users=3)
    for ndcg in ([0.2, 0.4], [0.4, 0.6]):
        figures = np.array(ndcg)
        record.add(np.array([0, 2]), metrics.Accuracy(figures, figures, figures, 0.5), 1.0, 2.0)

    np.testing.assert_allclose(record.of_users("ndcg"), [0.3, np.nan, 0.5])
    assert record.of_seeds("ndcg") == pytest.approx([0.3, 0.5])
    assert record.interval("ndcg").mean == pytest.approx(0.4)
    # t(0.975, 1) = 12.706, deviation 0.1414
    assert record.over_seeds("ndcg") == pytest.approx(12.706 * 0.14142 / np.sqrt(2), rel=1e-3)
    assert record.gain(record, "ndcg").high == 0.0


def test_new_items_are_in_no_training_interaction() -> None:
    every = interactions(3)
    cut = module("cold_start").new_items(every, 0)

    assert not cut.new[cut.known.items].any()
    assert cut.new[cut.held_out.items].all()
    assert len(cut.known) + len(cut.held_out) == len(every)


def test_all_that_is_known_is_scaled_and_filled() -> None:
    worlds = module("worlds")
    side = SideInformation(
        item_numbers={"year": np.array([1.0, 3.0, np.nan])}, user_groups={"club": np.array([1, 0])}
    )

    np.testing.assert_allclose(worlds.known_of_items(side), [[-1.0], [1.0], [0.0]])
    np.testing.assert_allclose(worlds.known_of_users(side), [[0, 1], [1, 0]])
    assert worlds.known_of_items(SideInformation()) is None


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clubs of users, who take up items of their club, over a hundred days."""
    folder = tmp_path_factory.mktemp("tables")
    generator = np.random.default_rng(0)
    rows = [
        (f"u{user:02}", f"i{item + 20 * (user % 2):02}")
        for user in range(60)
        for item in generator.choice(20, 12, replace=False)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
    frame["timestamp"] = pd.to_datetime(generator.integers(0, 100 * 86_400, len(frame)), unit="s", utc=True)
    frame["value"] = 1.0
    frame.to_parquet(folder / "interactions.parquet")
    items = pd.DataFrame({"item_id": [f"i{item:02}" for item in range(40)]})
    items["text"] = ["a jazz record" if item < 20 else "a garden tool" for item in range(40)]
    items["price"] = generator.random(40)
    items["genres"] = [["music"] if item < 20 else ["garden", "tool"] for item in range(40)]
    items.to_parquet(folder / "items.parquet")
    users = pd.DataFrame(
        {"user_id": [f"u{user:02}" for user in range(60)], "age": generator.integers(18, 80, 60)}
    )
    users.to_parquet(folder / "users.parquet")
    return folder


def run(tables: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "benchmarks.accuracy", "--cache", tables / "embeddings.db", *arguments,
        ],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def test_it_runs_on_own_tables(tables: Path) -> None:
    done = run(
        tables,
        *("--interactions", str(tables / "interactions.parquet"), "--items", str(tables / "items.parquet")),
        *("--users", str(tables / "users.parquet"), "--protocol", "user75", "time"),
        *("--seeds", "1", "--ablation", "--json", str(tables / "out.json")),
    )
    assert done.returncode == 0, done.stderr
    written: dict[str, Any] = json.loads((tables / "out.json").read_text(encoding="utf-8"))

    assert "### user75" in done.stdout
    assert written["environment"]["blas_threads"] == 1
    by_name = {one["name"]: one for one in written["protocols"]["user75"]}
    assert {"popularity", "ItemKNN", "EASE", "implicit ALS", "TwoTower", "content similarity"} < set(by_name)
    # Popularity cannot tell the clubs apart; whoever can finds the rest of the club first.
    for name in ("EASE", "ItemKNN", "full system, lightgbm"):
        assert by_name[name]["recall"]["mean"] > by_name["popularity"]["recall"]["mean"] + 0.1
    assert any(one["ablation"] for one in written["protocols"]["time"])
    assert "popularity of the last 14 days" in {one["name"] for one in written["protocols"]["time"]}


@pytest.mark.parametrize(
    ("table", "lost", "named"),
    [("interactions", "item_id", "item_id"), ("items", "text", "'text'"), ("items", "item_id", "'item_id'")],
)
def test_a_missing_column_is_named(tables: Path, tmp_path: Path, table: str, lost: str, named: str) -> None:
    pd.read_parquet(tables / f"{table}.parquet").drop(columns=lost).to_parquet(tmp_path / f"{table}.parquet")
    paths = {name: tables / f"{name}.parquet" for name in ("interactions", "items")}
    paths[table] = tmp_path / f"{table}.parquet"

    with pytest.raises((DataError, InvalidTable), match=named):
        module("worlds").world(
            own_data(paths["interactions"], paths["items"], None, None), tmp_path / "cache.db"
        )


def test_bad_arguments_are_told_without_a_traceback(tables: Path) -> None:
    done = run(tables, "--interactions", str(tables / "interactions.parquet"))

    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks.accuracy: --interactions and --items go together")


def test_users_of_whom_training_knows_nothing_are_refused(tables: Path) -> None:
    late = Interactions.of(["u", "v"], ["a", "b"], times=[1.0, 2.0])
    data = module("worlds").World("late", late, SideInformation())
    with pytest.raises(DataError, match="no user of the test part"):
        module("__main__").play(
            data, module("protocols").PROTOCOLS["time"], seeds=[0], ranker_names=["lightgbm"], ablation=False
        )
