"""What has the same users: where it is learnt from, and that training is told nothing of what it has to foresee."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorank import load
from explorank.builtin.retrieval import SIMILARITY_BY_USE, SIMILARITY_LEARNED
from explorank.errors import DataError, SettingsError
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.by_use import fit_table
from explorank.pipeline.past_use import PastUse
from explorank.pipeline.queries import QueryOptions, labelled_rows, ranking_queries
from explorank.pipeline.tables import past_interactions
from explorank.pipeline.train import train_ranker
from explorank.pipeline.train_options import TrainOptions
from explorank.retrieval import Catalogue
from explorank.retrieval.collaborative import EASE, ImplicitALSOptions, Interactions
from explorank.settings import (
    ByUseSettings,
    LearnedEmbeddingsSettings,
    RankerComponent,
    RetrievalSettings,
    Settings,
    load_settings,
    parse_settings,
)

ITEMS = [f"i{number:02}" for number in range(40)]
CATALOGUE = Catalogue.build(ITEMS, np.eye(40, dtype=np.float32))
BEGIN = pd.Timestamp("2026-01-01", tz="UTC")
QUERIES = QueryOptions(stride=4, horizon=6)
BY_USE = ByUseSettings(model="item_knn", neighbours=20)
BLOCKS = 5


def taken_up(seed: int, *, users: int, each: int, clubs: int = 1) -> pd.DataFrame:
    """Each user takes up `each` items of their club's in random order; with one club whatever there is."""
    random = np.random.default_rng(seed)
    size = len(ITEMS) // clubs
    events = [
        (f"u{user:03}", ITEMS[user % clubs * size + item], BEGIN + pd.Timedelta(minutes=int(minute)), 1.0)
        for user in range(users)
        for item, minute in zip(
            random.permutation(size)[:each],
            np.sort(random.choice(60 * 24 * 60, each, replace=False)),
            strict=True,
        )
    ]
    return past_interactions(pd.DataFrame(events, columns=["user_id", "item_id", "timestamp", "value"]))


def training(events: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, NDArray[np.int64]]:
    """Return queries, their labelled rows, and where blocks of queries begin."""
    queries = ranking_queries(events, QUERIES, seed=seed)
    rows = labelled_rows(queries, CATALOGUE, negatives=30, seed=seed)
    return queries, rows, np.arange(BLOCKS) * len(queries) // BLOCKS


LEARNED = RetrievalSettings(
    learned_embeddings=LearnedEmbeddingsSettings(
        column=True, als=ImplicitALSOptions(factors=8, l2=5.0, iterations=3)
    )
)


def told_of_learned(
    events: pd.DataFrame, queries: pd.DataFrame, rows: pd.DataFrame, starts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the column by spaces of the past."""
    use = PastUse.of(LEARNED, lambda _: events, CATALOGUE, queries, starts)
    return use.columns(CATALOGUE, queries, rows)[SIMILARITY_LEARNED]


def told_of(
    by_use: ByUseSettings,
    events: pd.DataFrame,
    catalogue: Catalogue,
    queries: pd.DataFrame,
    rows: pd.DataFrame,
    starts: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the column by the tables of the past."""
    use = PastUse.of(RetrievalSettings(by_use=by_use), lambda _: events, catalogue, queries, starts)
    return use.columns(catalogue, queries, rows)[SIMILARITY_BY_USE]


def auc(labels: NDArray[Any], values: NDArray[np.float32], queries: NDArray[Any]) -> float:
    """Return how probably a liked row has the greater value of two of the same query, ties counting half."""
    won, pairs = 0.0, 0
    for query in np.unique(queries):
        own = values[queries == query]
        liked = labels[queries == query] > 0
        difference = own[liked][:, None] - own[~liked][None, :]
        won += (difference > 0).sum() + 0.5 * (difference == 0).sum()
        pairs += difference.size
    return won / pairs


# ---- nothing of what is to be foreseen ------------------------------------------------------------------


@pytest.mark.parametrize("model", ["ease", "item_knn", "als"])
def test_where_nothing_can_be_learnt_the_column_tells_nothing(model: Any) -> None:
    """By chance alone a fit that knew the labels would look like a good one, and a ranker would lean on it."""
    events = taken_up(1, users=150, each=24)
    queries, rows, starts = training(events, 1)

    def told_by(known: pd.DataFrame) -> NDArray[np.float32]:
        if model == "als":
            return told_of_learned(known, queries, rows, starts)
        return told_of(ByUseSettings(model=model, neighbours=40), known, CATALOGUE, queries, rows, starts)

    told = told_by(events)

    labels, query = rows["label"].to_numpy(), rows["query"].to_numpy()
    known = ~np.isnan(told)
    assert known.mean() > 0.7
    assert auc(labels[known], told[known], query[known]) == pytest.approx(0.5, abs=0.02)
    # The same with a fit that has seen all: what the first assertion keeps out.
    leaked = told_by(events.assign(timestamp=BEGIN - pd.Timedelta(days=1)))
    assert auc(labels, leaked, query) > 0.55


def test_where_clubs_can_be_learnt_the_column_tells_them() -> None:
    events = taken_up(2, users=60, each=10, clubs=2)
    queries, rows, starts = training(events, 2)

    later = rows["query"].to_numpy() >= starts[1]
    for told in (
        told_of(BY_USE, events, CATALOGUE, queries, rows, starts),
        told_of_learned(events, queries, rows, starts),
    ):
        assert not np.isnan(told[later]).any()
        assert auc(rows["label"].to_numpy()[later], told[later], rows["query"].to_numpy()[later]) > 0.75


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(0, BLOCKS - 1))
def test_what_comes_after_a_block_begins_changes_nothing_in_it(seed: int, block: int) -> None:
    events = taken_up(seed, users=20, each=20)
    queries, rows, starts = training(events, 0)
    told = [
        told_of(BY_USE, events, CATALOGUE, queries, rows, starts),
        told_of_learned(events, queries, rows, starts),
    ]
    random = np.random.default_rng(seed)
    later = (events["timestamp"] >= queries["event_timestamp"].iloc[starts[block]]).to_numpy()

    other = events.copy()
    other.loc[later, "item_id"] = random.choice(ITEMS, int(later.sum()))
    changed = [
        told_of(BY_USE, other, CATALOGUE, queries, rows, starts),
        told_of_learned(other, queries, rows, starts),
    ]

    end = starts[block + 1] if block + 1 < BLOCKS else len(queries)
    until = rows["query"].to_numpy() < end
    for before, after in zip(told, changed, strict=True):
        np.testing.assert_array_equal(after[until], before[until])


def test_a_block_without_a_past_is_told_nothing() -> None:
    events = taken_up(3, users=10, each=12)
    queries, rows, starts = training(events, 0)
    before = events["timestamp"] < queries["event_timestamp"].iloc[starts[2]]
    late = events.assign(timestamp=events["timestamp"].mask(before, events["timestamp"].max()))

    told = told_of(BY_USE, late, CATALOGUE, queries, rows, starts)

    first = rows["query"].to_numpy() < starts[3]
    assert np.isnan(told[first]).all()
    assert not np.isnan(told[~first]).all()


def test_the_latest_items_of_a_history_count() -> None:
    events = taken_up(4, users=40, each=20)
    table = fit_table(BY_USE, events, CATALOGUE.item_ids)
    assert table is not None
    liked = ("i03", "gone", "i07", "i07", "i01")
    queries = pd.DataFrame(
        {"liked": [liked], "event_timestamp": [events["timestamp"].max() + pd.Timedelta(days=1)]}
    )
    rows = pd.DataFrame({"query": 0, "item_id": ["i20", "i01", "gone"]})

    def told(history: int) -> NDArray[np.float32]:
        by_use = BY_USE.model_copy(update={"history": history})
        return told_of(by_use, events, CATALOGUE, queries, rows, np.array([0]))

    def mean(*items: str) -> list[float]:
        weights = [dict(zip(*map(list, table.like([item], 40)), strict=True)) for item in items]
        return [float(np.mean([one.get(wanted, 0.0) for one in weights])) for wanted in ("i20", "i01")]

    np.testing.assert_allclose(told(2)[:2], mean("i07", "i01"), rtol=1e-6)
    np.testing.assert_allclose(told(50)[:2], mean("i03", "i07", "i01"), rtol=1e-6)
    assert np.isnan(told(50)[2])


# ---- where it is learnt from ----------------------------------------------------------------------------


@pytest.fixture
def written(installation: Path) -> Settings:
    return load_settings(installation / "explorank.yaml")


def with_by_use(written: Settings, learned: dict[str, Any] | None = None, **by_use: Any) -> Settings:
    retrieval = {
        "by_use": by_use,
        "learned_embeddings": learned,
        "retrievers": [{"use": "similar_by_use", "k": 30}, {"use": "popular", "k": 30}],
    }
    plain = written.model_dump(mode="json", include={"version", "features", "exploration", "ranker"})
    return parse_settings({**plain, "retrieval": retrieval}, written.path("."))


def test_the_settings_name_the_table_that_it_is_learnt_from(written: Settings, installation: Path) -> None:
    wanted = with_by_use(written, interactions="interactions.parquet", model="ease", neighbours=10)

    _, catalogue = build_catalogue(wanted)

    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    liked = events[events["value"] >= 4.0]
    model = EASE.fit(Interactions.of(liked["user_id"], liked["item_id"]))
    history, others = ["sea-1", "crime-2"], ["sea-4", "chess-1"]
    ids, weights = model.neighbours(10).item_ids, model.neighbours(10)
    kept = np.zeros((2, len(ids)), np.float32)
    for number, item in enumerate(history):
        row = int(np.flatnonzero(ids == item)[0])
        own = slice(weights.starts[row], weights.starts[row + 1])
        kept[number, weights.neighbours[own]] = weights.weights[own]
    expected = [kept[:, int(np.flatnonzero(ids == item)[0])].mean() for item in others]
    np.testing.assert_allclose(catalogue.means_by_use(history, others), expected, rtol=1e-5)


def test_nothing_later_than_until_is_learnt(written: Settings, installation: Path) -> None:
    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    half = pd.Timestamp("2026-01-31", tz="UTC")
    wanted = with_by_use(written)

    _, until = build_catalogue(wanted, interactions=events, until=half.to_pydatetime())
    _, past = build_catalogue(
        wanted, interactions=events[events["timestamp"] <= half], until=half.to_pydatetime()
    )
    _, whole = build_catalogue(wanted, interactions=events)

    ids = until.item_ids.tolist()
    np.testing.assert_array_equal(until.means_by_use(ids[:3], ids), past.means_by_use(ids[:3], ids))
    assert not np.array_equal(until.means_by_use(ids[:3], ids), whole.means_by_use(ids[:3], ids))


def test_the_log_tells_what_was_rewarded(written: Settings) -> None:
    host = parse_settings(
        {
            "version": 1,
            "ranker": None,
            "retrieval": {"retrievers": []},
            "feedback": {"rewards": {"click": 1.0, "hidden": -1.0}},
        },
        written.path("."),
    )
    with load(host) as stage:
        for user in ("ann", "bob", None):
            taken = ("sea-1", "bread", "baking-2") if user else ("sea-1", "chess-1")
            shown = [*taken, "space-1", "chess-2"]
            decision = stage.explore(shown, np.arange(len(shown), 0.0, -1.0), user_id=user)
            for item in taken:
                stage.reward(decision.decision_id, item_id=item)
            stage.reward(decision.decision_id, item_id="space-1", kind="hidden")
            # Opened, and found to be the wrong thing: a reward above 0 alone says nothing.
            stage.reward(decision.decision_id, item_id="chess-2")
            stage.reward(decision.decision_id, item_id="chess-2", kind="hidden")
    wanted = with_by_use(written, log=True).model_copy(update={"feedback": host.feedback})

    _, catalogue = build_catalogue(wanted)

    means = catalogue.means_by_use(["sea-1"], ["baking-2", "chess-1", "space-1", "chess-2", "sea-1"])
    assert means[0] > 0
    # Of an anonymous visitor, of a kind that is no gain, of what was liked and then was not, of itself.
    assert means[1:].tolist() == [0, 0, 0, 0]


def test_what_is_missing_is_named_with_the_way_out(written: Settings, installation: Path) -> None:
    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    with pytest.raises(DataError, match=r"nothing names any. Pass `--interactions FILE`, or set"):
        build_catalogue(with_by_use(written))
    with pytest.raises(DataError, match=r"none.parquet could not be read"):
        build_catalogue(with_by_use(written, interactions="none.parquet"))
    with pytest.raises(DataError, match="would be read for nothing"):
        build_catalogue(written, interactions=events)
    with pytest.raises(SettingsError, match=r"Set `retrieval\.by_use: \{interactions: FILE\}`"):
        parse_settings({"version": 1, "retrieval": {"retrievers": [{"use": "similar_by_use"}]}}, installation)


# ---- training and serving see the same ------------------------------------------------------------------


def test_a_ranker_is_trained_on_the_column_and_served_it(
    written: Settings, installation: Path, spy: Any
) -> None:
    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    asked = events["timestamp"].max() + pd.Timedelta(seconds=1)
    learned = {"column": True, "als": {"factors": 4, "l2": 1.0}}
    wanted = with_by_use(written, learned, interactions="interactions.parquet")
    _, catalogue = build_catalogue(wanted)
    _, report = train_ranker(
        wanted,
        events,
        component=RankerComponent(use="lightgbm", rounds=5),
        options=TrainOptions(
            queries=QueryOptions(positive_from=4.0), max_queries=40, negatives=20, promote="always"
        ),
    )
    assert {SIMILARITY_BY_USE, SIMILARITY_LEARNED} < set(report.features)

    with load(wanted, plugins=[spy]) as stage:
        decision = stage.rank(user_id="reader-7", slots=5)
        assert not decision.fallbacks
        explained = stage.explain(decision.decision_id)
        stage.rank(user_id="nobody", slots=5)
        stage.rank(similar_to="sea-3", slots=5)

    assert explained.items[0].as_served
    own = events[(events["user_id"] == "reader-7") & (events["value"] >= 4.0)]
    queries = pd.DataFrame({"liked": [tuple(own["item_id"])], "event_timestamp": [asked]})
    (_, candidates, served), (_, _, of_nobody), (_, like, anchored) = spy.seen
    item_ids, like = candidates.item_ids.tolist(), like.item_ids.tolist()
    rows = pd.DataFrame({"query": 0, "item_id": item_ids})
    liked = events[events["value"] >= 4.0]
    use = PastUse.of(wanted.retrieval, lambda _: liked, catalogue, queries, np.array([0]))
    trained = use.columns(catalogue, queries, rows)
    for column in (SIMILARITY_BY_USE, SIMILARITY_LEARNED):
        np.testing.assert_allclose(served.column(column), trained[column], rtol=1e-6)
        assert (trained[column] > 0).any()
        assert np.isnan(of_nobody.column(column)).all()
    products = catalogue.learned_products_at(["sea-3"], catalogue.rows(like))
    np.testing.assert_array_equal(anchored.column(SIMILARITY_LEARNED), products)
    np.testing.assert_array_equal(anchored.column(SIMILARITY_BY_USE), catalogue.means_by_use(["sea-3"], like))
