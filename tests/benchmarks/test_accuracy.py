"""The accuracy benchmark: splits do not leak, figures are those of their definitions, and any tables will do."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
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
from explorank.rankers import RankingData
from explorank.retrieval import InvalidTable
from explorank.retrieval.collaborative import FirstStageOptions, Interactions, SideInformation

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


@pytest.mark.parametrize("protocol", ["user75", "last-out"])
def test_without_times_no_order_tells_of_them(protocol: str) -> None:
    """Backwards in time, the same split has the same arrays: a history read in order cannot tell."""
    every = interactions(7)
    backwards = Interactions.of(
        every.user_ids[every.users], every.item_ids[every.items], times=-np.asarray(every.times)
    )
    kept = pairs(module("protocols").PROTOCOLS[protocol].split(every, 0).train)

    def in_order(some: Interactions) -> list[tuple[int, int]]:
        mask = np.array([pair in kept for pair in zip(some.users.tolist(), some.items.tolist(), strict=True)])
        left = some.take(mask).without_times()
        return list(zip(left.users.tolist(), left.items.tolist(), strict=True))

    assert in_order(every) == in_order(backwards)
    train = module("protocols").PROTOCOLS[protocol].split(every, 0).train
    assert list(zip(train.users.tolist(), train.items.tolist(), strict=True)) == in_order(every)


@pytest.mark.parametrize("protocol", ["user75", "time"])
def test_what_training_stops_by_is_not_what_it_learns_from(protocol: str) -> None:
    """At random no user is in both slices; in time no interaction is a label of both."""
    split = module("protocols").PROTOCOLS[protocol].split(interactions(1, count=900, users=30, items=200), 0)
    rows = module("two_stage").gather(split, SideInformation(), FirstStageOptions(depth=10), 0)
    taken_up: dict[int, set[str]] = {}
    for user, item in pairs(split.train):
        taken_up.setdefault(user, set()).add(str(split.train.item_ids[item]))

    def owners(data: RankingData) -> list[int]:
        assert data.histories is not None
        found = [[user for user, own in taken_up.items() if own >= {*one}] for one in data.histories]
        assert {len(one) for one in found} == {1}, "a history tells whose it is"
        return [one[0] for one in found]

    def labels(data: RankingData) -> set[tuple[int, str]]:
        assert data.item_ids is not None
        users = np.repeat(owners(data), np.asarray(data.groups))[data.labels > 0]
        return set(zip(users.tolist(), data.item_ids[data.labels > 0].tolist(), strict=True))

    assert labels(rows.valid)
    assert not labels(rows.train) & labels(rows.valid)
    if protocol == "user75":
        assert not {*owners(rows.train)} & {*owners(rows.valid)}
    assert (rows.train.labels > 0).tolist() == np.isfinite(rows.train.outcomes["value"]).tolist()
    # Whose each request is decides of the folds that blends and stacks are trained in.
    for part in (rows.train, rows.valid):
        assert part.user_ids is not None
        assert part.user_ids.tolist() == [str(split.train.user_ids[user]) for user in owners(part)]


def test_the_earlier_split_knows_nothing_of_what_is_judged_by() -> None:
    every, protocols = interactions(5), module("protocols").PROTOCOLS
    split, judged = (protocols[name].split(every, 0) for name in ("time-earlier", "time"))

    assert pairs(split.train) | pairs(split.test) == pairs(judged.train)
    assert (split.train.times < split.now).all()
    assert (split.test.times >= split.now).all()
    assert split.now < judged.now


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


def test_what_is_written_has_each_difference_user_by_user() -> None:
    summary, metrics = module("summary"), module("metrics")
    records = [summary.Record(name, users=2) for name in ("worse", "better")]
    for record, ndcg in zip(records, ([0.2, 0.6], [0.3, 0.7]), strict=True):
        figures = np.array(ndcg)
        record.add(np.array([0, 1]), metrics.Accuracy(figures, figures, figures, 0.5), 1.0, 2.0)

    worse, better = summary.told(records)
    assert better["ndcg_beyond"] == {"worse": pytest.approx([0.1, 0.1, 0.1])}
    assert worse["ndcg_beyond"] == {"better": pytest.approx([-0.1, -0.1, -0.1])}


def test_new_items_are_in_no_training_interaction() -> None:
    every = interactions(3)
    cut = module("cold_start").new_items(every, 0)

    assert not cut.new[cut.known.items].any()
    assert cut.new[cut.held_out.items].all()
    assert len(cut.known) + len(cut.held_out) == len(every)


def test_recall_of_what_is_new_is_told_seed_by_seed_and_beyond_each_other_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clubs of fifteen items: whoever reads a history finds more of the club's than counting does."""
    cold_start, world = module("cold_start"), module("worlds").World
    monkeypatch.setattr(cold_start, "_WIDE", 10)
    generator = np.random.default_rng(0)
    rows = [(u, i + 15 * (u % 2)) for u in range(40) for i in generator.choice(15, 9, replace=False)]
    every = Interactions.of([f"u{u:02}" for u, _ in rows], [f"i{i:02}" for _, i in rows])
    *_, last = cold_start.play(world("clubs", every, SideInformation()), seeds=[0, 1])

    found = {one.system: one for one in last if one.situation == "new users, 5 interactions known"}
    assert found["EASE"].recall.mean == 1.0, "all that is left of the club"
    assert len(found["EASE"].by_seed) == 2
    assert found["EASE"].users in range(4, 9)
    gain = found["EASE"].beyond["popularity"]
    assert gain.mean == pytest.approx(1.0 - found["popularity"].recall.mean)
    assert found["popularity"].beyond["EASE"].mean == pytest.approx(-gain.mean)
    assert not any("10 interactions" in one.situation for one in last), "nobody has more than nine"
    told = cold_start.tables(last)
    assert f"| EASE | {found['EASE'].recall} ±0.000 | {gain:+} |" in told


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
        *("--seeds", "1", "--ablation", "--rankers", "lightgbm", "dcn", "--json", str(tables / "out.json")),
    )
    assert done.returncode == 0, done.stderr
    written: dict[str, Any] = json.loads((tables / "out.json").read_text(encoding="utf-8"))

    assert "### user75" in done.stdout
    assert written["environment"]["blas_threads"] == 1
    by_name = {one["name"]: one for one in written["protocols"]["user75"]}
    assert {"popularity", "ItemKNN", "EASE", "implicit ALS", "TwoTower", "content similarity"} < set(by_name)
    # Popularity cannot tell the clubs apart; whoever can finds the rest of the club first.
    for name in ("EASE", "ItemKNN", "full system, lightgbm", "full system, dcn"):
        assert by_name[name]["recall"]["mean"] > by_name["popularity"]["recall"]["mean"] + 0.1
    assert any(one["ablation"] for one in written["protocols"]["time"])
    names = {protocol: {one["name"] for one in found} for protocol, found in written["protocols"].items()}
    assert "popularity of the last 14 days" in names["time"]
    # At random there is no moment to ask a stage at.
    served = {variant.name: variant.ranker is not None for variant in module("served").VARIANTS}
    assert set(served) <= names["time"]
    assert not set(served) & names["user75"]
    in_time = {one["name"]: one["recall"]["mean"] for one in written["protocols"]["time"]}
    for name, has_ranker in served.items():
        assert not has_ranker or in_time[name] > in_time["popularity"] + 0.1, "texts tell the clubs apart"


def test_a_stage_shows_ten_that_a_user_does_not_have(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, protocols = module("served"), module("protocols")
    monkeypatch.setattr(served, "VARIANTS", served.VARIANTS[:1])
    data = own_data(*(tables / f"{name}.parquet" for name in ("interactions", "items", "users")), None)
    every = module("worlds").world(data, tables / "embeddings.db").interactions
    split = protocols.PROTOCOLS["time"].split(every, 0)
    stage = served.Served.of(data, tables / "embeddings.db", tmp_path)

    assert not list(stage.contenders(replace(split, now=None), 1)), "no moment to ask at"
    (entry,) = stage.contenders(split, 1)
    assert len(entry.scores) == len(split.users)
    for user, scores in zip(split.users, entry.scores, strict=True):
        assert sorted(scores[np.isfinite(scores)]) == list(range(-9, 1))
        assert not np.isfinite(scores[split.train.matrix[user].indices]).any()


def test_columns_of_every_kind_are_read_as_features_or_left_out(tmp_path: Path) -> None:
    """Nested, null, boolean, exact and timed columns; ids that are numbers in one table and texts in another."""
    events = pd.DataFrame({"user_id": [1, 2, 1, 3], "item_id": [10, 10, 11, 12], "note": [{"a": 1}] * 4})
    events["timestamp"] = [100, 200, 300, 400]
    items = pd.DataFrame({"item_id": [10.0, 11.0, 12.0], "title": ["a lamp", None, "ein Stuhl für 日本"]})
    items["stock"] = pd.array([1, None, 3], "Int64")
    items["since"] = pd.to_datetime(["1970-01-02", None, "1970-01-04"])
    items["sold_out"] = [True, None, False]
    items["brand"] = pd.Categorical(["B", "A", None])
    items["mean"] = [1.0, np.inf, np.nan]
    items["vector"], items["nested"], items["nothing"] = [[0.5, 0.25]] * 3, [{"a": 1}, None, None], None
    users = pd.DataFrame({"user_id": ["1", "2", "2"], "age": [30, 30, 80], "tags": [["x", "y"], None, ["z"]]})
    users["since"] = pd.to_datetime(["1970-01-02"] * 3)
    for name, table in (("events", events), ("items", items), ("users", users)):
        table.to_parquet(tmp_path / f"{name}.parquet")
    paths = [tmp_path / f"{name}.parquet" for name in ("events", "items", "users")]
    world = module("worlds").without_texts(own_data(*paths, None))

    side = world.side
    assert world.interactions.item_ids.tolist() == ["10", "11", "12"]
    assert {*side.item_numbers} == {"item_stock", "item_since", "item_mean"}
    np.testing.assert_array_equal(side.item_numbers["item_stock"], [1, np.nan, 3])
    np.testing.assert_array_equal(side.item_numbers["item_since"], [1, np.nan, 3])
    np.testing.assert_array_equal(side.item_numbers["item_mean"], [1, np.nan, np.nan])
    # Brands A and B, one kind of nesting, and what is sold out.
    np.testing.assert_array_equal(side.tags, [[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    assert {*side.user_groups} == {"age", "since", "tags_x", "tags_y"}
    assert side.user_groups["age"].tolist() == [
        1,
        1,
        0,
    ]  # of a repeated user the first row, of an unknown one none
    assert side.user_groups["tags_x"].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(side.user_numbers["user_age"], [30, 30, np.nan])
    assert np.isfinite(module("worlds").known_of_items(side)).all()
    assert np.isfinite(module("worlds").known_of_users(side)).all()


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


def test_without_rankers_each_model_stands_alone() -> None:
    everyone = Interactions.of(
        [f"u{user}" for user in range(20) for _ in range(8)],
        [f"i{(user + step) % 12}" for user in range(20) for step in range(8)],
    )
    (records,) = module("__main__").play(
        module("worlds").World("ring", everyone, SideInformation()),
        module("protocols").PROTOCOLS["user75"],
        seeds=[0],
        ranker_names=[],
        ablation=False,
        with_towers=False,
    )
    assert [record.name for record in records] == ["popularity", "ItemKNN", "EASE", "implicit ALS"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--interactions", "absent.parquet"], "--interactions and --items go together"),
        (["--ablation", "--rankers"], "--ablation takes parts away from the full system"),
    ],
)
def test_bad_arguments_are_told_without_a_traceback(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(threads, "1")  # else the process is replaced by one that has them
    with pytest.raises(SystemExit) as left:
        module("__main__").main(arguments)

    assert str(left.value.code).startswith(f"benchmarks.accuracy: {told}")


def test_users_of_whom_training_knows_nothing_are_refused(tables: Path) -> None:
    late = Interactions.of(["u", "v"], ["a", "b"], times=[1.0, 2.0])
    data = module("worlds").World("late", late, SideInformation())
    with pytest.raises(DataError, match="no user of the test part"):
        next(
            module("__main__").play(
                data,
                module("protocols").PROTOCOLS["time"],
                seeds=[0],
                ranker_names=["lightgbm"],
                ablation=False,
            )
        )


def test_each_option_of_networks_is_compared_with_what_differs_in_it_alone() -> None:
    listed = {one.name: one for one in module("neural_options").variants()}

    assert {one.against for one in listed.values()} - {""} < set(listed)
    for one in listed.values():
        base = listed.get(one.against)
        if base is not None:
            assert base.against == ""
            assert (one.options, one.stops) != (base.options, base.stops)
            assert one.label == base.label or one.against == "liked alone"


def test_gains_of_options_by_hand() -> None:
    options, summary, metrics = module("neural_options"), module("summary"), module("metrics")

    def played(name: str, against: str, *seeds: list[float]) -> Any:
        variant = options.Variant(name=name, ranker="dcn", options={}, against=against)
        one = options.Played(variant, *(summary.Record(name, users=2) for _ in range(2)), seconds=[1.0])
        for ndcg in seeds:
            figures = np.array(ndcg)
            for record in (one.taken_up, one.liked):
                record.add(np.array([0, 1]), metrics.Accuracy(figures, figures, figures, 0.5), 1.0, 0.0)
        return one

    base = played("base", "", [0.1, 0.3], [0.2, 0.2])
    better = played("better", "base", [0.2, 0.5], [0.2, 0.4])

    gain, by_seed = better.gain(base, "taken up")
    assert by_seed == pytest.approx([0.15, 0.1])
    assert (gain.mean, gain.low) == pytest.approx((0.125, 0.05))
    told = options.told([base, better])
    assert "gain" not in told[0]["liked"]
    assert told[1]["liked"]["gain_by_seed"] == pytest.approx([0.15, 0.1])


def test_what_is_liked_is_what_was_rated_four_or_more() -> None:
    data = RankingData(
        features=np.zeros((4, 1), np.float32),
        feature_names=("x",),
        labels=[1, 0, 1, 1],
        outcomes={"value": [4.0, np.nan, 3.0, 5.0]},
    )
    both, alone = (module("neural_options").with_likes(data, label) for label in ("taken up", "liked"))

    assert both.outcomes["liked"].tolist() == alone.labels.tolist() == [1, 0, 0, 1]
    assert both.labels.tolist() == [1, 0, 1, 1]
